"""Bellwire inside FastAPI: uvicorn mounted:app --timeout-graceful-shutdown 3"""

from fastapi import FastAPI
from shop import orders, router

from bellwire import Server

server = Server()
server.include(orders)

app = FastAPI(lifespan=server.lifespan)
app.include_router(router)
app.mount("/", server)
