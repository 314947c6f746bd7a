"""Identities that expire under a connection, and how they are renewed."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest

from bellwire import (
    AUTH_EXPIRED,
    AUTH_RENEW,
    AuthExpired,
    AuthUnavailable,
    Config,
    ConnectRefused,
    Event,
    EventRefused,
    Identity,
    Request,
    Server,
    Socket,
)
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import raw
from tests.server.servers import HELLO
from tests.server.test_raw_connection import Raw


async def auth(request: Request, payload: Mapping[str, Any]) -> Identity | None:
    """Whoever says who it is, and for how many seconds."""
    if payload.get("hangs"):
        await asyncio.Event().wait()
    await asyncio.sleep(payload.get("slow", 0))
    if payload.get("away"):
        raise AuthUnavailable("the database is away")
    if payload.get("refused"):
        raise ConnectRefused("not you", payload["refused"])
    if payload.get("fails"):
        raise TimeoutError
    if "user" not in payload:
        return None
    seconds = payload.get("for")
    expires = None if seconds is None else time.time() + seconds
    return Identity(payload["user"], {"role": payload.get("role")}, expires)


def ada(seconds: float | None = None, **more: Any) -> dict[str, Any]:
    return {"user": "ada"} | ({} if seconds is None else {"for": seconds}) | more


def house(**settings: Any) -> tuple[Server, list[Socket], list[str]]:
    """A server with its sockets, and why they left."""
    server = Server(config=Config(**settings), auth=auth)
    root = server.namespace("/")
    sockets: list[Socket] = []
    ends: list[str] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)

    return server, sockets, ends


def connected(server: Server, auth: dict[str, Any]) -> AbstractAsyncContextManager[TestClient]:
    return connect(server, auth=auth)


# --- expiry


async def test_a_connection_ends_with_the_identity_and_the_client_is_told_first() -> None:
    server, _, ends = house()
    async with connected(server, ada(60)) as client:
        await advance(59)
        assert client.reason is None
        assert await client.receive(AUTH_EXPIRED, timeout=2) == AuthExpired("token_expired")
        assert await client.closed() == "transport close"
        assert ends == ["identity expired"]
        assert server.counters.get("sessions_closed_total", reason="identity_expired") == 1


async def test_a_client_of_bellwire_v1_finds_the_code_in_the_close_frame() -> None:
    server, _, _ = house()
    async with server.lifespan():
        client = Raw(server)
        await client.say("connect", "/", ada(20))
        await advance(21)
        assert client.heard[-1] == ["e", "/", "auth:expired", [{"code": "token_expired"}]]
        assert client.pipe.closed == 4005


async def test_what_has_expired_already_is_not_let_in() -> None:
    server, sockets, _ = house()
    with pytest.raises(ConnectRefused) as caught:
        async with connected(server, ada(-1)):
            pass
    assert caught.value.data == {"code": "token_expired"}
    assert sockets == []


async def test_an_identity_without_an_end_has_none_and_guests_neither() -> None:
    server, _, _ = house()
    async with connected(server, ada()) as client, connected(server, {}) as guest:
        timers = server.runtime.wheel.pending
        await advance(3_600)
        assert (client.reason, guest.reason) == (None, None)
        assert server.runtime.wheel.pending == timers


async def test_an_identity_that_holds_for_centuries_is_no_trouble() -> None:
    server, sockets, _ = house()
    async with connected(server, ada(2e11)):
        assert sockets[0].expires is not None


async def test_one_timer_for_each_that_expires_and_none_when_they_have_left() -> None:
    server, _, _ = house()
    async with connected(server, ada()):  # which has timers of its own
        timers, tasks = server.runtime.wheel.pending, len(asyncio.all_tasks())
        clients = [connected(server, ada(600) | {"user": f"u{number}"}) for number in range(50)]
        opened = [await client.__aenter__() for client in clients]
        assert server.runtime.wheel.pending == timers + 50
        assert len(asyncio.all_tasks()) <= tasks + 1
        for client in opened:
            client.drop()
        await advance()
        assert server.runtime.wheel.pending == timers


async def test_a_client_comes_back_to_its_session_with_a_new_identity_but_not_with_the_old_one() -> None:
    server, sockets, _ = house()
    async with server.lifespan():
        async with connected(server, ada(60) | HELLO) as client:
            await sockets[0].join("room")
            session = sockets[0].reader.session.secret if sockets[0].reader else ""
            assert await client.closed(timeout=70)
        again = {"bellwire": HELLO["bellwire"] | {"session": session}}
        with pytest.raises(ConnectRefused, match="expired"):
            async with connected(server, ada(-1) | again):
                pass
        async with connected(server, ada(60) | again):
            assert (sockets[-1].recovered, sockets[-1].rooms) == (True, frozenset({"room"}))


async def test_another_user_does_not_come_back_to_it() -> None:
    server, sockets, _ = house()
    async with server.lifespan():
        async with connected(server, ada() | HELLO) as client:
            await sockets[0].join("room")
            session = sockets[0].reader.session.secret if sockets[0].reader else ""
            client.drop()
        for thief in ({"user": "eve"}, {}):
            async with connected(server, thief | {"bellwire": HELLO["bellwire"] | {"session": session}}):
                assert (sockets[-1].recovered, sockets[-1].rooms) == (False, frozenset())
        async with connected(server, ada() | {"bellwire": HELLO["bellwire"] | {"session": session}}):
            assert sockets[-1].recovered


async def test_a_stock_client_that_recovers_does_so_as_itself_only() -> None:
    server, sockets, _ = house(connection_state_recovery=True)
    async with server.lifespan():
        async with connected(server, ada()) as client:
            await sockets[0].join("room")
            pid = sockets[0].reader.session.secret if sockets[0].reader else ""
            client.drop()
        for thief in ({"user": "eve"}, {}):
            async with connected(server, thief | {"pid": pid, "offset": ""}):
                assert (sockets[-1].recovered, sockets[-1].rooms) == (False, frozenset())


# --- renewal


async def test_an_identity_is_renewed_where_it_is() -> None:
    server, sockets, _ = house()
    async with connected(server, ada(60)) as client:
        await advance(50)
        renewed = await client.call(AUTH_RENEW, ada(600, role="admin"))
        assert renewed.expires == sockets[0].expires
        assert sockets[0].claims == {"role": "admin"}
        await advance(599)
        assert client.reason is None
        await advance(2)
        assert client.reason is not None


async def test_it_may_be_renewed_for_less_and_without_an_end() -> None:
    server, _, _ = house()
    async with connected(server, ada(60)) as client, connected(server, ada(60)) as other:
        assert (await other.call(AUTH_RENEW, ada())).expires is None
        await client.call(AUTH_RENEW, ada(10))
        await advance(11)
        assert (client.reason is None, other.reason) == (False, None)
        await advance(100)
        assert other.reason is None


async def test_a_client_of_bellwire_v1_renews_as_well() -> None:
    server, sockets, _ = house()
    async with server.lifespan():
        client = Raw(server)
        await client.say("connect", "/", ada(20))
        await client.say("e", "/", "auth:renew", [ada(600)], 7)
        assert client.heard[-1] == ["r", "/", 7, [{"expires": sockets[0].expires}]]
        await advance(24)
        assert client.pipe.closed is None


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"user": "eve"}, "another_user"),
        ({}, "another_user"),
        (ada(-1), "token_expired"),
        ({"refused": {"code": "locked"}}, "locked"),
        ({"refused": {"code": 5}}, "refused"),
        ({"refused": ["x"]}, "refused"),
        ({"refused": "x"}, "refused"),
        ({"away": True}, "auth_unavailable"),
        ({"hangs": True}, "connect_timeout"),
        ({"user": 5}, "internal"),
        ({"fails": True}, "internal"),
    ],
)
async def test_what_is_refused_changes_nothing(payload: dict[str, Any], code: str) -> None:
    server, sockets, _ = house()
    async with connected(server, ada(60, role="member")) as client:
        before = sockets[0].expires
        with pytest.raises(EventRefused) as caught:
            await client.call(AUTH_RENEW, payload, timeout=20)
        assert caught.value.code == code
        assert (sockets[0].user, sockets[0].claims, sockets[0].expires) == ("ada", {"role": "member"}, before)
        await advance(61)
        assert client.reason is not None


async def test_a_guest_becomes_nobody_by_renewing() -> None:
    server, sockets, _ = house()
    async with connected(server, {}) as client:
        with pytest.raises(EventRefused, match="another_user"):
            await client.call(AUTH_RENEW, ada())
        assert sockets[0].user is None


async def test_one_that_leaves_while_it_renews_leaves_no_timer() -> None:
    server, _, _ = house(connect_timeout=5)
    async with server.lifespan():
        timers = server.runtime.wheel.pending
        for slow in ('"hangs":true', '"user":"ada","for":600,"slow":2'):
            async with connected(server, ada(60)) as client:
                raw(client, f'420["auth:renew",{{{slow}}}]')
                await advance(1)
            await advance(10)
            assert server.runtime.wheel.pending == timers


async def test_nobody_else_is_shown_what_it_is_renewed_with() -> None:
    server, _, _ = house()
    seen: list[Any] = []

    @server.namespaces["/"].on_any
    async def listen(socket: Socket, name: str, *payload: Any) -> None:
        seen.append((name, payload))

    async with connected(server, ada(60)) as client:
        await client.call(AUTH_RENEW, ada(600))
        await client.emit(Event("other", str), "x")
        await advance()
        assert seen == [("other", ("x",))]
        numbering = Raw(server)
        await numbering.say("connect", "/", ada(20), "instance", "0f" * 16)
        await numbering.say("n", "/", 1, "auth:renew", [ada(600)])
        await advance(1)
        (outcome,) = [message for message in numbering.heard if message[0] == "n"]
        assert "expires" in outcome[3][0]
        assert seen == [("other", ("x",))]


async def test_without_an_authentication_there_is_nothing_to_renew() -> None:
    server = Server()
    server.namespace("/")
    async with connect(server) as client:
        with pytest.raises(EventRefused) as caught:
            await client.call(AUTH_RENEW, ada())
        assert caught.value.code == "unknown_event"


async def test_an_application_may_handle_an_event_of_that_name_itself() -> None:
    server, _, _ = house()
    mine = cast("Event[str, dict[str, Any]]", Event("auth:renew", dict[str, Any], reply=str))

    @server.namespaces["/"].on(mine)
    async def handle(socket: Socket, payload: dict[str, Any]) -> str:
        return "mine"

    async with connected(server, ada(60)) as client:
        assert await client.call(mine, {}) == "mine"
