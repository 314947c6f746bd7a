import functools
from collections.abc import Callable
from typing import Any, cast

import pytest

from bellwire import BellwireError, ConnectRefused, Event, EventRefused, Namespace, Server, Socket
from bellwire.guard.recipients import MAX_NAME_LENGTH
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, PAIR, POKE, SAY, SEND, Draft, Receipt, raw

# --- names


@pytest.mark.parametrize("name", ["chat", "", "/a,b", "/a?b", "/" + "x" * MAX_NAME_LENGTH])
def test_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no namespace: it begins with '/'"):
        Namespace(name)


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match="a namespace's name is a str, like '/chat', not int"):
        Namespace(cast("Any", 7))


@pytest.mark.parametrize(
    ("emits", "message"),
    [
        (SAY, r"takes a tuple of events: for one, write emits=\(EVENT,\)"),
        ("say", r"takes a tuple of events, not str: emits=\(EVENT,\)"),
        (7, "takes a tuple of events, not int"),
        (("say",), r"pass SAY"),
    ],
)
def test_emits_are_events(emits: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Namespace("/", emits=emits)


@pytest.mark.parametrize("effect", ["Relay", "exactly_once", "", None, 1, ["relay"]])
def test_an_effect_is_one_of_four(effect: Any) -> None:
    with pytest.raises(ValueError, match="'relay', 'transactional', 'at_most_once', 'at_least_once'"):
        Namespace("/").on(SAY, effect=effect)


def test_an_effect_is_kept_with_its_handler() -> None:
    namespace = Namespace("/")

    @namespace.on(SAY, effect="relay")
    async def say(socket: Socket, text: str) -> None: ...

    @namespace.on(POKE)
    async def poke(socket: Socket) -> None: ...

    assert {name: registered.effect for name, registered in namespace._handlers.items()} == {
        "say": "relay",
        "poke": "at_most_once",
    }


@pytest.mark.parametrize("name", ["/org/{org-id}", "/org/{", "/org/}", "/org/{}", "/org/{{org}}"])
def test_a_parameter_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="parameter"):
        Namespace(name)


def test_a_parameter_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Namespace("/{a}/{a}")


@pytest.mark.parametrize(
    ("pattern", "name", "params"),
    [
        ("/chat", "/chat", {}),
        ("/chat", "/chat/", None),
        ("/org/{org}", "/org/7", {"org": "7"}),
        ("/org/{org}", "/org/", None),
        ("/org/{org}", "/org/7/8", None),
        ("/org/{org}", "/ORG/7", None),
        ("/org/{org}", "/org/a,b", None),
        ("/org/{org}", "/org/{org}", None),
        ("/org/{org}/team-{team}", "/org/7/team-red", {"org": "7", "team": "red"}),
        ("/a.c/{x}", "/abc/1", None),
        ("/{x}", "/\n", {"x": "\n"}),
    ],
)
def test_a_name_matches_its_pattern(pattern: str, name: str, params: dict[str, str] | None) -> None:
    assert Namespace(pattern).match(name) == params


def test_names_that_are_too_long_match_nothing_so_that_no_client_can_make_matching_slow() -> None:
    pattern = Namespace("/{a}-{b}-{c}")
    assert pattern.match("/" + "-" * 1_000_000) is None
    assert pattern.match("/x-y-" + "z" * (MAX_NAME_LENGTH - 5)) is not None
    assert pattern.match("/x-y-" + "z" * (MAX_NAME_LENGTH - 4)) is None


# --- patterns at run time


async def test_each_namespace_of_a_pattern_is_a_world_of_its_own() -> None:
    server = Server()
    org = server.namespace("/org/{org}")
    async with connect(server, "/org/7") as seven, connect(server, "/org/8") as eight:
        await org.at(org="7").emit(SAY, "seven")
        await org.at(org="8").to("r").emit(SAY, "nobody")
        assert await seven.receive(SAY) == "seven"
        await eight.receive_nothing()


async def test_an_exact_name_goes_before_a_pattern_whatever_was_registered_first() -> None:
    server = Server()
    pattern = server.namespace("/{name}")
    exact = server.namespace("/chat")
    for namespace, answer in ((pattern, "pattern"), (exact, "exact")):

        @namespace.on(ASK)
        async def ask(socket: Socket, text: str, answer: str = answer) -> str:
            return answer

    async with connect(server, "/chat") as client, connect(server, "/news") as other:
        assert await client.call(ASK, "?") == "exact"
        assert await other.call(ASK, "?") == "pattern"


