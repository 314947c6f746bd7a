"""Both sides of a tunnel, with carriers that are as slow as they are told; the rest is in `test_forwarding`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import pytest

from bellwire.core.config import Config
from bellwire.protocol.outgoing import Outgoing
from bellwire.server.channels import Channel
from bellwire.server.tunnel import MAX_WAITING, Burst, TunnelCarrier, TunnelEnd
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from bellwire.transports.session import Session
from tests.server.test_channels import Ear, Speaker, speakers
from tests.transports.pipe import Pipe
from tests.transports.wire import Echo, EchoServer

UPGRADE_TIMEOUT = Config().upgrade_timeout


class Tunnel(NamedTuple):
    carrier: TunnelCarrier
    """The session's."""
    echo: Echo
    end: TunnelEnd
    pipe: Pipe
    """The client's connection."""
    ended: list[TunnelEnd]


class Gate(Speaker):
    """A node that takes a tunnel for a new session."""

    tunnel: TunnelCarrier
    echo: Echo

    def accept_into(self, server: EchoServer) -> None:
        channel = self.accepted[-1].channel
        assert channel is not None
        carrier = TunnelCarrier(server.engine, self.dispatcher, channel)
        channel.receiver = carrier
        session = Session("sid", server.engine, carrier, Request(path="/socket.io/"))
        carrier.session = session
        self.echo = Echo(session, echoing=False)
        session.receiver = self.echo
        self.tunnel = carrier


@asynccontextmanager
async def tunnel(**settings: int) -> AsyncIterator[Tunnel]:
    async with speakers(Gate) as (_, one, other):
        assert isinstance(other, Gate)
        server, pipe = EchoServer(**settings), Pipe()
        ended: list[TunnelEnd] = []
        end = TunnelEnd(server.engine, one.dispatcher, pipe, b"hello", ended.append)
        end.start(one.channels.open(other.id, end))
        other.accept_into(server)
        yield Tunnel(other.tunnel, other.echo, end, pipe, ended)


async def test_packets_go_both_ways_in_order() -> None:
    async with tunnel() as (carrier, echo, end, pipe, _):
        carrier.send(Outgoing("4a", b"\x00"))
        carrier.send(Outgoing("4b"))
        carrier.flush()
        assert pipe.sent == ["4a", b"\x00", "4b"]
        end.received(pipe, "4c")
        end.received(pipe, b"\xff")
        assert echo.messages == ["c", b"\xff"]


async def test_what_is_unread_counts_until_the_clients_connection_has_room() -> None:
    async with tunnel() as (carrier, echo, end, pipe, _):
        block = Outgoing("4" + "a" * 50_000)
        end.congested(pipe)
        for _ in range(2):
            carrier.send(block)
            carrier.flush()
        assert carrier.buffered == 2 * block.size
        assert not carrier.writable
        await advance(1)
        assert echo.notices == ["congested"]
        end.drained(pipe)
        assert carrier.buffered == 0
        await advance(1)
        assert echo.notices == ["congested", "drained"]


async def test_a_client_that_says_more_than_the_broker_takes_waits() -> None:
    async with tunnel() as (carrier, echo, end, pipe, _):
        end._pump._running = True  # as while the broker takes its time
        end.received(pipe, "4" + "a" * MAX_WAITING)
        assert not pipe.reading
        assert echo.messages == []
        end._pump._running = False
        end._pump.wake()
        assert pipe.reading
        assert len(echo.messages) == 1
        carrier.set_reading(False)
        assert not pipe.reading
        carrier.set_reading(True)
        assert pipe.reading


@pytest.mark.parametrize("nonsense", [b"", b"\xc1", msgspec.msgpack.encode(["text"]), msgspec.msgpack.encode([[1]])])
async def test_what_cannot_be_read_ends_both(nonsense: bytes) -> None:
    for side in (0, 1):
        async with tunnel() as (carrier, echo, end, pipe, _):
            (carrier, end)[side].arrived(nonsense)
            assert echo.reasons == ["transport close"]
            assert pipe.closed == 1012


async def test_each_side_takes_no_more_back_than_there_is() -> None:
    async with tunnel() as (carrier, _, end, _, _):
        carrier.arrived(msgspec.msgpack.encode(Burst(taken=10**9)))
        assert carrier.buffered == 0
        assert end.alive


async def test_the_other_side_has_the_time_of_an_upgrade_to_say_something() -> None:
    async with tunnel() as (_, echo, _, pipe, _):
        await advance(UPGRADE_TIMEOUT + 1)
        assert pipe.closed == 1012
        assert echo.reasons == ["transport close"]
    async with tunnel() as (carrier, echo, _, pipe, _):
        carrier.send(Outgoing("3probe"))
        carrier.flush()
        await advance(UPGRADE_TIMEOUT + 1)
        assert pipe.closed is None
        assert echo.reasons == []


async def test_a_connection_that_is_lost_is_told_once() -> None:
    async with tunnel() as (_, echo, end, pipe, ended):
        end.received(pipe, "4last")
        end.lost(pipe, "transport close")
        end.lost(pipe, "transport close")
        assert echo.messages == ["last"]
        assert echo.reasons == ["transport close"]
        assert ended == [end]


async def test_the_session_ends_with_its_code_or_at_once() -> None:
    async with tunnel() as (carrier, _, _, pipe, _):
        carrier.send(Outgoing("4last"))
        carrier.close(4001)
        carrier.send(Outgoing("4late"))
        carrier.flush()
        assert pipe.sent == ["4last"]
        assert pipe.closed == 4001
    async with tunnel() as (carrier, _, _, pipe, _):
        carrier.send(Outgoing("4last"))
        carrier.abort()
        assert pipe.sent == []
        assert pipe.closed == "aborted"


async def test_a_channel_that_is_over_closes_nothing_twice() -> None:
    async with speakers() as (_, one, other):
        server, pipe = EchoServer(), Pipe()
        end = TunnelEnd(server.engine, one.dispatcher, pipe, b"hello", lambda _: None)
        channel: Channel = one.channels.open(other.id, end)
        end.start(channel)
        far = other.accepted[-1]
        assert isinstance(far, Ear)
        assert far.channel is not None
        far.channel.close()
        assert pipe.closed == 1012
        end.received(pipe, "4a")
        end.lost(pipe, "transport close")
        assert far.messages == [b"hello"]
