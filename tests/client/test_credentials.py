"""What a client shows to the server's authentication, on each connection anew."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from bellwire import AUTH_RENEW, Client, ConnectRefused, Identity, Request
from bellwire.client.credentials import SECONDS, Credentials
from tests.client.house import SAY, Heard, House
from tests.guard.tokens import secret_auth, token
from tests.serving import serve

WIRES = pytest.mark.parametrize("wire", ["http", "ws"])


def at(url: str, wire: str) -> str:
    return url if wire == "http" else f"{url.replace('http', 'ws', 1)}/bellwire"


async def test_a_mapping_is_shown_as_it_is() -> None:
    assert await Credentials({"token": "x"}).present() == {"token": "x"}
    assert await Credentials(None).present() is None


async def test_a_function_is_called_each_time() -> None:
    tokens = iter("abc")

    async def later() -> Mapping[str, Any]:
        await asyncio.sleep(1)
        return {"token": next(tokens)}

    plain, slow = Credentials(lambda: {"token": next(tokens)}), Credentials(later)
    assert [await found.present() for found in (plain, slow, plain)] == [{"token": name} for name in "abc"]
    assert await Credentials(lambda: None).present() is None


@pytest.mark.parametrize("wrong", ["x", {"bellwire": 1}, {"token": object()}, 5])
async def test_what_a_function_returns_is_checked(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionError, match=r"^auth failed: (TypeError|ValueError)$"):
        await Credentials(lambda: wrong).present()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR


async def test_a_function_that_fails_or_hangs_is_a_connection_that_failed() -> None:
    def fail() -> None:
        raise LookupError("no token")

    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ConnectionError, match="LookupError"):
        await Credentials(fail).present()
    begun = asyncio.get_running_loop().time()
    with pytest.raises(ConnectionError, match="TimeoutError"):
        await Credentials(hang).present()
    assert asyncio.get_running_loop().time() == begun + SECONDS


@pytest.mark.parametrize("wrong", ["x", 5, ["token"]])
def test_what_is_neither_is_told_at_once(wrong: object) -> None:
    with pytest.raises(TypeError, match="a function that returns one"):
        Credentials(cast("Any", wrong))


# --- a client and a server


@WIRES
@pytest.mark.bellwire(clock="real")
async def test_a_client_comes_back_with_a_new_token_when_the_old_one_has_expired_and_misses_nothing(wire: str) -> None:
    house, heard, states = House(), Heard(), Heard()
    house.server.authenticator = secret_auth()
    issued: list[str] = []

    async def new_token() -> dict[str, str]:
        if len(issued) == 1:
            await house.sockets[0].emit(SAY, "while it was away")
        issued.append(token(exp=int(time.time()) + (600 if issued else 2)))
        return {"token": issued[-1]}

    async with serve(house.server) as url:
        client = Client(at(url, wire), auth=new_token)
        client.on(SAY)(heard)
        client.on_state(states)
        async with client:
            assert await house.left.count(1) == ["identity expired"]
            assert await heard.count(1) == ["while it was away"]
            assert (house.sockets[1].recovered, len(issued)) == (True, 2)
            assert states.all == ["connecting", "connected", "reconnecting", "connected"]


@WIRES
@pytest.mark.bellwire(clock="real")
async def test_a_token_is_renewed_in_place(wire: str) -> None:
    house = House()
    house.server.authenticator = secret_auth()
    async with (
        serve(house.server) as url,
        Client(at(url, wire), auth={"token": token(exp=int(time.time()) + 60)}) as client,
    ):
        until = int(time.time()) + 600
        assert (await client.call(AUTH_RENEW, {"token": token(exp=until)}, timeout=5)).expires == until
        assert house.sockets[0].expires == until


@WIRES
@pytest.mark.bellwire(clock="real")
async def test_a_function_that_fails_is_called_again(wire: str) -> None:
    house, calls = House(), Heard()

    async def auth(request: Request, payload: Mapping[str, Any]) -> Identity:
        return Identity(payload["user"])

    def find() -> dict[str, str]:
        calls(None)
        if len(calls.all) == 1:
            raise LookupError("not yet")
        return {"user": "ada"}

    house.server.authenticator = auth
    async with serve(house.server) as url, Client(at(url, wire), auth=find):
        assert (house.sockets[0].user, len(calls.all)) == ("ada", 2)


@WIRES
@pytest.mark.bellwire(clock="real")
async def test_a_token_that_is_refused_is_refused_for_good(wire: str) -> None:
    house = House()
    house.server.authenticator = secret_auth()
    async with serve(house.server) as url:
        with pytest.raises(ConnectRefused) as caught:
            async with Client(at(url, wire), auth=lambda: {"token": token(exp=1)}):
                pass
        assert caught.value.data == {"code": "token_expired"}
