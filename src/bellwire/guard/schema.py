"""Payloads against their events: one msgspec pass validates, converts and says where the fault is."""

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from bellwire.core.errors import EventRefused, PacketError
from bellwire.core.events import Event, walk_types
from bellwire.guard.sanitise import Cleaner, build_cleaner
from bellwire.protocol.json_text import MAX_DEPTH, decode_text

__all__ = ["PayloadReader", "ReplyReader"]

MAX_MESSAGE_LENGTH: Final = 256
"""Characters of a refusal's message and path; msgspec quotes what the client sent, as long as that was."""

_BYTES: Final = (bytes, bytearray, memoryview)

# msgspec ends its message with where the fault is: " - at `$[1].text`" or " - at `key` in `$[1]`".
_LOCATION = re.compile(r"(.*) - at (`key` in )?`\$\[([0-9]+)\](.*)`", re.DOTALL)

# MessagePack holds integers of 64 bits, whose decimal digits are at most 20; 18 of them are always in range.
_SAFE_DIGITS: Final = 18
_NO_DIGITS: Final = bytes(set(range(256)) - set(b"0123456789"))
_WITH_INTEGERS: Final = (inspect.IntType, inspect.AnyType, inspect.RawType)

# What has no members that nobody declared, and that could be nested to any depth.
_FLAT: Final = (
    inspect.StrType,
    inspect.BoolType,
    inspect.FloatType,
    inspect.NoneType,
    inspect.BytesType,
    inspect.DateTimeType,
    inspect.UUIDType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.ListType,
    inspect.TupleType,
    inspect.VarTupleType,
    inspect.DictType,
    inspect.UnionType,
    inspect.Metadata,
)

_to_msgpack = msgspec.msgpack.Encoder().encode
_count_arguments = msgspec.json.Decoder(list[msgspec.Raw]).decode

R = TypeVar("R")


