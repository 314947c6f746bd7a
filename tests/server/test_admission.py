import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from bellwire import ConnectRefused, EventRefused, Identity, Namespace, Request, Server, Socket
from bellwire.server.admission import Next
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.doorway import PLACES, assert_empty, refusal, unwelcomed
from tests.server.house import ASK, SAY, raw

# --- authentication


async def test_auth_is_given_the_request_and_the_payload_and_names_the_user() -> None:
    async def auth(request: Request, payload: Mapping[str, Any]) -> Identity:
        assert request.headers["x-who"] == "browser"
        return Identity(payload["name"], {"role": "admin"}, 4e9)

    server = Server(auth=auth)
    root = server.namespace("/")
    found: list[Socket] = []
    root.on_connect(_keep(found))
    async with connect(server, auth={"name": "ann"}, headers={"X-Who": "browser"}):
        (socket,) = found
        assert (socket.user, socket.claims, socket.expires) == ("ann", {"role": "admin"}, 4e9)
        assert socket.auth == {"name": "ann"}


async def test_none_is_a_guest_and_so_is_everyone_without_auth() -> None:
    async def auth(request: Request, payload: Mapping[str, Any]) -> None:
        assert payload == {}

    for server in (Server(auth=auth), Server()):
        found: list[Socket] = []
        server.namespace("/").on_connect(_keep(found))
        async with connect(server):
            assert (found[0].user, found[0].claims, found[0].auth) == (None, {}, {})


async def test_auth_is_asked_for_each_namespace() -> None:
    asked = []

    async def auth(request: Request, payload: Mapping[str, Any]) -> None:
        asked.append(payload)

    server = Server(auth=auth)
    server.namespace("/")
    server.namespace("/chat")
    async with connect(server, auth={"n": 1}) as client:
        raw(client, '40/chat,{"n":2}')
        assert asked == [{"n": 1}, {"n": 2}]


async def test_the_user_cannot_be_changed_behind_the_servers_back() -> None:
    server = Server()
    found: list[Socket] = []
    server.namespace("/").on_connect(_keep(found))
    async with connect(server, user="ann"):
        with pytest.raises(AttributeError):
            found[0].user = "eve"  # type: ignore[misc]


def _keep(found: list[Socket]) -> Any:
    async def enter(socket: Socket) -> None:
        found.append(socket)

    return enter


# --- refusals


def _refusing(server: Server, root: Namespace, where: str, error: Exception) -> None:
    if where == "auth":

        async def auth(request: Request, payload: Mapping[str, Any]) -> None:
            raise error

        server.authenticator = auth
    elif where == "middleware":

        @root.use
        async def check(socket: Socket, go_on: Next) -> None:
            raise error
    else:

        @root.on_connect
        async def enter(socket: Socket) -> None:
            await socket.join("room")
            raise error


@PLACES
async def test_connect_refused_is_the_clients_connect_error_with_its_data(where: str) -> None:
    server = Server()
    root = server.namespace("/")
    _refusing(server, root, where, ConnectRefused("no entry", {"code": "x", "n": 7}))
    async with server.lifespan():
        error = await refusal(server)
        assert (error.message, error.data) == ("no entry", {"code": "x", "n": 7})
        assert server.counters.get("connects_refused_total", reason="refused") == 1
        assert_empty(server)


@PLACES
async def test_any_other_exception_is_an_internal_error_without_its_text(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    root = server.namespace("/")
    _refusing(server, root, where, LookupError("the password is hunter2"))
    async with server.lifespan():
        with caplog.at_level(logging.ERROR, "bellwire"):
            error = await refusal(server)
        assert (error.message, error.data) == ("internal error", {"code": "internal"})
        (record,) = caplog.records
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], LookupError)
        assert_empty(server)


