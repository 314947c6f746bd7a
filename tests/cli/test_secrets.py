"""Nothing that lets somebody be somebody else stands in a log line, whatever clients do: the logs of a real run."""

import asyncio
import json
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from bellwire import AUTH_RENEW, Client, ConnectRefused, Event, EventRefused
from tests.cli.process import TIMEOUT, Process, bellwire, write_application
from tests.guard.tokens import SECRET, token

APPLICATION = """
import logging, os
from bellwire import Config, ConnectRefused, Event, EventRefused, JWTAuth, Server

logging.basicConfig(level=logging.DEBUG)
server = Server(
    config=Config(connection_state_recovery=True, connections_per_user=2, message_timeout=1),
    auth=JWTAuth(key=os.environ["KEY"], algorithms=["HS256"]),
)
root, private = server.namespace("/"), server.namespace("/private")

@root.on(Event("fail", str))
async def fail(socket, text):
    raise LookupError("a fault of the application")

@root.on(Event("refuse", str))
async def refuse(socket, text):
    raise EventRefused("no", "not now")

@private.use
async def nobody(socket, go_on):
    raise ConnectRefused("private", {"code": "private"})

@private.on_disconnect
@root.on_disconnect
async def left(socket, reason):
    logging.info("%r left: %s", socket, reason)
"""

FAIL, REFUSE = Event("fail", str), Event("refuse", str)


class Told:
    """All that clients were told and have shown, and must not be in a log."""

    def __init__(self) -> None:
        self.secrets: list[str] = [SECRET]

    def keep(self, secret: str) -> str:
        assert len(secret) >= 16
        self.secrets.append(secret)
        return secret

    def token(self, **said: Any) -> str:
        made = token(**said)
        for part in made.split("."):
            self.keep(part)
        return made

    @property
    def bad(self) -> list[str]:
        """Tokens that are refused, each in its own way."""
        return [self.token(exp=1), self.token(key="x" * 64), self.token(sub=None), self.keep("x" * 9_000)]


async def _hear(websocket: ClientConnection) -> str:
    async with asyncio.timeout(TIMEOUT):
        return str(await websocket.recv())


async def stock_over_websocket(at: str, told: Told) -> None:
    """One that recovers, sends what is refused and what is broken, and comes back; and others that are refused."""
    pid = ""
    query = told.keep(secrets.token_urlsafe(16))
    for last in ('42["refuse","x"]', '42["fail","x"]', "4{broken", '40/private,{"a":1}', "451-broken", "3", b"binary"):
        url = f"ws://{at}/socket.io/?EIO=4&transport=websocket&token={query}"
        async with connect_websocket(url, origin=None) as websocket:
            told.keep(json.loads((await _hear(websocket))[1:])["sid"])
            await websocket.send("40" + json.dumps({"token": told.token(jti="ws"), "pid": pid, "offset": "broken"}))
            pid = told.keep(json.loads((await _hear(websocket))[2:])["pid"])
            await websocket.send('421["refuse","x"]')
            assert (await _hear(websocket)).startswith("431")
            await websocket.send(last)
            await websocket.send('422["refuse","x"]')
            try:
                while not (await _hear(websocket)).startswith("432"):
                    pass
            except ConnectionClosed:  # it was broken
                pass
    for wrong in told.bad:
        async with connect_websocket(f"ws://{at}/socket.io/?EIO=4&transport=websocket") as websocket:
            told.keep(json.loads((await _hear(websocket))[1:])["sid"])
            await websocket.send("40" + json.dumps({"token": wrong}))
            assert (await _hear(websocket)).startswith("44")


async def stock_over_polling(at: str, told: Told) -> None:
    """A session over long-polling, with faults; its sid stands in every URL."""
    key = told.keep(secrets.token_urlsafe(16))
    async with httpx.AsyncClient(base_url=f"http://{at}", timeout=TIMEOUT, headers={"authorization": key}) as http:
        path = "/socket.io/?EIO=4&transport=polling"
        sid = told.keep(json.loads((await http.get(path)).text[1:])["sid"])
        await http.post(f"{path}&sid={sid}", content="40" + json.dumps({"token": told.token(jti="polling")}))
        told.keep(json.loads((await http.get(f"{path}&sid={sid}")).text[2:])["pid"])
        await http.post(f"{path}&sid={sid}", content="42broken")
        gone = told.keep(secrets.token_urlsafe(16))
        assert (await http.get(f"{path}&sid={gone}")).status_code == 400
        assert (await http.get(f"/socket.io/?EIO=3&transport=x&sid={gone}&token={key}")).status_code == 400
        assert (await http.get(f"/elsewhere?token={key}")).status_code == 404