async def test_a_name_in_no_namespace_is_refused() -> None:
    server = Server()
    server.namespace("/org/{org}")
    for name in ("/", "/org", "/org/{org}", "/other"):
        with pytest.raises(ConnectRefused, match="Invalid namespace"):
            async with connect(server, name):
                pass


async def test_a_namespace_that_everybody_left_is_forgotten() -> None:
    server = Server()
    org = server.namespace("/org/{org}")
    async with server.lifespan():
        async with connect(server, "/org/7"):
            async with connect(server, "/org/7"):
                pass
            assert list(org._hubs) == ["/org/7"]
        assert org._hubs == {}


@pytest.mark.parametrize("params", [{}, {"team": "7"}, {"org": "7", "team": "8"}])
async def test_at_wants_exactly_the_patterns_parameters(params: dict[str, str]) -> None:
    org = Server().namespace("/org/{org}")
    with pytest.raises(TypeError, match=r"'/org/\{org\}' takes \['org'\]"):
        org.at(**params)


def test_at_takes_text() -> None:
    org = Server().namespace("/org/{org}")
    with pytest.raises(TypeError, match=r"^at\(org=7\): a parameter is a str, write at\(org='7'\)$"):
        org.at(org=cast("Any", 7))


@pytest.mark.parametrize(
    ("earlier", "name", "hidden"),
    [
        ("/org/{a}", "/org/{b}", True),
        ("/{x}", "/org-{y}", True),
        ("/{x}-{y}", "/a-{z}", True),
        ("/org-{y}", "/{x}", False),
        ("/{a}/b", "/x/{c}", False),
        ("/{x}", "/org/{y}", False),
        ("/{x}", "/chat", False),
        ("/chat", "/{x}", False),
    ],
)
def test_a_pattern_that_an_earlier_one_hides_is_refused(earlier: str, name: str, hidden: bool) -> None:
    assert Namespace(earlier).hides(Namespace(name)) is hidden
    for register in (Server.namespace, lambda server, name: server.include(Namespace(name))):
        server = Server()
        server.namespace(earlier)
        if hidden:
            with pytest.raises(ValueError, match=r"is hidden by .*: register the narrower pattern first"):
                register(server, name)
        else:
            register(server, name)
            assert list(server.namespaces) == [earlier, name]


@pytest.mark.parametrize("value", ["", "a/b", "a,b", "{x}"])
async def test_at_refuses_what_no_client_could_connect_to(value: str) -> None:
    org = Server().namespace("/org/{org}")
    with pytest.raises(ValueError, match="is no namespace of"):
        org.at(org=value)


async def test_a_pattern_itself_is_nobody_and_says_so() -> None:
    server = Server()
    org = server.namespace("/org/{org}")
    async with server.lifespan():
        with pytest.raises(TypeError, match=r"name one of its namespaces with at\(\)"):
            await org.emit(SAY, "x")
        with pytest.raises(TypeError, match="at"):
            await org.to("r").emit(SAY, "x")


async def test_a_namespace_of_a_server_that_does_not_run_says_how_it_starts() -> None:
    root = Server().namespace("/")
    with pytest.raises(
        BellwireError, match=r"is not running: it starts with its lifespan, or at .* Socket.IO request"
    ) as e:
        await root.emit(SAY, "x")
    assert "serve the server and not app" in str(e.value)
    assert "lifespan=server.lifespan" in str(e.value)


async def test_a_namespace_that_was_never_included_says_so() -> None:
    server, parts = Server(), Namespace("/parts")
    with pytest.raises(BellwireError, match=r"^'/parts' belongs to no server: write server.include\(namespace\)$"):
        await parts.emit(SAY, "x")
    server.include(parts)
    with pytest.raises(BellwireError, match="is not running"):
        await parts.emit(SAY, "x")
    more = Namespace("/parts")
    server.include(more)
    with pytest.raises(BellwireError, match="is not running"):
        await more.emit(SAY, "x")


# --- registration


async def echo(socket: Socket, text: str) -> str:
    return text


