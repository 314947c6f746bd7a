import asyncio

import pytest

from bellwire import MessagesLost
from bellwire.client.messages import MAX_BUFFERED, MAX_BUFFERED_BYTES, Messages
from bellwire.testing.clock import advance


async def test_items_are_values_tuples_or_none() -> None:
    messages: Messages[object] = Messages("x")
    for payload in ((1,), (1, "a"), ()):
        assert messages.feed(payload, 1)
    assert [await anext(messages) for _ in range(3)] == [1, (1, "a"), None]


async def test_it_waits_and_ends() -> None:
    messages: Messages[int] = Messages("x")
    first = asyncio.ensure_future(anext(messages))
    await advance()
    assert not first.done()
    messages.feed((1,), 1)
    assert await first == 1
    messages.feed((2,), 1)
    messages.end()
    assert [number async for number in messages] == [2]


async def test_what_found_no_room_is_told_in_its_place() -> None:
    messages: Messages[int] = Messages("x")
    taken = [messages.feed((number,), 1) for number in range(MAX_BUFFERED + 3)]
    assert taken == [True] * MAX_BUFFERED + [False] * 3
    assert [await anext(messages) for _ in range(10)] == list(range(10))
    assert messages.feed((5000,), 1)
    assert [await anext(messages) for _ in range(10, MAX_BUFFERED)] == list(range(10, MAX_BUFFERED))
    with pytest.raises(MessagesLost, match="3 events 'x' were dropped") as lost:
        await anext(messages)
    assert (lost.value.name, lost.value.count, lost.value.code) == ("x", 3, "messages_lost")
    assert await anext(messages) == 5000


async def test_bytes_are_bounded_and_one_long_message_is_let_in() -> None:
    messages: Messages[int] = Messages("x")
    assert messages.feed((1,), MAX_BUFFERED_BYTES * 2)
    assert not messages.feed((2,), 1)
    assert await anext(messages) == 1
    with pytest.raises(MessagesLost):
        await anext(messages)
    assert messages.feed((3,), MAX_BUFFERED_BYTES)


async def test_gaps_take_no_room_however_long_they_are() -> None:
    messages: Messages[int] = Messages("x")
    for number in range(MAX_BUFFERED * 3):
        messages.feed((number,), 1)
    assert len(messages._buffer) == MAX_BUFFERED + 1