async def over_bellwire_v1(at: str, told: Told) -> None:
    url, protocols = f"ws://{at}/bellwire", [Subprotocol("bellwire.v1.json")]
    session = None
    for last in (["e", "/", "fail", ["x"]], ["nonsense"], {"a": 1}, ["e", "/", "unknown", []]):
        async with connect_websocket(url, subprotocols=protocols) as websocket:
            producer = told.keep(secrets.token_hex(16))
            auth = {"token": told.token(jti="v1")}
            await websocket.send(json.dumps(["connect", "/", auth, "instance", producer, session, [], 0]))
            session = told.keep(json.loads(await _hear(websocket))[4])
            await websocket.send(json.dumps(last))
            await websocket.send(json.dumps(["ping"]))
            try:
                while json.loads(await _hear(websocket)) != ["pong"]:
                    pass
            except ConnectionClosed:
                pass
    for wrong in told.bad[:3]:
        async with connect_websocket(url, subprotocols=protocols) as websocket:
            await websocket.send(json.dumps(["connect", "/", {"token": wrong}]))
            assert json.loads(await _hear(websocket))[0] == "refused"


async def our_client(at: str, told: Told, url: str) -> None:
    async with Client(url, auth={"token": told.token(jti="client", exp=int(time.time()) + 60)}) as client:
        for event, code in ((REFUSE, "no"), (FAIL, "internal")):
            with pytest.raises(EventRefused, match=code):
                await client.call(event, "x", timeout=TIMEOUT)
        await client.call(AUTH_RENEW, {"token": told.token(jti="renewed")}, timeout=TIMEOUT)
        for wrong in told.bad[:3]:
            with pytest.raises(EventRefused):
                await client.call(AUTH_RENEW, {"token": wrong}, timeout=TIMEOUT)
        with pytest.raises(ConnectRefused, match="2 connections"):
            async with (
                Client(url, auth={"token": told.token(jti="two")}),
                Client(url, auth={"token": told.token(jti="three")}),
            ):
                pass
        entered = client._entered
        assert entered is not None
        told.keep(entered.up.producer or "")
        told.keep(entered.down.session or "")


async def broken_http(at: str, told: Told) -> None:
    host, _, port = at.rpartition(":")
    for head in ("GET /socket.io/?token={} HTTP/9\r\n\r\n", "{} \r\n\r\n", "GET / HTTP/1.1\r\nbad header {}\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.format(told.keep(secrets.token_urlsafe(16))).encode())
        async with asyncio.timeout(TIMEOUT):
            await reader.read()
        writer.close()


@pytest.mark.bellwire(clock="real")
async def test_the_logs_of_a_run_show_no_secret(tmp_path: Path) -> None:
    told = Told()

    def run() -> tuple[Any, Process]:
        write_application(tmp_path, APPLICATION)
        running = bellwire("run", "app:server", "--port", "0", cwd=tmp_path, environ={"KEY": SECRET})
        return running, running.__enter__()

    running, process = await asyncio.to_thread(run)
    try:
        at = f"127.0.0.1:{await asyncio.to_thread(process.port)}"
        await stock_over_websocket(at, told)
        await stock_over_polling(at, told)
        await over_bellwire_v1(at, told)
        await our_client(at, told, f"http://{at}")
        await our_client(at, told, f"ws://{at}/bellwire")
        await broken_http(at, told)
        process.signal(signal.SIGTERM)
        code, log = await asyncio.to_thread(process.end)
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
    assert code == 0
    assert len(told.secrets) > 50
    shown = [line for line in log.splitlines() for secret in told.secrets if secret in line]
    assert shown == []
    assert log.count("LookupError: a fault of the application") == 4
    for what in ("a token was refused: InvalidSignatureError", "parse error", "TooManyConnections", "left: "):
        assert what in log, log