def test_a_handler_is_given_back_as_it_is() -> None:
    root = Namespace("/")
    assert root.on(ASK)(echo) is echo
    assert root.events == (ASK,)


def test_an_event_has_one_handler() -> None:
    root = Namespace("/")
    root.on(ASK)(echo)
    with pytest.raises(ValueError, match="one event, one handler"):
        root.on(ASK)(echo)
    with pytest.raises(ValueError, match="one event, one handler"):
        root.on(Event("ask", str, reply=str))(echo)


class Echo:
    async def __call__(self, socket: Socket, text: str) -> str:
        return text

    async def method(self, socket: Socket, text: str) -> str:
        return text


@pytest.mark.parametrize("handler", [Echo(), Echo().method, functools.partial(echo)])
async def test_whatever_can_be_called_asynchronously_may_be_a_handler(handler: Any) -> None:
    server = Server()
    server.namespace("/").on(ASK)(handler)
    async with connect(server) as client:
        assert await client.call(ASK, "x") == "x"


def test_a_synchronous_handler_is_refused_at_registration() -> None:
    def handler(socket: Socket, text: str) -> None: ...

    root = Namespace("/")
    register: Callable[[Callable[..., Any]], Any]
    for register in (cast("Any", root.on(SAY)), cast("Any", root.on_connect), root.on_any, cast("Any", root.use)):
        with pytest.raises(TypeError, match="write 'async def handler'"):
            register(handler)
    with pytest.raises(TypeError, match="async def"):
        root.authorize(cast("Any", handler))
    with pytest.raises(TypeError, match="async def"):
        root.on_disconnect(cast("Any", handler))


def test_a_handler_that_cannot_take_the_payload_is_refused_at_registration() -> None:
    async def too_few(socket: Socket, a: int) -> None: ...
    async def too_many(socket: Socket, a: int, b: int, c: int) -> None: ...
    async def by_name(socket: Socket, a: int, b: int, *, c: int) -> None: ...

    for handler, takes in (
        (too_few, "handler too_few takes 2 arguments"),
        (too_many, "handler too_many takes 4 arguments"),
        (by_name, "handler by_name takes 3 arguments and c by name"),
    ):
        with pytest.raises(TypeError, match=rf"^on\('pair'\): {takes} and is called with 3: write async def "):
            Namespace("/").on(PAIR)(cast("Any", handler))
    with pytest.raises(TypeError, match=r"^on_connect: .* called with 1: write async def too_few\(socket\)$"):
        Namespace("/").on_connect(cast("Any", too_few))
    with pytest.raises(TypeError, match=r"on_disconnect: .* 2: write async def too_many\(socket, reason\)$"):
        Namespace("/").on_disconnect(cast("Any", too_many))
    with pytest.raises(TypeError, match=r"use: .* 2: write async def too_many\(socket, next\)$"):
        Namespace("/").use(cast("Any", too_many))


def test_defaults_and_star_arguments_are_fine() -> None:
    async def star(socket: Socket, *payload: int) -> None: ...
    async def default(socket: Socket, a: int, b: int, c: int = 0) -> None: ...

    Namespace("/").on(PAIR)(star)
    Namespace("/").on(PAIR)(default)


def test_there_is_one_authorizer() -> None:
    async def allow(socket: Socket, room: str) -> bool:
        return True

    root = Namespace("/")
    root.authorize(allow)
    with pytest.raises(ValueError, match="has an authorizer already"):
        root.authorize(allow)


# --- on_any


def test_on_any_has_to_take_every_payload() -> None:
    async def one(socket: Socket, name: str, value: object) -> None: ...
    async def none(socket: Socket, name: str) -> None: ...
    async def first(socket: Socket, name: str, value: object, *more: object) -> None: ...

    for handler in (one, none, first):
        with pytest.raises(TypeError, match=r"^on_any: handler .*: write async def .*\(socket, name, \*payload\)$"):
            Namespace("/").on_any(handler)


async def test_on_any_sees_every_event_before_its_handler() -> None:
    server = Server()
    root = server.namespace("/")
    order: list[object] = []

    @root.on_any
    async def watch(socket: Socket, name: str, *payload: object) -> None:
        order.append((name, *payload))

    @root.on(SEND)
    async def send(socket: Socket, draft: Draft) -> Receipt:
        order.append("handler")
        return Receipt(draft.text)

    async with connect(server) as client:
        assert await client.call(SEND, Draft("r", "<i>x</i>")) == Receipt("x")
        assert order == [("send", Draft("r", "x")), "handler"]


