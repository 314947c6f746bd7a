"""Users whose tokens are revoked while they are there, while they are away, and while they come."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bellwire import (
    AUTH_RENEW,
    BellwireError,
    BrokerUnavailable,
    Config,
    ConnectRefused,
    Disconnected,
    EventRefused,
    Identity,
    NodesUnreachable,
    OutcomeUnknown,
    Request,
    Server,
    Socket,
)
from bellwire.brokers.memory import Faults, MemoryBroker
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.guarantee.world import Make, Node, World, world_on
from tests.guard.tokens import secret_auth, token
from tests.server.servers import HELLO, House, houses
from tests.server.stock import Stock


def revoking(**settings: Any) -> tuple[Server, list[Socket]]:
    """A server that goes by tokens, and its sockets."""
    server = Server(config=Config(**settings), auth=secret_auth(leeway=60))
    root = server.namespace("/")
    sockets: list[Socket] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    return server, sockets


def faults_of(server: Server) -> Faults:
    """What can become of its broker, which is in memory."""
    broker = server.runtime.broker
    assert isinstance(broker, MemoryBroker)
    return broker.faults


def old(user: str = "ada") -> str:
    """A token from before the test."""
    return token(sub=user, iat=int(time.time()) - 10)


def new(user: str = "ada") -> str:
    """A token that was issued behind a revocation: not in the same second, which would count as before."""
    return token(sub=user, iat=int(time.time()) + 2)


async def code_of(server: Server, **auth: Any) -> str:
    with pytest.raises(ConnectRefused) as caught:
        async with connect(server, auth=auth):
            pass
    return str(caught.value.data["code"])


# --- on each kind of broker

_REAL = pytest.mark.bellwire(clock="real")


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=_REAL) for kind in ("data", "redis"))])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return partial(world_on, request.param, tmp_path)


async def _node(world: World) -> Node:
    node = Node(world, f"node{len(world.nodes)}")
    node.server.authenticator = secret_auth(leeway=60)
    world.nodes.append(node)
    await node.start()
    return node


async def test_who_is_there_is_put_out_on_all_nodes_and_who_is_away_has_nothing_to_come_back_to(make: Make) -> None:
    async with make(connection_state_recovery=True, connections_per_user=0) as world:
        one, two = await _node(world), await _node(world)
        there, elsewhere, away, other = [Stock(token=old(user)) for user in ("ada", "ada", "ada", "bob")]
        for client, node in ((there, one), (elsewhere, two), (away, two), (other, two)):
            await client.connect(node)
        for client in (away, other):
            await two.namespace.to(client.id).join("room")
        await two.say("room", "before")
        await world.until(lambda: away.labels == other.labels == ["before"])
        away.cut()
        other.cut()

        await one.server.user("ada").revoke()
        assert (there.connection.reason, elsewhere.connection.reason) == ("io server disconnect",) * 2
        await two.say("room", "after")
        for node in (one, two):
            with pytest.raises(ConnectRefused) as caught:
                await away.connect(node)
            assert caught.value.data == {"code": "token_revoked"}
        away.token = new()
        await away.connect(one)
        assert not away.recovered
        assert [socket.rooms for socket in one.namespace.hub("/").sockets.values()] == [frozenset()]
        await other.connect(one)
        await world.until(lambda: other.labels == ["before", "after"])
        assert (other.recovered, away.labels) == (True, ["before"])


# --- what is covered


async def test_a_client_of_bellwire_has_nothing_to_come_back_to_either() -> None:
    server, sockets = revoking()
    async with server.lifespan():
        async with connect(server, auth={"token": old()} | HELLO) as client:
            await sockets[0].join("room")
            session = sockets[0].reader.session.secret if sockets[0].reader else ""
            client.drop()
        await server.user("ada").revoke()
        await advance(1)
        again = {"bellwire": HELLO["bellwire"] | {"session": session}}
        assert await code_of(server, token=old(), **again) == "token_revoked"
        async with connect(server, auth={"token": new()} | again):
            assert (sockets[-1].recovered, sockets[-1].rooms) == (False, frozenset())
            session = sockets[-1].reader.session.secret if sockets[-1].reader else ""
        async with connect(server, auth={"token": new(), "bellwire": HELLO["bellwire"] | {"session": session}}):
            assert sockets[-1].recovered


async def test_an_identity_that_does_not_say_when_it_was_issued_is_covered() -> None:
    issued: list[float | None] = [None]

    async def auth(request: Request, payload: Mapping[str, Any]) -> Identity:
        return Identity("ada", issued=issued[0])

    server = Server(auth=auth)
    server.namespace("/")
    async with server.lifespan():
        await server.user("ada").revoke()
        for issued[0] in (None, time.time() - 1, 0.0):
            assert await code_of(server) == "token_revoked"
        assert server.counters.get("connects_refused_total", reason="token_revoked") == 3
        issued[0] = time.time()
        async with connect(server):
            pass


async def test_a_token_that_does_not_say_so_is_covered() -> None:
    server, _ = revoking()
    async with server.lifespan():
        async with connect(server, auth={"token": token(iat=None)}):
            pass
        await server.user("ada").revoke()
        assert await code_of(server, token=token(iat=None)) == "token_revoked"
        async with connect(server, auth={"token": token(sub="bob", iat=None)}):
            pass


async def test_it_is_kept_for_the_longest_life_of_a_token_and_of_a_session() -> None:
    server, _ = revoking(revocation_seconds=3_600)
    async with server.lifespan():
        await server.user("ada").revoke()
        await advance(3_599)
        assert await code_of(server, token=old()) == "token_revoked"
        await advance(2)
        async with connect(server, auth={"token": old()}):
            pass
    server, _ = revoking(revocation_seconds=60, session_lifetime=600)
    async with server.lifespan():
        await server.user("ada").revoke()
        await advance(599)
        assert await code_of(server, token=old()) == "token_revoked"


async def test_a_revoked_token_renews_nothing() -> None:
    server, sockets = revoking()
    async with connect(server, auth={"token": old()}) as client:
        await server.runtime.revocations.revoke("ada")  # and its connection not ended yet
        before = sockets[0].expires
        with pytest.raises(EventRefused, match="token_revoked"):
            await client.call(AUTH_RENEW, {"token": old()})
        assert sockets[0].expires == before
        await client.call(AUTH_RENEW, {"token": new()})


# --- while a client comes


@pytest.mark.parametrize("where", ["auth", "enter", "on_connect"])
@pytest.mark.parametrize("recovers", [False, True])
async def test_one_that_comes_meanwhile_does_not_get_by(where: str, recovers: bool) -> None:
    pause: asyncio.Event | None = None

    async def wait(here: str) -> None:
        if here == where and pause is not None:
            await pause.wait()

    async def auth(request: Request, payload: Mapping[str, Any]) -> Identity:
        await wait("auth")
        return Identity("ada", issued=payload["issued"])

    def furnish(house: House) -> None:
        house.server.authenticator = auth

        @house.root.use
        async def enter(socket: Socket, go_on: Any) -> None:
            await wait("enter")
            await go_on()

        @house.root.on_connect
        async def connected(socket: Socket) -> None:
            await wait("on_connect")

    async with houses(2, furnish=furnish) as (one, two):
        pause = asyncio.Event()
        issued = {"issued": time.time()} | (HELLO if recovers else {})
        coming = asyncio.ensure_future(connect(one.server, auth=issued, timeout=20).__aenter__())
        await advance(1)
        assert not coming.done()
        await two.server.user("ada").revoke()
        pause.set()
        await advance(1)
        try:
            client = await coming
        except (ConnectRefused, Disconnected):
            pass
        else:  # it was let in, to be put out
            assert client.reason == "io server disconnect"
        assert not one.root._hubs


# --- brokers that are away


async def test_nobody_is_let_in_while_the_broker_is_away() -> None:
    server, _ = revoking(connections_per_user=0)
    async with server.lifespan():
        faults = faults_of(server)
        faults.go_away()
        with pytest.raises(Disconnected):
            async with connect(server, auth={"token": old()}):
                pass
        assert server.counters.get("sessions_closed_total", reason="broker_unavailable") == 1
        with pytest.raises(BrokerUnavailable):
            await server.user("ada").revoke()
        faults.come_back()
        async with connect(server, auth={"token": old()}):
            pass


async def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    server, _ = revoking()
    async with server.lifespan():
        faults = faults_of(server)
        for done in (True, False):
            faults.lose_put_answer(done=done)
            await server.user("ada").revoke()
            assert await code_of(server, token=old()) == "token_revoked"
        for _ in range(8):
            faults.lose_put_answer(done=False)
        with pytest.raises(OutcomeUnknown):
            await server.user("ada").revoke()


async def test_what_another_program_wrote_lets_nobody_in() -> None:
    server, _ = revoking()
    async with server.lifespan():
        await server.user("ada").revoke()
        (key,) = [key for key in set(faults_of(server).keys()) if key.startswith("revoked.")]
        await server.runtime.broker.put(key, b"\xc1")
        assert await code_of(server, token=new()) == "token_revoked"


async def test_without_a_time_to_keep_it_nothing_is_looked_up_and_nothing_revoked() -> None:
    server, _ = revoking(revocation_seconds=0)
    async with server.lifespan():
        with pytest.raises(BellwireError, match="revocation_seconds"):
            await server.user("ada").revoke()
        async with connect(server, auth={"token": old()}):
            pass


async def test_a_node_that_does_not_answer_is_named_and_it_is_revoked_all_the_same() -> None:
    async with houses(2, Config(connections_per_user=0)) as (one, two):
        await two.die()
        with pytest.raises(NodesUnreachable):
            await one.server.user("ada").revoke()
        one.server.authenticator = secret_auth()
        assert await code_of(one.server, token=old()) == "token_revoked"
