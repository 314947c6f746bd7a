"""The program on Bellwire: ``bellwire run bench.servers.bellwire_server:server``."""

from bellwire import Config, Event, Server, Socket

PUB = Event("pub", str)
MSG = Event("msg", str)
ECHO = Event("echo", str, reply=str)
RELAY = Event("relay", str, reply=str)

server = Server(config=Config(message_rate="off"))  # clients here do nothing but send
root = server.namespace("/", emits=(MSG,))


@root.on(PUB)
async def publish(socket: Socket, text: str) -> None:
    """Send the text on to everyone."""
    await root.emit(MSG, text)


@root.on(ECHO)
async def echo(socket: Socket, text: str) -> str:
    """Acknowledge with the text."""
    return text


@root.on(RELAY, effect="relay")
async def relay(socket: Socket, text: str) -> str:
    """Send the text back as an event too, exactly once."""
    await socket.emit(MSG, text)
    return text