@PLACES
async def test_event_refused_is_a_connect_error_with_its_code_as_data(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    root = server.namespace("/")
    _refusing(server, root, where, EventRefused("full", "come back later", retry_after=5))
    async with server.lifespan():
        with caplog.at_level(logging.DEBUG, "bellwire"):
            error = await refusal(server)
        assert (error.message, error.data) == ("come back later", {"code": "full", "retry_after": 5})
        assert server.counters.get("connects_refused_total", reason="refused") == 1
        assert server.counters.get("handler_errors_total") == 0
        (record,) = caplog.records
        assert record.getMessage().startswith("refused to connect Socket('/', ")
        assert record.getMessage().endswith(": full")
        assert_empty(server)


async def test_a_room_that_is_not_open_refuses_the_client_that_on_connect_wants_in_it() -> None:
    server = Server()
    root = server.namespace("/")

    @root.authorize
    async def nobody(socket: Socket, room: str) -> bool:
        return False

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("staff")

    async with server.lifespan():
        error = await refusal(server)
        assert error.data == {"code": "forbidden"}


@pytest.mark.parametrize(("result", "told"), [(False, "False"), ("no", "a value of the type str")])
@pytest.mark.parametrize("where", ["middleware", "on_connect"])
async def test_a_result_is_no_refusal_but_a_mistake(
    where: str, result: object, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    root = server.namespace("/")

    async def middleware(socket: Socket, go_on: Next) -> object:
        await go_on()
        return result

    async def on_connect(socket: Socket) -> object:
        return result

    if where == "middleware":
        root.use(cast("Any", middleware))
    else:
        root.on_connect(cast("Any", on_connect))
    async with server.lifespan():
        with caplog.at_level(logging.ERROR, "bellwire"):
            error = await refusal(server)
        assert (error.message, error.data) == ("internal error", {"code": "internal"})
        (record,) = caplog.records
        assert record.exc_info is not None
        assert re.fullmatch(
            rf"{where} tests\..*{where} returned {told}: raise ConnectRefused\(...\) to refuse",
            str(record.exc_info[1]),
        )
        assert_empty(server)


async def test_auth_that_returns_something_else_is_told_what_to_return(caplog: pytest.LogCaptureFixture) -> None:
    async def auth(request: Request, payload: Mapping[str, Any]) -> dict[str, str]:
        return {"user": "ann"}

    server = Server(auth=cast("Any", auth))
    server.namespace("/")
    async with server.lifespan():
        error = await refusal(server)
        assert error.message == "internal error"
        (record,) = caplog.records
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == (
            "auth returned dict: return Identity(user), None, or raise ConnectRefused(...)"
        )
        assert_empty(server)


async def test_a_namespace_that_is_not_there_is_logged_for_who_looks(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    name = "/" + "x\n" * 100
    with caplog.at_level(logging.DEBUG, "bellwire"), pytest.raises(ConnectRefused):
        async with connect(server, name):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        f"refused CONNECT to {name[:64]!r}: no namespace has this name"
    ]


async def test_data_that_is_no_json_costs_the_client_its_reason_and_nobody_anything_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    root = server.namespace("/")
    _refusing(server, root, "on_connect", ConnectRefused("no", object()))
    async with server.lifespan():
        error = await refusal(server)
        assert error.message == "internal error"
        assert len(caplog.records) == 1
        assert_empty(server)


async def test_a_refused_client_may_try_again_on_the_same_connection() -> None:
    server = Server()
    root = server.namespace("/")

    @root.use
    async def check(socket: Socket, go_on: Next) -> None:
        if "key" not in socket.auth:
            raise ConnectRefused("no key")
        await go_on()

    async with server.lifespan():
        client = unwelcomed(server)
        await advance()
        assert client.refused is not None
        raw(client, '40{"key":1}')
        await advance()
        assert client.id
        client.drop()


async def test_nothing_that_was_emitted_reaches_a_client_that_is_refused_and_it_is_counted() -> None:
    server = Server()
    root = server.namespace("/")

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.emit(SAY, "secret")
        raise ConnectRefused("no")

    async with server.lifespan():
        client = unwelcomed(server)
        await advance()
        assert client.refused is not None
        await client.receive_nothing()
        assert server.counters.get("dropped_total", kind="event", reason="disconnected", policy="at_most_once") == 1
        client.drop()


# --- middleware


async def test_middleware_runs_in_order_around_on_connect() -> None:
    server = Server()
    root = server.namespace("/")
    order = []

    for name in ("first", "second"):

        @root.use
        async def around(socket: Socket, go_on: Next, name: str = name) -> None:
            order.append(f"{name} in")
            await go_on()
            order.append(f"{name} out")

    @root.on_connect
    async def enter(socket: Socket) -> None:
        order.append("connect")

    async with connect(server):
        assert order == ["first in", "second in", "connect", "second out", "first out"]


async def test_a_client_whose_next_is_not_awaited_is_refused() -> None:
    server = Server()
    root = server.namespace("/")
    entered: list[Socket] = []
    root.on_connect(_keep(entered))

    @root.use
    async def wall(socket: Socket, go_on: Next) -> None:
        """Nobody gets by."""

    async with server.lifespan():
        assert (await refusal(server)).message == "refused"
        assert entered == []
        assert_empty(server)


async def test_middleware_can_take_a_refusal_back() -> None:
    server = Server()
    root = server.namespace("/")

    @root.use
    async def forgive(socket: Socket, go_on: Next) -> None:
        try:
            await go_on()
        except ConnectRefused:
            await socket.emit(SAY, "forgiven")

    @root.on_connect
    async def enter(socket: Socket) -> None:
        raise ConnectRefused("no")

    async with connect(server) as client:
        assert await client.receive(SAY) == "forgiven"


# --- what happens in on_connect


async def test_what_is_emitted_during_on_connect_leaves_right_after_the_connect_reply_in_order() -> None:
    server = Server()
    root = server.namespace("/")
    packets: list[str] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.emit(SAY, "one")
        await socket.join("room")
        await root.to("room").emit(SAY, "two")
        await asyncio.sleep(1)
        await root.emit(SAY, "three")
        await socket.emit(SAY, "four")

    async with server.lifespan():
        client = unwelcomed(server)
        client.take = lambda part: packets.append(str(part))  # type: ignore[method-assign]
        await advance(0.5)
        await root.to("room").emit(SAY, "meanwhile")
        assert len(packets) == 1  # the handshake
        await advance(1)
        assert packets[1].startswith('40{"sid":"')
        assert packets[2:] == [f'42["say","{text}"]' for text in ("one", "two", "meanwhile", "three", "four")]
        client.drop()


@pytest.mark.parametrize("pause", [False, True])
async def test_call_in_on_connect_raises_because_no_answer_can_come(pause: bool) -> None:
    server = Server()
    root = server.namespace("/")
    errors = []

    @root.use
    async def around(socket: Socket, go_on: Next) -> None:
        with pytest.raises(RuntimeError, match="on_connect"):
            await socket.call(ASK, "?", timeout=5)
        await go_on()

    @root.on_connect
    async def enter(socket: Socket) -> None:
        if pause:
            await asyncio.sleep(0)
        try:
            await socket.call(ASK, "?", timeout=5)
        except RuntimeError as error:
            errors.append(str(error))

    async with connect(server) as client:
        assert "connected once on_connect returns" in errors[0]
        await client.receive_nothing()


async def test_disconnecting_in_on_connect_lets_the_client_read_why() -> None:
    server = Server()
    root = server.namespace("/")
    ends = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.emit(SAY, "you are banned")
        await socket.disconnect()

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)

    async with connect(server) as client:
        assert await client.receive(SAY) == "you are banned"
        assert await client.closed() == "io server disconnect"
        assert ends == ["server namespace disconnect"]
        assert_empty(server)


async def test_disconnecting_in_middleware_refuses_the_client() -> None:
    server = Server()
    root = server.namespace("/")
    entered: list[Socket] = []
    root.on_connect(_keep(entered))

    @root.use
    async def check(socket: Socket, go_on: Next) -> None:
        await socket.emit(SAY, "secret")
        await socket.disconnect()
        await go_on()

    async with server.lifespan():
        assert (await refusal(server)).message == "disconnected"
        assert entered == []
        assert_empty(server)
