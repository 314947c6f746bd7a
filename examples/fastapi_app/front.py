"""Bellwire in front of FastAPI: bellwire run front:server"""

from fastapi import FastAPI
from shop import orders, router

from bellwire import Server

app = FastAPI()
app.include_router(router)

server = Server(http=app)
server.include(orders)
