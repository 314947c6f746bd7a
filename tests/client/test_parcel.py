"""What arrived, read in each encoding by somebody who knows the types; the links' tests have the rest."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire import Event, EventRefused
from bellwire.client.parcel import Answer, Parcel, packet_parcel, raw_answer, raw_parcel
from bellwire.core.errors import PacketError
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol import wire


class Note(msgspec.Struct):
    at: datetime
    data: bytes
    tags: dict[int, str]


NOTE = Event("note", Note, int, reply=Note)
VALUE = Note(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b"\0\xff", {1: "a"})


def json(*args: Any) -> Parcel:
    return raw_parcel("note", wire.encode_args(args, msgpack=False), msgpack=False)


def msgpack(*args: Any) -> Parcel:
    return raw_parcel("note", wire.encode_args(args, msgpack=True), msgpack=True)


def socketio(*args: Any) -> Parcel:
    payload = msgspec.json.encode(["note", *args]).decode()
    return packet_parcel("note", payload, None)


Make = Callable[..., Parcel]
each = pytest.mark.parametrize("make", [json, msgpack, socketio])


@each
def test_a_payload_is_read_as_its_types(make: Make) -> None:
    parcel = make(VALUE, 7)
    assert parcel.name == "note"
    assert 20 < parcel.size < 200
    assert parcel.read(PayloadReader(NOTE)) == (VALUE, 7)


@each
@pytest.mark.parametrize("args", [(), (VALUE,), (VALUE, "x"), (VALUE, 7, 7), ({}, 7)])
def test_another_payload_is_refused(make: Make, args: tuple[Any, ...]) -> None:
    with pytest.raises(EventRefused) as refused:
        make(*args).read(PayloadReader(NOTE))
    assert refused.value.code == "invalid_payload"


def test_the_objects_of_a_binary_packet() -> None:
    parcel = packet_parcel("blob", "…", ["blob", b"x"])
    assert parcel.read(PayloadReader(Event("blob", bytes))) == (b"x",)


def test_replies() -> None:
    for packed in (True, False):
        answer = raw_answer(wire.encode_args([VALUE], msgpack=packed), msgpack=packed)
        assert answer.read(ReplyReader(NOTE)) == VALUE
        nothing = raw_answer(wire.encode_args([], msgpack=packed), msgpack=packed)
        assert nothing.read(ReplyReader(Event("poke"))) is None
        error = raw_answer(
            wire.encode_args([{"error": {"code": "no", "message": "x"}}], msgpack=packed), msgpack=packed
        )
        with pytest.raises(EventRefused, match="no: x"):
            error.read(ReplyReader(NOTE))
    assert Answer("[3]").read(ReplyReader(Event("count", reply=int))) == 3
    assert Answer("", [b"x"]).read(ReplyReader(Event("blob", reply=bytes))) == b"x"


@given(st.binary(max_size=30))
def test_any_msgpack_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(PacketError, EventRefused):
        raw_parcel("note", msgspec.Raw(data), msgpack=True).read(PayloadReader(NOTE))


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    raw = msgspec.Raw(text.encode("utf-8", "replace"))
    for read in (
        lambda: raw_parcel("note", raw, msgpack=False).read(PayloadReader(NOTE)),
        lambda: raw_answer(raw, msgpack=False).read(ReplyReader(NOTE)),
    ):
        with contextlib.suppress(PacketError, EventRefused):
            read()
