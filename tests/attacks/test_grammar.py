"""Malformed packets out of a grammar, for each parser alone and then for the server.

In the ordinary run they are some 20,000, with ``BELLWIRE_LONG=1000000`` a million for each of the two.
"""

import socket

import pytest

from bellwire.protocol.frames import BINARY, TEXT
from tests.attacks.grammar import PARSED, Grammar, drawn
from tests.attacks.peer import frame, upgrade
from tests.attacks.target import Target
from tests.fuzz.targets import TARGETS
from tests.long import runs

MIB = 1024 * 1024
FOR_EACH = 10
"""Packets on one connection to the server, at most; as a rule one of the first ends it."""


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PARSED)
def test_s8_each_parser_takes_what_a_grammar_makes(name: str) -> None:
    target, _ = TARGETS[name]
    grammar = Grammar(8)
    for number in range(runs(2_000, len(PARSED))):
        rule = grammar.dice.choice(PARSED[name])
        data = drawn(grammar, rule)
        try:
            target(data)
        except Exception as error:
            raise AssertionError(f"number {number}, by the rule {rule}: {data!r}") from error


def conversation(grammar: Grammar) -> bytes:
    """What a client sends on a connection, all at once: it waits for nothing."""
    dice = grammar.dice
    kind = dice.randrange(8)
    packets = range(dice.randrange(1, FOR_EACH + 1))
    if kind == 0:
        return grammar.handshake() + grammar.frames()
    if kind == 1:
        packed = dice.randrange(2) == 1
        subprotocol = "bellwire.v1.msgpack" if packed else "bellwire.v1.json"
        head = upgrade("/bellwire", f"Sec-WebSocket-Protocol: {subprotocol}\r\n")
        hello = b"\x92\xa7connect\xa1/" if packed else b'["connect","/"]'
        messages = [hello, *[grammar.wire_msgpack() if packed else grammar.wire() for _ in packets]]
        return head + b"".join([frame(BINARY if packed else TEXT, message) for message in messages])
    joined = upgrade() + frame(TEXT, b"40")
    if kind == 2:
        return joined + b"".join([grammar.frames() for _ in packets])
    if kind == 3:
        return joined + grammar.from_corpus()
    return joined + b"".join([frame(TEXT, grammar.socket_io()) for _ in packets])


@pytest.mark.timeout(0)
def test_s8_the_server_takes_what_a_grammar_makes(target: Target) -> None:
    """Packets of connections that were ended before are counted as sent, for they were."""
    grammar = Grammar(21)
    _talk(target, grammar, 100)  # what is made once and kept is there now
    objects, memory = target.objects(), target.memory()
    _talk(target, grammar, runs(1_000, FOR_EACH // 2))
    target.until(lambda: target.objects() < objects + 5_000)
    assert target.memory() < memory + 32 * MIB


def _talk(target: Target, grammar: Grammar, connections: int) -> None:
    for number in range(connections):
        data = conversation(grammar)
        with socket.create_connection(("127.0.0.1", target.port), timeout=10) as client:
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except ConnectionError:
                pass
        if number % 200 == 0:
            target.serves()
