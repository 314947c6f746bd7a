import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any, assert_type, cast

import pytest

from bellwire import CallTimeout, ConnectRefused, Disconnected, Event, EventRefused, Server, Socket
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, BLOB, PAIR, POKE, SAY


def make() -> Server:
    server = Server()
    root = server.namespace("/")

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        await asyncio.sleep(float(text))
        return text

    return server


async def test_it_starts_a_server_that_does_not_run_and_closes_it_again() -> None:
    server = make()
    async with connect(server) as client:
        assert server.running
        assert len(client.id) == 20
    assert not server.running
    assert client.reason == "transport close"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"namespace": "nope"}, ValueError, "'nope' is no namespace: it begins with '/'"),
        ({"namespace": None}, TypeError, "a namespace's name is a str"),
        ({"auth": "token"}, TypeError, r"a mapping such as \{'token': 't'\}, not str"),
        ({"user": 5}, TypeError, r"write Identity\(str\(5\)\)"),
        ({"server": make}, TypeError, "connect takes a bellwire.Server, not function"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_starts(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    server = make()
    with pytest.raises(error, match=message):
        async with connect(**({"server": server} | arguments)):
            pass
    assert not server.running


async def test_who_waits_in_vain_hears_what_the_server_refused_meanwhile() -> None:
    server = make()
    async with connect(server) as client, connect(server) as other:
        with pytest.raises(AssertionError, match=r"^'say' was expected, nothing came within 1 s$"):
            await client.receive(SAY)
        await client.emit(PAIR, 1, 2)
        await client.emit(ASK, "no number")
        with pytest.raises(AssertionError) as caught:
            await other.receive(SAY)
    assert str(caught.value) == (
        "'say' was expected, nothing came within 1 s; meanwhile the server counted events_refused_total 1, "
        "handler_errors_total 1 (its log has the reasons, see pytest --log-level=DEBUG)"
    )


async def test_a_call_has_a_timeout_and_events_are_no_strings() -> None:
    async with connect(make()) as client:
        with pytest.raises(TypeError, match="no call waits for ever"):
            await client.call(ASK, "1", timeout=cast("Any", None))
        with pytest.raises(TypeError, match="pass SAY"):
            await client.receive(cast("Any", "say"))
        with pytest.raises(TypeError, match="pass ASK"):
            await client.answer(cast("Any", "ask"), None)


async def test_nobody_complains_of_a_call_whose_caller_was_cancelled_when_the_connection_ended() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with connect(make()) as client:
        call = asyncio.ensure_future(client.call(ASK, "5", timeout=9))
        await advance(1)
        client.drop()
        call.cancel()
        await asyncio.wait((call,))
        assert call.cancelled()
        del call
        gc.collect()
    assert complaints == []


async def test_it_leaves_a_running_server_running() -> None:
    server = make()
    async with server.lifespan():
        async with connect(server):
            pass
        assert server.running
        assert server.engine.sessions == {}


async def test_nothing_is_left_of_a_client_that_was_refused_or_disconnected_or_waited_in_vain() -> None:
    server = make()
    stuck = server.namespace("/stuck")
    brief = server.namespace("/brief")

    @stuck.on_connect
    async def wait(socket: Socket) -> None:
        await asyncio.sleep(5)

    async with server.lifespan():
        with pytest.raises(ConnectRefused, match="Invalid namespace"):
            async with connect(server, "/nowhere"):
                pass
        with pytest.raises(TimeoutError, match="no answer to CONNECT within 2 s: auth, middleware or on_connect"):
            async with connect(server, "/stuck", timeout=2):
                pass
        async with connect(server, "/brief") as client:
            await brief.disconnect()
            assert await client.closed() == "io server disconnect"
        assert server.engine.sessions == {}


async def test_a_connection_that_ends_before_the_answer_is_an_error() -> None:
    server = make()

    @server.namespace("/closing").on_connect
    async def enter(socket: Socket) -> None:
        await server.engine.close()

    async with server.lifespan():
        with pytest.raises(Disconnected):
            async with connect(server, "/closing"):
                pass


async def test_user_stands_in_for_the_authentication() -> None:
    async def auth(request: object, payload: object) -> None:
        raise AssertionError("asked")

    server = Server(auth=auth)
    root = server.namespace("/")
    async with connect(server, user="ann") as client:
        (socket,) = await root.user("ann").sockets()
        assert socket.id == client.id


async def test_a_user_may_have_claims() -> None:
    server = Server()
    root = server.namespace("/")
    seen: list[object] = []

    @root.use
    async def see(socket: Socket, go_on: Callable[[], Awaitable[None]]) -> None:
        seen.append(socket.claims["role"])
        await go_on()

    async with connect(server, user="ann", claims={"role": "admin"}):
        assert seen == ["admin"]


async def test_call_has_a_timeout_raises_refusals_and_knows_the_end() -> None:
    async with connect(make()) as client:
        assert await client.call(ASK, "0.5") == "0.5"
        with pytest.raises(CallTimeout, match="'ask' within 2 s"):
            await client.call(ASK, "5", timeout=2)
        with pytest.raises(EventRefused, match="unknown_event"):
            await client.call(POKE, timeout=10)
        call = asyncio.ensure_future(client.call(ASK, "5", timeout=10))
        await advance()
        client.drop()
        with pytest.raises(Disconnected, match="transport close"):
            await call
        with pytest.raises(Disconnected):
            await client.call(ASK, "0")


@pytest.mark.parametrize(
    ("event", "payload", "received"),
    [(POKE, (), None), (SAY, ("x",), "x"), (PAIR, (1, 2), (1, 2)), (BLOB, (b"\x01",), b"\x01")],
)
@pytest.mark.parametrize("recovery", [False, True])
async def test_receive_returns_the_payload(
    event: Event[Any, Any], payload: Any, received: Any, *, recovery: bool
) -> None:
    server = make()
    server.configure(flags={"connection_state_recovery": recovery})
    async with connect(server) as client:
        await server.namespaces["/"].emit(event, *payload)
        assert await client.receive(event) == received


async def test_an_event_that_is_to_be_answered_has_no_offset() -> None:
    server = make()
    server.configure(flags={"connection_state_recovery": True})
    async with connect(server) as client:
        call = asyncio.ensure_future(server.namespaces["/"].call(BLOB, b"\x01", timeout=1))
        assert await client.answer(BLOB, b"\x02") == b"\x01"
        assert (await call).values == {client.id: b"\x02"}


async def test_receive_fails_where_nothing_or_something_else_comes() -> None:
    server = make()
    async with connect(server) as client:
        with pytest.raises(AssertionError, match="'say' was expected, nothing came within 3 s"):
            await client.receive(SAY, timeout=3)
        assert asyncio.get_running_loop().time() == 3
        await server.namespaces["/"].emit(POKE)
        with pytest.raises(AssertionError, match="'say' was expected, 'poke' came"):
            await client.receive(SAY)
        client.drop()
        with pytest.raises(Disconnected):
            await client.receive(SAY)


async def test_what_came_before_the_end_can_still_be_received() -> None:
    server = make()
    async with connect(server) as client:
        await server.namespaces["/"].emit(SAY, "last words")
        await advance()
        client.drop()
        assert await client.receive(SAY) == "last words"


async def test_receive_nothing() -> None:
    server = make()
    async with connect(server) as client:
        await client.receive_nothing(within=2)
        assert asyncio.get_running_loop().time() == 2
        await server.namespaces["/"].emit(SAY, "x")
        with pytest.raises(AssertionError, match="this came"):
            await client.receive_nothing()


async def test_answer_wants_an_event_that_asks() -> None:
    server = make()
    async with connect(server) as client:
        await server.namespaces["/"].emit(ASK, "x")
        with pytest.raises(AssertionError, match="asked for no acknowledgement"):
            await client.answer(ASK, "y")


async def test_disconnect_leaves_the_namespace() -> None:
    server = make()
    ends = []

    @server.namespaces["/"].on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)

    async with connect(server) as client:
        await client.disconnect()
        assert ends == ["client namespace disconnect"]


async def test_closed_waits_with_a_timeout() -> None:
    async with connect(make()) as client:
        with pytest.raises(TimeoutError, match=r"^the connection was to end within 2 s, and it goes on$"):
            await client.closed(timeout=2)
        client.drop()
        client.drop()
        assert await client.closed() == "transport close"


async def test_a_stalled_client_reads_what_piled_up_when_it_resumes() -> None:
    server = make()
    async with connect(server) as client:
        client.carrier.stalled = True
        await server.namespaces["/"].emit(SAY, "x")
        await client.receive_nothing()
        assert client.carrier.buffered > 0
        client.carrier.resume()
        assert await client.receive(SAY) == "x"
        await server.namespaces["/"].emit(SAY, "y")
        assert await client.receive(SAY) == "y"


async def test_a_stalled_client_congests_its_session_and_is_cut_off_in_the_end() -> None:
    server = make()
    async with connect(server) as client:
        client.carrier.stalled = True
        await server.namespaces["/"].emit(SAY, "x" * 70_000)
        await advance(1)
        assert client.carrier.congested
        client.carrier.resume()
        await advance(31)
        assert (client.carrier.congested, client.reason) == (False, None)
        client.carrier.stalled = True
        await server.namespaces["/"].emit(SAY, "x" * 70_000)
        await advance(31)
        assert not client.carrier.open


async def test_what_a_client_sends_waits_while_the_server_does_not_read() -> None:
    server = make()
    async with connect(server) as client:
        client.carrier.set_reading(False)
        call = asyncio.ensure_future(client.call(ASK, "0", timeout=5))
        await advance(1)
        assert not call.done()
        client.carrier.set_reading(True)
        assert await call == "0"


def test_pytest_does_not_take_it_for_a_test() -> None:
    assert TestClient.__test__ is False


async def test_type_checkers_know_what_is_received() -> None:
    server = make()
    async with connect(server) as client:
        root = server.namespaces["/"]
        await root.emit(SAY, "x")
        assert_type(await client.receive(SAY), str)
        await root.emit(PAIR, 1, 2)
        assert_type(await client.receive(PAIR), tuple[int, int])
        await root.emit(POKE)
        await client.receive(POKE)
        call = asyncio.ensure_future(root.call(ASK, "why?", timeout=1))
        await advance()
        assert_type(await client.answer(ASK, "because"), str)
        assert (await call).values == {client.id: "because"}
