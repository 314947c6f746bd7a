"""Names, stamps, envelopes: what needs no server."""

import pytest

from bellwire.brokers.nats_link import Message
from bellwire.brokers.nats_streams import envelope, generation, identity, message_id, opened, place_of, stamp, trimmed
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.entry import Copy, Draft, Entry, enter
from bellwire.delivery.log import Limits, Log
from bellwire.delivery.position import START, Point, era

HEADERS = {"Nats-Sequence": "7", "Nats-Time-Stamp": "2026-11-23T14:03:55.369702109Z"}


def test_a_stamp_has_up_to_nine_digits() -> None:
    assert stamp("1970-01-01T00:00:01Z") == 1.0
    assert stamp("1970-01-02T00:00:00.5Z") == 86400.5
    assert stamp("1970-01-01T00:00:00.123456789Z") == pytest.approx(0.123456789, abs=1e-9)


def test_a_name_is_hexadecimal_whatever_it_holds() -> None:
    for stream in ("room", "a.*", ">", "", "\r\nSUB x 1", "\ud800", "ü" * 255):
        place = place_of(stream, 8)
        assert 0 <= place.partition < 8
        assert len(place.hash) == 32
        assert set(place.hash) <= set("0123456789abcdef")
    assert place_of("a", 8).hash != place_of("b", 8).hash


def test_message_ids_do_not_meet() -> None:
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("b", "a"), ("a", "b\r\n"), ("a/b", "c"), ("a", "b/c")]
    assert len({message_id(stream, mid) for stream, mid in pairs}) == len(pairs)
    assert message_id("a", "b") == message_id("a", "b")


def test_an_envelope_opens_to_what_was_put_in() -> None:
    draft = Draft("m", 2**32 - 1, b"\x00x", ("r",), (Copy("s", "g", 2**62),))
    assert opened(Message(HEADERS, envelope(draft), ""), Point(3, 4)) == enter(
        draft, 7, Point(3, 4), stamp(HEADERS["Nats-Time-Stamp"])
    )


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\x01", b"\x01\xc1", b"plain"])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(BrokerUnavailable):
        opened(Message(HEADERS, data, ""), START)


CREATED, LATER = "2026-07-01T12:00:00.123456789Z", "2026-07-01T12:00:00.125Z"


def test_another_creation_is_another_generation() -> None:
    infos = [{"config": {"name": n}, "created": c} for n in ("a", "b") for c in (CREATED, LATER)]
    assert len({generation(info) for info in infos}) == 4
    assert era(generation(infos[0])) < era(generation(infos[1]))
    numbered = [{"config": {"name": "a", "first_seq": n}, "created": CREATED} for n in (1_000_000, 2_000_000)]
    assert [era(generation(info)) for info in numbered] == [1_000, 2_000]


def test_a_restored_one_is_of_the_same_generation_and_another_one_all_the_same() -> None:
    made, restored = ({"config": {"name": "a", "first_seq": 7_000}, "created": c} for c in (CREATED, LATER))
    assert generation(made) == generation(restored)
    assert identity(made) != identity(restored)


@pytest.mark.parametrize("limits", [Limits(messages=4), Limits(size=700), Limits(age=5), Limits(messages=0), Limits()])
def test_limits_leave_what_the_model_of_a_log_leaves(limits: Limits) -> None:
    log, stored, prev = Log("g", limits), list[Entry](), START
    for n in range(1, 20):
        draft = Draft(f"m{n}", n, b"x" * (n % 5 * 40))
        log.append(draft, float(n))
        stored.append(enter(draft, n, prev, float(n)))
        prev = stored[-1].point
        log.expire(n + 0.5)
        chain = trimmed(stored, limits, n + 0.5)
        assert (chain.base, chain.top, len(chain)) == (log.base, log.top.point, len(log))
