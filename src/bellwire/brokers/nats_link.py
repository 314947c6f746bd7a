"""One connection to a NATS server: publications, subscriptions without a task each, questions with their answers.

It is used once. When it is lost, everything that waits on it ends at once and nothing that was still to be written is
written later: whoever needs another connection opens another link. So no message leaves after its sender was told
that the outcome is unknown.
"""

import asyncio
import contextlib
import re
import secrets
import ssl
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from bellwire.brokers.nats_address import NatsAddress
from bellwire.brokers.nats_requirements import check_version
from bellwire.core.errors import BrokerUnavailable, ConfigError, MessageTooLarge

try:
    from nats import errors as nats_errors
    from nats.aio.client import Client, RawCredentials
    from nats.aio.subscription import Subscription
except ImportError as error:  # pragma: no cover - the tests have it installed
    raise ConfigError("a broker at nats:// needs the NATS client: pip install 'bellwire[nats]'") from error

__all__ = ["ANSWER_TIMEOUT", "Link", "Message", "Subscription", "Unanswered"]

ANSWER_TIMEOUT: Final = 5.0
"""Seconds to wait for an answer: what takes a server milliseconds, unless it is on its way out."""

CONNECT_TIMEOUT: Final = 3
CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the end of a connection. nats-py waits for a server that stands still to take what was written, and after
a TLS handshake that failed for ever."""

PING_EVERY: Final = 10
"""Seconds between pings; two without an answer end the connection."""

MAX_WAITING: Final = 65_536
"""How many questions may wait for their answers."""

_STATUS: Final = "Status"
_DENIED: Final = "permissions violation"
_NO_RESPONDERS: Final = "503"

_SAID_AT_ONCE: Final = 1.0
"""Seconds within which the server says that nobody is there."""

LISTENING: Final = "Bellwire-Listening"
"""The header of a message that only finds out whether somebody listens."""


class Unanswered(Exception):  # noqa: N818 - it is no fault, it is what happened
    """A question may have reached the server, and no answer came."""


class Message(NamedTuple):
    """What came from the server; ``status`` is that of an answer without contents, "" for contents."""

    headers: dict[str, str]
    data: bytes
    status: str


class _Client(Client):
    """nats-py's client, which by itself talks in clear to a server at ``tls://`` that does not ask for TLS."""

    encrypted = False

    def _connect_command(self) -> bytes:
        """Return the first thing that is sent, with user and password in it: TLS was negotiated before, or never is."""
        if self.encrypted and not self._server_info.get("tls_required"):
            raise nats_errors.Error("the server at tls:// does not encrypt")
        return super()._connect_command()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Return the headers of a message, in a quarter of the time: nats-py looks at each letter of each name."""
        lines = [line.partition(":") for line in raw.decode("utf-8", "replace").split("\r\n")]
        return {name: value.strip() for name, colon, value in lines if colon}

    async def _process_op_err(self, e: Exception) -> None:
        """The connection broke. What was still to be written is not: to a closed transport uvloop raises an error.

        nats-py, which would try, would tell nobody of the end then.
        """
        self._pending.clear()
        self._pending_data_size = 0
        self._let_go()
        await super()._process_op_err(e)

    def _let_go(self) -> None:
        """Nobody writes any more: have none wait for that. nats-py, which makes those wait who have much, would."""
        while self._flush_queue is not None and not self._flush_queue.empty():
            written = self._flush_queue.get_nowait()
            if not written.done():
                written.set_result(None)

    def abort(self) -> None:
        """End the connection now, if there is one still."""
        self._let_go()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()


class _Sink:
    """Stands where nats-py expects a future for one answer: it is given every message of a subscription, at once.

    Subscriptions with a callback would cost a task and a queue each, and a turn of the loop per message.
    """

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[str, Message], None]) -> None:
        self._take = take

    def cancelled(self) -> bool:
        return False

    def set_result(self, msg: Any) -> None:
        headers: dict[str, str] = msg.headers or {}
        self._take(msg.subject, Message(headers, msg.data, headers.get(_STATUS, "")))


class _Question:
    """An answer, or the parts of one up to the message that ends it, for whoever waits."""

    __slots__ = ("done", "due", "many", "parts", "subject")

    def __init__(self, subject: str, loop: asyncio.AbstractEventLoop, *, many: bool) -> None:
        self.subject = subject
        self.many = many
        self.parts: list[Message] = []
        self.done: asyncio.Future[None] = loop.create_future()
        self.due = loop.time() + ANSWER_TIMEOUT

    def take(self, message: Message) -> None:
        if self.done.done():
            return
        self.parts.append(message)
        if not self.many or message.status:
            self.done.set_result(None)


class Link:
    """A connection, from `open` until it is lost or closed; ``lost`` is set then.

    ``missing`` is called when nobody took a question: what it is about is gone, or without a leader for a moment.
    """

    def __init__(self, missing: Callable[[], None] = lambda: None) -> None:
        self.lost = asyncio.Event()
        self.denied = ""
        """What the server last said about a subject that we may not publish to, or subscribe to."""
        self._missed = missing
        self._client = _Client()
        self._inbox = f"_INBOX.{secrets.token_hex(12)}"
        self._refusal: Exception | None = None
        self._asked = 0
        self._questions: dict[str, _Question] = {}
        self._loop: asyncio.AbstractEventLoop
        self._expiry: asyncio.TimerHandle | None = None  # one for all: they are as old as they are far in front

    async def open(self, url: str, *, name: str = "bellwire") -> None:
        """Connect to one of the servers at ``url``, an address as `NatsAddress` reads it.

        Raises:
            ConfigError: that is no address, a file that it names cannot be used, or the server is too old.
            BrokerUnavailable: nobody answers there, or it turned us away.

        """
        address = NatsAddress.parse(url)
        self._loop = asyncio.get_running_loop()
        self._client.encrypted = address.encrypted
        keys = await asyncio.to_thread(_keys_of, address)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT * 2):
                await self._client.connect(
                    list(address.servers),
                    user=address.user,
                    password=address.password,
                    token=address.token,
                    **keys,
                    name=name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT,
                    ping_interval=PING_EVERY,
                    max_outstanding_pings=2,
                    flusher_queue_size=0,  # no end: who waits for a place in it would be let go by nobody
                    error_cb=self._on_error,
                    disconnected_cb=self._on_lost,
                    closed_cb=self._on_lost,
                )
                check_version(str(self._client._server_info.get("version", "")))
                await self.subscribe(f"{self._inbox}.*", self._answer)
        except (OSError, TimeoutError, nats_errors.Error, ValueError) as error:
            await self.close()
            # nats-py tries one server after the other, and says in the end that there was none.
            cause = self._refusal if isinstance(error, nats_errors.NoServersError) and self._refusal else error
            raise BrokerUnavailable(f"no connection to NATS: {str(cause) or type(cause).__name__}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection; what waits for an answer gets none."""
        self._lose()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._client.close()
        except (OSError, nats_errors.Error, RuntimeError):
            pass
        finally:
            self._client.abort()

    @property
    def max_payload(self) -> int:
        """The most bytes, headers included, that the server takes in one message."""
        return self._client.max_payload

    async def subscribe(self, subject: str, take: Callable[[str, Message], None]) -> Subscription:
        """Call ``take`` with the subject and contents of every message to ``subject``.

        A question asked on this link afterwards reaches the server after the subscription.
        """
        self._check()
        try:
            return await self._client.subscribe(subject, future=_Sink(take))  # type: ignore[arg-type]
        except (OSError, nats_errors.Error) as error:
            raise self._gone(error) from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Take no more of a subscription's messages."""
        with contextlib.suppress(OSError, nats_errors.Error):
            await subscription.unsubscribe()

    async def publish(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None, *, reply: str = ""
    ) -> None:
        """Send a message.

        Raises:
            BrokerUnavailable: the connection is lost, and nothing was sent.
            MessageTooLarge: it has more bytes than the server takes; nothing was sent.

        """
        self._check()
        size = len(data) + _size_of(headers)
        if size > self.max_payload:
            raise MessageTooLarge(size, self.max_payload)
        try:
            await self._client.publish(subject, data, reply=reply, headers=headers)
        except (OSError, nats_errors.Error) as error:
            raise self._gone(error) from error

    async def ask(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Message:
        """Send a question and return the answer.

        Raises:
            BrokerUnavailable, MessageTooLarge: as in `publish`; also if nobody on the server takes such questions.
            Unanswered: it was sent.

        """
        (message,) = await self._ask(subject, data, headers, many=False)
        if message.status == _NO_RESPONDERS:
            raise self._missing(subject)
        return message

    async def is_heard(self, subject: str) -> bool:
        """Whether anybody on the server listens to ``subject``; those who do get a message with the header `LISTENING`.

        Raises BrokerUnavailable as in `publish`.
        """
        try:
            async with asyncio.timeout(_SAID_AT_ONCE):
                (message,) = await self._ask(subject, b"", {LISTENING: "?"}, many=False)
        except (TimeoutError, Unanswered):  # those who are there say nothing
            return True
        return message.status != _NO_RESPONDERS

    async def ask_many(self, subject: str, data: bytes) -> list[Message]:
        """Send a question whose answer has several parts, and return those before the one that ends it.

        Raises:
            BrokerUnavailable, MessageTooLarge, Unanswered: as in `ask`.

        """
        *parts, last = await self._ask(subject, data, None, many=True)
        if last.status == _NO_RESPONDERS:
            raise self._missing(subject)
        if last.status not in ("204", "404"):
            raise BrokerUnavailable(f"NATS refused a read: {last.status} {_description(last)}")
        return parts

    async def _ask(self, subject: str, data: bytes, headers: dict[str, str] | None, *, many: bool) -> list[Message]:
        if len(self._questions) >= MAX_WAITING:
            raise BrokerUnavailable(f"{MAX_WAITING} questions wait for NATS already")
        self._asked += 1
        token = str(self._asked)
        question = self._questions[token] = _Question(subject, self._loop, many=many)
        if self._expiry is None:
            self._expiry = self._loop.call_at(question.due, self._expire)
        try:
            await self.publish(subject, data, headers, reply=f"{self._inbox}.{token}")
            await question.done
        finally:
            del self._questions[token]
            if question.done.done() and not question.done.cancelled():
                question.done.exception()
        return question.parts

    def _expire(self) -> None:
        """Have nobody wait any longer for answers that are due: the oldest questions are in front."""
        self.check()
        self._expiry = None
        for question in self._questions.values():
            if question.due > self._loop.time():
                self._expiry = self._loop.call_at(question.due, self._expire)
                return
            if not question.done.done():
                question.done.set_exception(Unanswered(question.subject))

    def _answer(self, subject: str, message: Message) -> None:
        question = self._questions.get(subject.rpartition(".")[2])
        if question is not None:
            question.take(message)

    def _missing(self, subject: str) -> BrokerUnavailable:
        """Nobody takes the question, so it did nothing."""
        self._missed()
        return BrokerUnavailable(f"nobody answers to {subject}: the stream, its leader or JetStream itself is missing")

    # --- the end

    def _check(self) -> None:
        if self._client.is_closed:
            self._lose()
        if self.lost.is_set():
            raise BrokerUnavailable("the connection to NATS is lost")

    def _gone(self, error: Exception) -> BrokerUnavailable:
        if self._client.is_closed:
            self._lose()
        return BrokerUnavailable(f"NATS: {str(error) or type(error).__name__}")

    def _lose(self) -> None:
        self.lost.set()
        if self._expiry is not None:
            self._expiry.cancel()
        for question in self._questions.values():
            if not question.done.done():
                question.done.set_exception(Unanswered("the connection was lost"))

    async def _on_lost(self) -> None:
        self._lose()

    async def _on_error(self, error: Exception) -> None:
        self._refusal = error
        if _DENIED in str(error).lower():
            self._deny(str(error).removeprefix("nats: "))
        if self._client.is_closed:
            self._lose()

    def _deny(self, reason: str) -> None:
        """End the question that the server did not let through: it did nothing."""
        self.denied = reason
        for question in self._questions.values():
            if f'"{question.subject.lower()}"' in reason.lower() and not question.done.done():
                question.done.set_exception(BrokerUnavailable(f"NATS refuses it: {reason}"))

    def check(self) -> None:
        """Find out about a connection that ended without a word."""
        if self._client.is_closed:
            self._lose()


def _keys_of(address: NatsAddress) -> dict[str, Any]:
    """Return how a client proves who it is, and how the server has to, from the files that an address names.

    Raises:
        ConfigError: one cannot be used.

    """
    keys: dict[str, Any] = {}
    named: dict[str, str | None] = {"credentials": address.credentials, "nkey": address.nkey, "ca": address.ca}
    for option, path in named.items():
        if path is not None:
            try:
                keys |= _KEYS[option](Path(path))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                words = getattr(error, "strerror", None) or str(error)
                raise ConfigError(f"broker: {option}={path} cannot be used: {words}") from error
    return keys


def _authorities(path: Path) -> dict[str, Any]:
    path.open("rb").close()  # which says what is wrong with a path
    return {"tls": ssl.create_default_context(cafile=path)}


def _seed(path: Path) -> dict[str, Any]:
    seed = path.read_text("ascii").strip()
    _check_seed(seed)
    return {"nkeys_seed_str": seed}


def _credentials(path: Path) -> dict[str, Any]:
    text = path.read_text("ascii")
    if not ("BEGIN NATS USER JWT" in text and (seed := _SEED.search(text))):
        raise ValueError("it holds no JWT and seed of a user, as nsc writes them")
    _check_seed(seed[1])
    return {"user_credentials": RawCredentials(text)}


def _check_seed(seed: str) -> None:
    if find_spec("nkeys") is None:
        raise ValueError("there is no nkeys: pip install 'bellwire[nats]'")
    import nkeys

    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except (nkeys.NkeysError, ValueError):
        raise ValueError("it holds no seed of an NKey, which begins with SU") from None


_KEYS: Final = {"ca": _authorities, "nkey": _seed, "credentials": _credentials}
_SEED: Final = re.compile(r"BEGIN USER NKEY SEED-+\s+(\w+)\s")


def _description(message: Message) -> str:
    return str(message.headers.get("Description", "")) or message.data.decode("utf-8", "replace")


def _size_of(headers: dict[str, str] | None) -> int:
    """Bytes of headers as they are sent: nats-py leaves them out when it compares with ``max_payload``."""
    if not headers:
        return 0
    return 12 + sum(len(name) + len(value) + 4 for name, value in headers.items())