class PayloadReader:
    """Reads the arguments of one `Event`: validated, converted to its types, `PlainText` sanitised.

    A ``bytes`` field takes an attachment in a binary event, and base64 text (RFC 4648 section 4) in one
    that is JSON alone, which is how msgspec writes bytes in JSON.
    """

    __slots__ = ("_arity", "_cleaners", "_decode", "_flat", "_types", "_unbounded")

    def __init__(self, event: Event[Any, *tuple[Any, ...]]) -> None:
        types = event.payload_types
        self._arity = len(types)
        # A number as a name is legal in Socket.IO; which event it is has been decided before.
        self._decode = msgspec.json.Decoder(_tuple_of((str | float, *types))).decode
        self._types = _tuple_of(types)
        self._unbounded = any(map(_is_unbounded, types))
        cleaners = enumerate(map(build_cleaner, types))
        self._cleaners = [(index, clean) for index, clean in cleaners if clean is not None]
        self._flat = not self._cleaners and _is_flat(types)

    def read(self, payload: str) -> tuple[Any, ...]:
        """Return the arguments in ``payload``, the JSON text ``["name", argument, ...]``, without the name.

        Raises:
            EventRefused: ``invalid_payload``: an argument has the wrong shape, or there are too few or
                too many. The path starts at the argument, or at the list of them if there are several.
            PacketError: the payload is no JSON array, or is nested too deeply.

        """
        if self._flat:
            try:
                arguments: tuple[Any, ...] = self._decode(payload)[1:]
                return arguments
            except (msgspec.DecodeError, UnicodeEncodeError):
                pass  # it is mended below, or told what is wrong with it
        return self.read_in_full(payload)

    def read_in_full(self, payload: str) -> tuple[Any, ...]:
        """Do what `read` does, also where the types alone leave something open."""
        try:
            arguments = decode_text(payload, self._decode)[1:]
            if self._unbounded and len(payload.encode().translate(None, _NO_DIGITS)) > _SAFE_DIGITS:
                _check_integers(arguments)
            return self._clean(arguments) if self._cleaners else arguments
        except msgspec.ValidationError as error:
            self._refuse(error, 1, lambda: len(decode_text(payload, _count_arguments)) - 1)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise PacketError(f"the event's payload is not valid JSON: {error}") from None
        except (RecursionError, MemoryError):
            raise PacketError("the event's payload is nested too deeply") from None

    def read_objects(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return the arguments of a binary event, decoded before and without the name.

        Raises as `read` does.
        """
        try:
            converted: tuple[Any, ...] = _convert(arguments, self._types)
            return self._clean(converted) if self._cleaners else converted
        except msgspec.ValidationError as error:
            self._refuse(error, 0, lambda: len(arguments))
        except UnicodeEncodeError:  # half a surrogate pair, which decode_json would have mended
            raise PacketError("the event's payload holds text that is no Unicode") from None
        except (RecursionError, MemoryError):
            raise PacketError("the event's payload is nested too deeply") from None

    def _clean(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        cleaned = list(arguments)
        for index, clean in self._cleaners:
            cleaned[index] = clean(cleaned[index])
        return tuple(cleaned)

    def _refuse(self, error: msgspec.ValidationError, first: int, count: Callable[[], int]) -> NoReturn:
        message, index, path = _located(error)
        if index is None:
            expected, got = self._arity, _counted(count)
            if got < 0:
                raise PacketError("the event's payload is an empty array: it begins with a name") from None
            raise EventRefused(
                "invalid_payload",
                f"Expected {expected} argument{'s' if expected != 1 else ''}, got {got}",
                path="$",
            ) from None
        if index < first:
            raise PacketError(f"the event's name: {message}") from None
        where = "$" if self._arity == 1 else f"$[{index - first}]"
        raise EventRefused("invalid_payload", message, path=_shortened(where + path)) from None


class _Refusal(msgspec.Struct, forbid_unknown_fields=True):
    """The inside of `EventRefused.as_reply`."""

    code: str
    message: str
    path: str | None = None
    retry_after: float | None = None


class _RefusedReply(msgspec.Struct, forbid_unknown_fields=True):
    error: _Refusal


_REFUSED_START = re.compile(r'\s*\[\s*\{\s*"error"')
_decode_refused = msgspec.json.Decoder(tuple[_RefusedReply]).decode


class ReplyReader(Generic[R]):
    """Reads the acknowledgement of one `Event`: the reply in its type, or the refusal raised."""

    __slots__ = ("_clean", "_decode", "_expected", "_type")

    def __init__(self, event: Event[R, *tuple[Any, ...]]) -> None:
        self._expected = event.reply is not None
        self._type = _tuple_of((event.reply,))  # None is a type too: that of null
        self._decode = msgspec.json.Decoder(self._type).decode
        self._clean: Cleaner | None = build_cleaner(event.reply) if self._expected else None

    def read(self, payload: str) -> R:
        """Return the reply in ``payload``, the JSON text of an acknowledgement's arguments.

        An empty acknowledgement, ``[]``, is None; it fits an event without a reply, or one whose reply
        may be None.

        Raises:
            EventRefused: the peer refused the event (its own code), or the reply has the wrong shape
                (``invalid_reply``).
            PacketError: the payload is no JSON array, or is nested too deeply.

        """
        try:
            if _REFUSED_START.match(payload) is not None:
                _raise_refusal(lambda: decode_text(payload, _decode_refused))
            return self._cleaned(decode_text("[null]" if payload == "[]" else payload, self._decode)[0])
        except msgspec.ValidationError as error:
            self._refuse(error, lambda: len(decode_text(payload, _count_arguments)))
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise PacketError(f"the acknowledgement is not valid JSON: {error}") from None
        except (RecursionError, MemoryError):
            raise PacketError("the acknowledgement is nested too deeply") from None

    def read_objects(self, arguments: Sequence[Any]) -> R:
        """Return the reply of a binary acknowledgement, decoded before. Raises as `read` does."""
        try:
            if arguments and isinstance(arguments[0], dict) and "error" in arguments[0]:
                _raise_refusal(lambda: _convert(arguments, tuple[_RefusedReply]))
            return self._cleaned(_convert(arguments or [None], self._type)[0])
        except msgspec.ValidationError as error:
            self._refuse(error, lambda: len(arguments))
        except UnicodeEncodeError:
            raise PacketError("the acknowledgement holds text that is no Unicode") from None
        except (RecursionError, MemoryError):
            raise PacketError("the acknowledgement is nested too deeply") from None

    def _cleaned(self, reply: Any) -> R:
        return reply if self._clean is None else self._clean(reply)  # type: ignore[no-any-return]

    def _refuse(self, error: msgspec.ValidationError, count: Callable[[], int]) -> NoReturn:
        message, index, path = _located(error)
        if index is None:
            message = f"Expected 1 argument, got {_counted(count)}"
        elif not self._expected:
            message = f"Expected no reply: {message}"
        raise EventRefused("invalid_reply", message, path=_shortened("$" + path)) from None


def _tuple_of(types: tuple[Any, ...]) -> Any:
    return tuple.__class_getitem__(types)


def _convert(arguments: Sequence[Any], type_: Any) -> Any:
    # Keys of JSON objects are strings, whatever the type says; bytes are attachments, never base64.
    return msgspec.convert(arguments, type_, builtin_types=_BYTES, str_keys=True)


def _is_unbounded(type_: Any) -> bool:
    """Whether a value of the type can hold an integer of any size."""
    return any(isinstance(part, _WITH_INTEGERS) for part in walk_types(inspect.type_info(type_)))


def _is_flat(types: tuple[Any, ...]) -> bool:
    """Whether nothing is left to check when msgspec has read values of these types: no depth, no integers."""
    parts = [part for type_ in types for part in walk_types(inspect.type_info(type_))]
    return len(parts) < MAX_DEPTH and all(isinstance(part, _FLAT) for part in parts)


def _check_integers(arguments: tuple[Any, ...]) -> None:
    """Refuse integers that the broker could not carry to others: the handler that emits one would fail."""
    try:
        with contextlib.suppress(TypeError, ValueError):  # a type that only JSON can hold
            _to_msgpack(arguments)
    except OverflowError:
        raise EventRefused("invalid_payload", "Integer value out of range", path="$") from None


def _raise_refusal(refused: Callable[[], tuple[_RefusedReply, ...]]) -> None:
    try:
        error = refused()[0].error
    except msgspec.ValidationError:
        return  # another shape: the event's own reply may look like this
    raise EventRefused(error.code, error.message, path=error.path, retry_after=error.retry_after)


def _located(error: msgspec.ValidationError) -> tuple[str, int | None, str]:
    """Split msgspec's message: what is wrong, in which argument (None: the array itself), where in it."""
    match = _LOCATION.fullmatch(str(error))
    if match is None:
        return _shortened(str(error)), None, ""
    message, key, index, path = match.groups()
    return _shortened(f"{message} as a key" if key else message), int(index), path


def _counted(count: Callable[[], int]) -> int:
    try:
        return count()
    except (msgspec.DecodeError, RecursionError, MemoryError) as error:  # no array, or broken further on
        raise PacketError(f"the payload is no JSON array of arguments: {error}") from None


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_LENGTH else text[: MAX_MESSAGE_LENGTH - 3] + "..."
