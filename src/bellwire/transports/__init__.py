"""How bytes reach the protocol floor: natively on the socket, through ASGI, by long-polling."""
