"""One connection: what waits on it ends with it, and nothing leaves after its sender was told that it is over."""

import asyncio
import contextlib
import gc
from typing import Any

import pytest
import uvloop

from bellwire.brokers import nats_link
from bellwire.brokers.nats_link import Link, Message, Unanswered
from bellwire.core.errors import BrokerUnavailable, MessageTooLarge
from bellwire.testing.clock import advance
from tests.brokers.nats_server import NatsServer, Proxy

pytestmark = pytest.mark.bellwire(clock="real")


async def clog(link: Link) -> None:
    """Write to a server that stands still until the kernel takes no more."""
    transport = link._client._transport._io_writer.transport  # type: ignore[union-attr]
    while not transport.get_write_buffer_size():
        await link.publish("x", bytes(100_000))
        await asyncio.sleep(0)


async def test_what_waits_ends_at_once_when_the_connection_is_cut(server: NatsServer) -> None:
    async with Proxy.to(server) as proxy:
        link = Link()
        await link.open(proxy.url)
        proxy.swallow()
        questions = [asyncio.create_task(link.ask("$JS.API.INFO", b"")) for _ in range(10)]
        await proxy.swallowed.wait()
        started = asyncio.get_running_loop().time()
        proxy.cut()
        assert all(isinstance(a, Unanswered) for a in await asyncio.gather(*questions, return_exceptions=True))
        assert asyncio.get_running_loop().time() - started < 2
        assert link.lost.is_set()
        for question in (link.ask("$JS.API.INFO", b""), link.publish("x", b"")):
            with pytest.raises(BrokerUnavailable):
                await question
        await link.close()


async def test_a_question_that_nobody_takes_did_nothing_and_is_told(server: NatsServer) -> None:
    for many in (False, True):
        missed: list[bool] = []
        link = Link(lambda missed=missed: missed.append(True))  # type: ignore[misc]
        await link.open(server.url)
        with pytest.raises(BrokerUnavailable, match="nobody answers"):
            await (link.ask_many if many else link.ask)("nobody.there", b"")
        assert missed == [True]
        assert not link.lost.is_set()
        await link.close()


def test_under_uvloop_a_cut_is_told_though_something_was_about_to_be_written(server: NatsServer) -> None:
    faults: list[dict[str, Any]] = []

    async def cut_while_publishing() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with Proxy.to(server) as proxy:
            for _ in range(20):
                link = Link()
                await link.open(proxy.url)
                proxy.cut()
                while not link.lost.is_set():
                    with contextlib.suppress(BrokerUnavailable):
                        await link.publish("somewhere", b"x")
                    await asyncio.sleep(0)
                await link.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(cut_while_publishing())
    gc.collect()  # so that a task is told of whose exception nobody has taken
    assert faults == []


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
async def test_why_there_is_no_connection_is_told_without_secrets(host: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"no connection to NATS: .*Connect call failed") as raised:
        await Link().open(f"nats://secret@{host}")
    assert "secret" not in str(raised.value)


async def test_whoever_is_turned_away_is_told(server: NatsServer) -> None:
    with pytest.raises(BrokerUnavailable, match=r"no connection to NATS: .*Authorization Violation"):
        await Link().open(f"nats://wrong@127.0.0.1:{server.port}")


async def test_it_ends_though_the_server_takes_no_more(server: NatsServer) -> None:
    link = Link()
    await link.open(server.url)
    await server.freeze()
    try:
        await clog(link)
        started = asyncio.get_running_loop().time()
        await link.close()
        assert asyncio.get_running_loop().time() - started < 3
    finally:
        server.thaw()
    assert link.lost.is_set()


