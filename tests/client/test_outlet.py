import asyncio

import pytest

from bellwire import Disconnected
from bellwire.client.outlet import MAX_WAITING, MAX_WAITING_BYTES, Outlet
from bellwire.protocol.outgoing import Outgoing
from bellwire.testing.clock import advance


class Paper:
    """A connection that writes everything down."""

    def __init__(self, room: int = 10**9) -> None:
        self.sent: list[Outgoing] = []
        self.room = room

    @property
    def writable(self) -> bool:
        return len(self.sent) < self.room

    def send(self, message: Outgoing) -> None:
        self.sent.append(message)


def numbered(n: int) -> list[Outgoing]:
    return [Outgoing(f"4{number}") for number in range(n)]


async def test_with_a_connection_it_writes_at_once() -> None:
    outlet, paper, messages = Outlet(), Paper(), numbered(3)
    assert not outlet.writable
    outlet.attach(paper)
    assert outlet.writable
    for message in messages:
        await outlet.put(message)
    assert paper.sent == messages
    assert not outlet.holds(messages[0])


async def test_without_one_it_keeps_the_order() -> None:
    outlet, first, second, messages = Outlet(), Paper(room=2), Paper(), numbered(6)
    for message in messages[:4]:
        await outlet.put(message)
    outlet.attach(first)
    assert first.sent == messages[:2]
    await outlet.put(messages[4])
    assert not outlet.writable
    outlet.detach()
    await outlet.put(messages[5])
    outlet.attach(second)
    assert second.sent == messages[2:]


async def test_flush_goes_on_when_the_server_has_read() -> None:
    outlet, paper, messages = Outlet(), Paper(room=1), numbered(3)
    outlet.attach(paper)
    for message in messages:
        await outlet.put(message)
    assert paper.sent == messages[:1]
    paper.room = 2
    outlet.flush()
    assert paper.sent == messages[:2]
    outlet.drain()
    assert paper.sent == messages


async def test_put_waits_for_room_in_turn() -> None:
    outlet, paper, messages = Outlet(), Paper(), numbered(MAX_WAITING + 3)
    for message in messages[:MAX_WAITING]:
        await outlet.put(message)
    late = [asyncio.ensure_future(outlet.put(message)) for message in messages[MAX_WAITING:]]
    await advance()
    assert not any(put.done() for put in late)
    assert outlet.holds(messages[-1])
    late[1].cancel()
    await advance()
    outlet.withdraw(messages[0])
    await advance()
    assert [put.done() for put in late] == [True, True, False]
    outlet.attach(paper)
    await advance()
    assert all(put.done() for put in late)
    assert paper.sent == [*messages[1 : MAX_WAITING + 1], messages[-1]]


async def test_bytes_are_bounded_and_a_long_message_waits_alone() -> None:
    outlet, paper = Outlet(), Paper()
    long = Outgoing("4" + "x" * 2 * MAX_WAITING_BYTES)
    await outlet.put(long)
    short = asyncio.ensure_future(outlet.put(Outgoing("4")))
    await advance()
    assert not short.done()
    outlet.attach(paper)
    await short
    assert [message.size for message in paper.sent] == [long.size, 3]


async def test_closing_counts_what_was_kept_and_wakes_who_waits() -> None:
    outlet, messages = Outlet(), numbered(MAX_WAITING + 1)
    for message in messages[:-1]:
        await outlet.put(message)
    waiting = asyncio.ensure_future(outlet.put(messages[-1]))
    await advance()
    assert outlet.close("io client disconnect") == MAX_WAITING
    with pytest.raises(Disconnected, match="io client disconnect"):
        await waiting
    with pytest.raises(Disconnected, match="io client disconnect"):
        await outlet.put(messages[0])
    assert outlet.close("again") == 0