async def test_on_any_sees_what_nobody_declared_as_plain_values() -> None:
    server = Server()
    root = server.namespace("/")
    seen: list[object] = []

    @root.on_any
    async def watch(socket: Socket, name: str, *payload: object) -> None:
        seen.append((name, *payload))

    async with connect(server) as client:
        raw(client, '42["free",{"a":[1]},null]')
        raw(client, '451-["bin",{"_placeholder":true,"num":0}]', b"x")
        await client.call(POKE)
        assert seen == [("free", {"a": [1]}, None), ("bin", b"x"), ("poke",)]


async def test_on_any_does_not_see_a_wrong_payload_and_may_refuse() -> None:
    server = Server()
    root = server.namespace("/")
    seen: list[object] = []

    @root.on_any
    async def watch(socket: Socket, name: str, *payload: object) -> None:
        seen.append(payload)
        raise EventRefused("quiet", "not now")

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        raise AssertionError("called")

    async with connect(server) as client:
        raw(client, '42["ask",7]')
        assert seen == []
        with pytest.raises(EventRefused, match="quiet"):
            await client.call(ASK, "x")


# --- several files


def other_file(name: str = "/chat") -> Namespace:
    part = Namespace(name, emits=(SAY,))

    @part.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        await part.emit(SAY, text)
        return text

    return part


async def test_a_namespace_made_elsewhere_is_included() -> None:
    server = Server()
    part = other_file()
    server.include(part)
    async with connect(server, "/chat") as client:
        assert await client.call(ASK, "x") == "x"
        assert await client.receive(SAY) == "x"


@pytest.mark.parametrize("late", [False, True])
async def test_one_of_a_known_name_becomes_a_part_of_it_and_reaches_the_same_sockets(late: bool) -> None:
    server = Server()
    chat = server.namespace("/chat", emits=(SAY,))
    part = Namespace("/chat", emits=(SAY, ASK)) if late else other_file()
    order = []
    if late:
        server.include(part)

    @chat.on_connect
    async def enter(socket: Socket) -> None:
        order.append("whole")

    @part.on_connect
    async def enter_too(socket: Socket) -> None:
        order.append("part")

    @part.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        order.append(reason)

    @part.use
    async def check(socket: Socket, go_on: Callable[[], Any]) -> None:
        order.append("middleware")
        await go_on()

    @part.on_any
    async def watch(socket: Socket, name: str, *payload: object) -> None:
        order.append(name)

    @part.authorize
    async def allow(socket: Socket, room: str) -> bool:
        return False

    if late:

        @part.on(ASK)
        async def ask(socket: Socket, text: str) -> str:
            await part.emit(SAY, text)
            return text
    else:
        server.include(part)
    assert chat.events == part.events == (ASK,)
    assert chat.emits == ((SAY, ASK) if late else (SAY,))
    async with connect(server, "/chat") as client:
        assert await client.call(ASK, "x") == "x"
        assert await client.receive(SAY) == "x"
        with pytest.raises(EventRefused, match="forbidden"):
            await part.join("r")
        await part.to(client.id).emit(SAY, "y")
        assert await client.receive(SAY) == "y"
    await advance()
    assert order == ["middleware", "whole", "part", "ask", "transport close"]


def test_a_part_cannot_have_a_handler_for_the_same_event() -> None:
    server = Server()
    server.include(other_file())
    with pytest.raises(ValueError, match="one event, one handler"):
        server.include(other_file())
    late = Namespace("/chat")
    server.include(late)
    with pytest.raises(ValueError, match="one event, one handler"):
        late.on(ASK)(echo)


def test_a_part_cannot_silently_take_the_authorizers_place() -> None:
    async def allow(socket: Socket, room: str) -> bool:
        return True

    server = Server()
    server.namespace("/chat").authorize(allow)
    part = Namespace("/chat")
    part.authorize(allow)
    with pytest.raises(ValueError, match="authorizer"):
        server.include(part)


def test_including_the_same_object_again_changes_nothing() -> None:
    server = Server()
    part = other_file()
    server.include(part)
    server.include(part)
    assert part.events == (ASK,)