@pytest.mark.parametrize("how", ["close", "broken"])
async def test_whoever_has_much_to_write_waits_no_longer_than_there_is_a_connection(
    server: NatsServer, how: str
) -> None:
    link = Link()
    await link.open(server.url)
    await server.freeze()
    try:
        await clog(link)
        writing = [asyncio.create_task(link.publish("x", bytes(10_000))) for _ in range(3_000)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not writing[-1].done()
        if how == "close":
            await link.close()
        else:
            link._client.abort()
        async with asyncio.timeout(5):
            await asyncio.gather(*writing, return_exceptions=True)
            await link.lost.wait()
        await link.close()
    finally:
        server.thaw()


@pytest.mark.bellwire(clock="virtual")
async def test_each_question_waits_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(*_: Any, **__: Any) -> None: ...

    link = Link()
    link._loop = asyncio.get_running_loop()
    monkeypatch.setattr(link, "publish", publish)
    for _ in range(2):
        asked = [asyncio.create_task(link.ask("first", b""))]
        await advance(2)
        asked.append(asyncio.create_task(link.ask("second", b"")))
        await advance(1)
        asked.append(asyncio.create_task(link.ask("third", b"")))
        for answered in (0, 0, 1, 1, 2, 3):
            assert sum(task.done() for task in asked) == answered
            await advance(1)
        for task, subject in zip(asked, ("first", "second", "third"), strict=True):
            with pytest.raises(Unanswered, match=subject):
                task.result()
        assert link._expiry is None


async def test_answers_find_their_questions(server: NatsServer) -> None:
    link, echo = Link(), Link()
    await link.open(server.url)
    await echo.open(server.url)
    replies: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()
    await echo.subscribe("ask", lambda subject, message: replies.put_nowait((subject, message)))
    await echo.ask("$JS.API.INFO", b"")  # the subscription has arrived
    questions = [asyncio.create_task(link.ask("ask", bytes([n]), {"N": str(n)})) for n in range(5)]
    asked = [await replies.get() for _ in questions]
    assert [message.data for _, message in asked] == [bytes([n]) for n in range(5)]
    for n in (3, 0, 4, 2, 1):
        await echo.publish(f"{link._inbox}.{n + 1}", b"answer %d" % n)
        await echo.publish(f"{link._inbox}.{n + 1}", b"too late")
    assert [answer.data for answer in await asyncio.gather(*questions)] == [b"answer %d" % n for n in range(5)]
    await link.close()
    await echo.close()


async def test_not_more_than_so_many_questions_wait(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_link, "MAX_WAITING", 2)
    async with Proxy.to(server) as proxy:
        link = Link()
        await link.open(proxy.url)
        proxy.swallow()
        questions = [asyncio.create_task(link.ask("$JS.API.INFO", b"")) for _ in range(2)]
        await proxy.swallowed.wait()
        with pytest.raises(BrokerUnavailable, match="wait for NATS already"):
            await link.ask("$JS.API.INFO", b"")
        await link.close()
        await asyncio.gather(*questions, return_exceptions=True)


@pytest.mark.parametrize("over", [0, 1])
async def test_max_payload_is_exact_with_headers(server: NatsServer, over: int) -> None:
    link = Link()
    await link.open(server.url)
    headers = {"Nats-Msg-Id": "m", "Other": "value"}
    data = b"x" * (link.max_payload - nats_link._size_of(headers) + over)
    if over:
        with pytest.raises(MessageTooLarge) as caught:
            await link.publish("x", data, headers)
        assert (caught.value.size, caught.value.limit) == (server.max_payload + 1, server.max_payload)
    else:
        await link.publish("x", data, headers)
    await link.ask("$JS.API.INFO", b"")
    assert not link.lost.is_set()
    await link.close()


async def test_headers_of_any_kind_are_read_as_they_were_sent(server: NatsServer) -> None:
    link, got = Link(), asyncio.Queue[Message]()
    await link.open(server.url)
    await link.subscribe("headers", lambda _, message: got.put_nowait(message))
    sent = {"Name": "a: b", "Empty": "", "Long": "x" * 2_000, "Text": "grün"}
    await link.publish("headers", b"body", sent)
    async with asyncio.timeout(5):
        assert await got.get() == Message(sent, b"body", "")
        await link._client._send_command(
            b"HPUB headers 44 44\r\nNATS/1.0\r\nTight:1\r\nnone\r\nTab:\t2 \r\nBad: \xff\r\n\r\n\r\n"
        )
        await link._client._flush_pending()
        message = await got.get()
    assert message.headers == {"Tight": "1", "Tab": "2", "Bad": "\N{REPLACEMENT CHARACTER}"}
    await link.close()
