"""The error tree: codes are stable and unique, messages name the remedy, errors survive pickling."""

import pickle
from typing import Any

import pytest

from bellwire.core import errors
from bellwire.core.errors import (
    AuthUnavailable,
    BellwireError,
    BrokerUnavailable,
    CallTimeout,
    ConfigError,
    ConnectRefused,
    Disconnected,
    EventRefused,
    MessageTooLarge,
    OutcomeUnknown,
    PacketError,
    ProtocolError,
    RoomLimit,
    TokenRefused,
    TooManyAttachments,
    WebSocketError,
)

SAMPLES = [
    BellwireError("x"),
    ConfigError("x"),
    ConnectRefused("no", {"why": 1}),
    TokenRefused("token_expired"),
    AuthUnavailable("x"),
    EventRefused("invalid_payload", "wrong", path="$.text", retry_after=0.5),
    CallTimeout("x"),
    Disconnected("ping timeout"),
    TooManyAttachments(11, 10),
    RoomLimit("x"),
    MessageTooLarge(9, 8),
    BrokerUnavailable("x"),
    OutcomeUnknown("m1", ("a", "b")),
    ProtocolError("x"),
    WebSocketError(1002, "reserved bit"),
    PacketError("x"),
]


def _tree(cls: type[BellwireError]) -> set[type[BellwireError]]:
    return {cls}.union(*(_tree(sub) for sub in cls.__subclasses__()))


def test_the_tree_is_drawn_with_every_class_and_code() -> None:
    for cls in _tree(BellwireError):
        assert cls.__name__ in (errors.__doc__ or "")
        if cls.__module__ == errors.__name__ and cls is not EventRefused:
            assert f'"{cls.code}"' in (errors.__doc__ or "")


def test_codes_are_unique() -> None:
    codes = [type(error).code for error in SAMPLES if not isinstance(error, EventRefused)]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: BellwireError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.code, vars(again)) == (str(error), error.code, vars(error))


def test_families() -> None:
    assert issubclass(CallTimeout, TimeoutError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(WebSocketError, ProtocolError)
    assert issubclass(PacketError, ProtocolError)
    assert not issubclass(EventRefused, ProtocolError)


def test_a_refusal_as_the_reply_of_an_acknowledgement() -> None:
    assert EventRefused("no", "wrong").as_reply() == {"error": {"code": "no", "message": "wrong"}}
    assert EventRefused("rate", "slow down", path="$[1].text", retry_after=0.0).as_reply() == {
        "error": {"code": "rate", "message": "slow down", "path": "$[1].text", "retry_after": 0.0}
    }


def test_messages_name_the_remedy() -> None:
    assert str(EventRefused("no", "wrong", path="$.a")) == "no: wrong - at `$.a`"
    assert "10 are allowed: send several events" in str(TooManyAttachments(11, 10))
    assert str(MessageTooLarge(9, 5)) == (
        "a message of 9 bytes, the broker takes 5: send less, or raise its max_payload"
    )
    assert str(MessageTooLarge(9, 5, "server")) == "a message of 9 bytes, the server takes 5: send less"
    assert str(OutcomeUnknown("7", message="who knows")) == "who knows"
    assert str(Disconnected("transport close")) == "the connection ended: transport close"
    assert str(WebSocketError(1007, "not UTF-8")) == "not UTF-8 (close code 1007)"


def test_a_refused_connection_carries_message_and_data() -> None:
    refused = ConnectRefused("not today", {"retry": False})
    assert (refused.message, refused.data, str(refused)) == ("not today", {"retry": False}, "not today")
    assert ConnectRefused("bye").data is None


@pytest.mark.parametrize("message", [{"code": "full"}, None, 5])
def test_a_refusals_message_is_text_and_data_carries_the_rest(message: Any) -> None:
    with pytest.raises(TypeError, match=r"as text, not .*; data carries the rest: ConnectRefused\('no', "):
        ConnectRefused(message)
