"""A server's end of a producer, small and strict: it notes what took effect, and answers each message once."""

from typing import Any

import msgspec

from bellwire.client.codec import RawCodec
from bellwire.client.link import Answered, News, Settled, Welcome
from bellwire.client.parcel import raw_answer
from bellwire.client.upstream import Upstream
from bellwire.protocol import wire
from bellwire.protocol.outgoing import Outgoing

LIMIT = 60_000


class Desk:
    """What the server keeps; ``ran`` is what took effect, with the number it had."""

    def __init__(self, generation: str = "g1") -> None:
        self.generation = generation
        self.producer: str | None = None
        self.last = 0
        self.outcomes: dict[int, tuple[bytes, list[Any]]] = {}
        self.ran: list[tuple[int, Any]] = []
        self.refuses: dict[str, dict[str, Any]] = {}
        self.busy = 0  # so many events are turned away

    def forget(self, generation: str) -> None:
        """A broker that lost everything."""
        self.generation = generation
        self.last = 0
        self.outcomes.clear()

    def take(self, message: wire.ClientMessage) -> wire.ServerMessage | None:
        match message:
            case wire.NumberedEvent():
                return self.event(message)
            case wire.Skip(_, first, upto):
                if first > self.last + 1:
                    return wire.Nack("/", first, self.last + 1, self.generation)
                self.last = max(self.last, upto)
                return wire.Skipped("/", first)
            case wire.ClientEvent(_, name, args, ack):
                self.ran.append((0, msgspec.json.decode(args)))
                return wire.Reply("/", ack, raw([name])) if ack is not None else None
            case _:
                raise AssertionError(message)

    def event(self, event: wire.NumberedEvent) -> wire.ServerMessage:
        number, body = event.number, bytes(event.args)
        if number in self.outcomes:
            known, reply = self.outcomes[number]
            return self.outcome(number, reply if known == body else error("idempotency_mismatch"))
        if number <= self.last:
            return self.outcome(number, error("producer_unknown"))
        if number > self.last + 1 or self.busy:
            wait = 0.5 if self.busy else None
            self.busy = max(0, self.busy - 1)
            return wire.Nack("/", number, self.last + 1, self.generation, wait)
        if (event.generation or self.generation) != self.generation:
            if not event.resent:
                return wire.Nack("/", number, number, self.generation)
            return self.keep(number, body, error("outcome_unknown"))
        self.ran.append((number, *msgspec.json.decode(body)))
        refusal = self.refuses.get(event.name)
        return self.keep(number, body, [number] if refusal is None else [{"error": refusal}])

    def keep(self, number: int, body: bytes, reply: list[Any]) -> wire.ServerMessage:
        self.last = number
        self.outcomes[number] = body, reply
        return self.outcome(number, reply)

    def outcome(self, number: int, reply: list[Any]) -> wire.Outcome:
        return wire.Outcome("/", number, raw(reply))


class Line:
    """A connection of an `Upstream` to a desk. What is sent waits until the test lets it be read, or cuts."""

    def __init__(self, up: Upstream, desk: Desk, *, plain: bool = False) -> None:
        self.up = up
        self.desk = desk
        self.sent: list[wire.ClientMessage] = []
        self.answers: list[wire.ServerMessage] = []
        self.writable = True
        self.whole = True
        greeting = None if plain else wire.Greeting(desk.producer or up.producer, desk.last, desk.generation)
        up.joined(self, RawCodec("/", wire.JSON), Welcome("s", greeting=greeting, limit=LIMIT))

    def send(self, message: Outgoing) -> None:
        assert self.whole
        self.sent.append(wire.parse(message.parts[0]))

    def read(self, count: int = 10**6) -> None:
        """Let the server take what was sent, as far as ``count`` messages; its answers wait."""
        for message in self.sent[:count]:
            answer = self.desk.take(message)
            if answer is not None:
                self.answers.append(answer)
        del self.sent[:count]

    def answer(self, count: int = 10**6) -> None:
        """Let the client have so many of the answers."""
        answers, self.answers = self.answers[:count], self.answers[count:]
        for message in answers:
            self.tell(message)

    def tell(self, message: wire.ServerMessage) -> None:
        news = told(message)
        match news:
            case Settled():
                self.up.settled(news)
            case Answered():
                self.up.answered(news)
            case wire.Nack():
                self.up.nacked(news)
            case wire.Skipped():
                self.up.skipped(news)
            case _:
                raise AssertionError(news)

    def work(self) -> None:
        """Go on until nobody has anything to say."""
        while self.sent or self.answers:
            self.read()
            self.answer()

    def abort(self, reason: str) -> None:
        self.whole = False

    def cut(self, reason: str = "transport close") -> None:
        self.whole = False
        self.up.lost(reason)


def told(message: wire.ServerMessage) -> News:
    if isinstance(message, wire.Outcome):
        return Settled(message.number, raw_answer(message.args, msgpack=False))
    if isinstance(message, wire.Reply):
        return Answered(message.id, raw_answer(message.args, msgpack=False))
    assert isinstance(message, wire.Nack | wire.Skipped)
    return message


def raw(args: list[Any]) -> msgspec.Raw:
    return wire.encode_args(args, msgpack=False)


def error(code: str) -> list[Any]:
    return [{"error": {"code": code, "message": "told by the desk"}}]
