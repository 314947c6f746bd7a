"""What an answer must know that is to be no older than its question, where a stream has replicas.

JetStream acknowledges when a majority has a message. A direct get is answered by any replica, one that lags behind
included, and the leader is no better: a deposed one does not know that it is. So a *fence* is appended, a message on a
subject of its own that replaces the one before it, and its number is taken along: a replica that has applied it has
applied everything that was acknowledged before the fence was asked for.

Who asks while a fence is under way shares the next one with all others who wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from bellwire.brokers.nats_link import Link, Message
from bellwire.core.errors import BrokerUnavailable

CAUGHT_UP_WITHIN: Final = 5.0
"""Seconds in which some replica is to have applied a fence: it takes milliseconds where nothing is wrong."""

_PAUSE: Final = 0.005
_MAX_PAUSE: Final = 0.1

T = TypeVar("T")
_ROLLUP: Final = {"Nats-Rollup": "sub"}
_encode: Final = msgspec.json.Encoder().encode
_parse: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Fence:
    """The fences of one node, each on the subject that its JetStream stream has for them."""

    def __init__(self) -> None:
        self._next: dict[tuple[Link, str], asyncio.Task[int]] = {}
        self._writing: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[int]] = set()

    async def close(self) -> None:
        """End those that are under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def put(self, link: Link, subject: str) -> int:
        """Append a fence to ``subject`` and return its number.

        No replica has applied it without all that was acknowledged before this call.

        Raises:
            BrokerUnavailable, Unanswered: as in `Link.ask`.

        """
        key = link, subject
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._put(key), name="bellwire: NATS fence")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _put(self, key: tuple[Link, str]) -> int:
        link, subject = key
        async with self._writing.setdefault(subject, asyncio.Lock()):
            del self._next[key]  # who comes from here on is later than this one
            answer = _parse((await link.ask(subject, b"", _ROLLUP)).data)
        if "error" in answer:
            raise BrokerUnavailable(f"JetStream refused a fence: {answer['error'].get('description')}")
        return int(answer["seq"])

    def _ended(self, task: asyncio.Task[int]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it may have left


async def caught_up(look: Callable[[], Awaitable[T | None]]) -> T:
    """Return what ``look`` finds, asking again as long as it finds None: the replica that answered lags.

    Raises:
        BrokerUnavailable: none caught up.

    """
    pause = _PAUSE
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN):
            while (found := await look()) is None:
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, 2 * pause)
    except TimeoutError:
        raise BrokerUnavailable("no replica in NATS knows what was acknowledged: they lag too far behind") from None
    return found


async def newest_behind(link: Link, stream: str, subject: str, fence: str, least: int) -> Message | None:
    """Return the newest message on ``subject`` of a JetStream stream, as a replica has it that applied ``least``.

    ``least`` is the number of a fence on the subject ``fence``. One answer holds both, so one replica gave both.
    """
    request = _encode({"multi_last": [fence, subject]})

    async def look() -> tuple[Message | None] | None:
        newest = {part.headers["Nats-Subject"]: part for part in await link.ask_many(_direct(stream), request)}
        there = newest.get(fence)
        return None if there is None or int(there.headers["Nats-Sequence"]) < least else (newest.get(subject),)

    (message,) = await caught_up(look)
    return message


def _direct(stream: str) -> str:
    return f"$JS.API.DIRECT.GET.{stream}"
