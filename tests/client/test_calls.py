import pytest

from bellwire import Disconnected, EventRefused
from bellwire.client.calls import Call, Calls
from bellwire.core.errors import PacketError
from bellwire.guard.schema import ReplyReader
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import parse_packet
from tests.client.house import ASK


def asked(calls: Calls) -> tuple[int, Call[int]]:
    number, call = calls.number(), Call(ReplyReader(ASK), Outgoing("4"))
    calls.expect(number, call)
    return number, call


async def test_an_acknowledgement_finds_its_call() -> None:
    calls = Calls()
    (_, first), (number, second) = asked(calls), asked(calls)
    calls.answered(parse_packet(f"3{number}[7]"), None)
    assert await second.reply() == 7
    calls.answered(parse_packet(f"3{number}[8]"), None)  # again: nobody waits
    calls.answered(parse_packet("3999[8]"), None)
    calls.answered(parse_packet("3[8]"), None)
    assert len(calls) == 1
    calls.answered(parse_packet("30[]"), [9])
    assert await first.reply() == 9


async def test_a_refusal_is_raised() -> None:
    calls = Calls()
    number, call = asked(calls)
    calls.answered(parse_packet(f'3{number}[{{"error":{{"code":"busy","message":"later"}}}}]'), None)
    with pytest.raises(EventRefused, match="busy: later"):
        await call.reply()


async def test_what_cannot_be_read_is_the_connections_end() -> None:
    calls = Calls()
    number, call = asked(calls)
    with pytest.raises(PacketError):
        calls.answered(parse_packet(f"3{number}[1"), None)
    call.lost("parse error")
    with pytest.raises(Disconnected, match="parse error"):
        await call.reply()


async def test_what_was_not_sent_is_not_lost() -> None:
    calls = Calls()
    (_, sent), (number, kept) = asked(calls), asked(calls)
    calls.lost("transport close", lambda message: message is kept.message)
    with pytest.raises(Disconnected, match="transport close"):
        await sent.reply()
    calls.answered(parse_packet(f"3{number}[1]"), None)
    assert await kept.reply() == 1


async def test_ids_are_used_once() -> None:
    calls = Calls()
    number, _ = asked(calls)
    calls.forget(number)
    calls.forget(number)
    assert asked(calls)[0] != number
    assert len(calls) == 1
