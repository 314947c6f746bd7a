"""Records as the scripts of Redis write them, and servers that say what a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Link
from bellwire.brokers.redis_streams import VERSION
from bellwire.delivery.entry import Draft
from bellwire.delivery.position import START, Point


def record(seq: int, prev: Point = START, tag: int | None = None, at: float = 1.5) -> bytes:
    """An entry whose tag is eleven times its number unless it is another."""
    draft = Draft(f"m{seq}", 11 * seq if tag is None else tag, b"body")
    head = f"{seq} {draft.tag} {prev.seq} {prev.tag} {at * 1e6:.0f} 70\n"
    return head.encode() + VERSION + msgspec.msgpack.encode(draft)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Link]:
    """A connection to a server that answers so, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            writer.write(answer)
        writer.close()

    door = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = Link()
    await link.open(RedisAddress("127.0.0.1", door.sockets[0].getsockname()[1], encrypted=False))
    try:
        yield link
    finally:
        link.close()
        door.close()
        await door.wait_closed()
