"""What can be called is told apart from what cannot, and the error says what to write."""

import functools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import msgspec
import pytest

from bellwire import PlainText
from bellwire.server.callables import (
    check_any_handler,
    check_async,
    check_handler,
    check_lifespan,
    full_name,
    payload_names,
    short_name,
)
from tests.server.house import Draft


async def pair(a: int, b: int) -> None: ...
async def many(a: int, *more: int) -> None: ...
async def optional(a: int, b: int = 0) -> None: ...
async def by_name(a: int, *, b: int) -> None: ...
def plain(a: int) -> None: ...


class Caller:
    async def __call__(self, a: int) -> None: ...

    async def method(self, a: int) -> None: ...


@pytest.mark.parametrize("function", [pair, many, Caller(), Caller().method, functools.partial(pair, 1)])
def test_what_is_async_is_let_through(function: Any) -> None:
    check_async(function, "on")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (plain, "plain"),
        (Caller, "Caller"),
        (5, "handler"),
        (lambda socket: None, "handler"),
        (functools.partial(plain, 1), "plain"),
    ],
)
def test_what_is_not_async_is_named(function: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^on takes an async function: write 'async def {name}'$"):
        check_async(function, "on")


@pytest.mark.parametrize(
    ("function", "taken"),
    [
        (Caller(), "handler Caller takes 1 argument"),
        (pair, "handler pair takes 2 arguments"),
        (optional, "handler optional takes 1 to 2 arguments"),
        (by_name, "handler by_name takes 1 argument and b by name"),
    ],
)
def test_the_direction_is_told(function: Any, taken: str) -> None:
    with pytest.raises(
        TypeError, match=rf"^on\('e'\): {taken} and is called with 3: write .*\(socket, text, number\)$"
    ):
        check_handler(function, ("socket", "text", "number"), "on('e')")


def test_at_least_is_told() -> None:
    async def wide(a: int, b: int, *more: int) -> None: ...

    with pytest.raises(TypeError, match="handler wide takes at least 2 arguments and is called with 1"):
        check_handler(wide, ("socket",), "on_connect")


@pytest.mark.parametrize("function", [pair, many, optional, functools.partial(pair)])
def test_what_takes_the_arguments_is_let_through(function: Any) -> None:
    check_handler(function, ("socket", "text"), "on('e')")


def test_a_handler_of_every_event_takes_any_payload() -> None:
    async def watch(socket: object, name: str, *payload: object) -> None: ...
    async def all_of_it(*everything: object) -> None: ...

    check_any_handler(watch, "on_any")
    check_any_handler(all_of_it, "on_any")
    for wrong in (pair, optional, by_name, Caller()):
        with pytest.raises(
            TypeError, match=r"^on_any: handler .* takes .* and is called with 2 and those of the event"
        ):
            check_any_handler(wrong, "on_any")


def test_a_lifespan_is_a_function_of_the_server_that_gives_a_manager() -> None:
    async def forgotten(server: object) -> AsyncIterator[None]:
        yield

    async def coroutine(server: object) -> None: ...

    @asynccontextmanager
    async def right(server: object) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def nothing() -> AsyncIterator[None]:
        yield

    check_lifespan(right, "Server(lifespan=...)")
    for wrong in (forgotten, coroutine):
        with pytest.raises(TypeError, match=f"write @asynccontextmanager .* above async def {wrong.__name__}"):
            check_lifespan(wrong, "Server(lifespan=...)")
    with pytest.raises(TypeError, match=r"nothing takes 0 arguments and is called with 1: .* nothing\(server\)"):
        check_lifespan(nothing, "Server(lifespan=...)")
    with pytest.raises(TypeError, match=r"^Server\(lifespan=...\) takes a function of the server, not int$"):
        check_lifespan(5, "Server(lifespan=...)")  # type: ignore[arg-type]


def test_a_manager_that_is_not_async_is_found_when_it_is_called() -> None:
    @contextmanager
    def sync(server: object) -> Iterator[None]:
        yield

    check_lifespan(sync, "Server(lifespan=...)")


def test_arguments_are_named_after_their_types() -> None:
    class Lambda(msgspec.Struct):
        n: int

    types = (str, Draft, list[int], Annotated[PlainText, msgspec.Meta(max_length=5)], int | None)
    assert payload_names(types) == ("text", "draft", "items", "text4", "value")
    assert payload_names((dict[str, int], bytes, bool, Lambda)) == ("fields", "data", "flag", "value")
    assert payload_names(()) == ()


def test_functions_are_named_as_people_look_for_them() -> None:
    here = "tests.server.test_callables"
    assert (short_name(pair), full_name(pair)) == ("pair", f"{here}.pair")
    assert (short_name(functools.partial(pair, 1)), full_name(functools.partial(pair, 1))) == ("pair", f"{here}.pair")
    assert (short_name(Caller()), full_name(Caller())) == ("Caller", f"{here}.Caller")
    assert full_name(Caller().method) == f"{here}.Caller.method"
