import asyncio

import msgspec
import pytest

from bellwire import BellwireError, BrokerUnavailable, Event, EventRefused, Server
from bellwire.server.nodes import Nodes
from tests.server.house import ASK, PAIR, SAY
from tests.server.nodes import away
from tests.server.servers import SharedBroker, houses

COUNT = Event("count", reply=int)


async def test_a_message_reaches_all_other_nodes_and_not_the_sender() -> None:
    async with houses(3) as (one, two, three):
        heard: list[tuple[str, str, str]] = []
        for house in (one, two, three):

            @house.server.nodes.on(SAY)
            async def say(node: str, text: str, here: Nodes = house.server.nodes) -> None:
                heard.append((here.id, node, text))

        await one.server.nodes.emit(SAY, "hello")
        assert sorted(heard) == sorted([(two.node, one.node, "hello"), (three.node, one.node, "hello")])
        assert one.server.nodes.others == {two.node, three.node}


async def test_replies_come_by_node_and_refusals_are_errors() -> None:
    async with houses(4) as (one, two, three, four):

        @two.server.nodes.on(ASK)
        async def answer(node: str, question: str) -> str:
            return f"{question}!"

        @three.server.nodes.on(ASK)
        async def refuse(node: str, question: str) -> str:
            raise EventRefused("not_here", "ask somebody else")

        replies = await one.server.nodes.call(ASK, "well", timeout=5)
        assert replies.values == {two.node: "well!"}
        assert {node: error.code for node, error in replies.errors.items()} == {
            three.node: "not_here",
            four.node: "unknown_event",
        }
        assert replies.unreachable_nodes == ()


class Odd(msgspec.Struct):
    """A reply that is checked by code of the application's own."""

    kind: str

    def __post_init__(self) -> None:
        {"known": 1}[self.kind]


async def test_a_reply_that_its_own_type_does_not_take_is_an_error() -> None:
    async with houses(2) as (one, two):

        @two.server.nodes.on(Event("odd", reply=dict[str, str]))
        async def odd(node: str) -> dict[str, str]:
            return {"kind": "unheard of"}

        replies = await one.server.nodes.call(Event("odd", reply=Odd), timeout=5)
        assert replies.errors[two.node].code == "invalid_reply"
        assert replies.unreachable_nodes == ()


async def test_a_node_that_does_not_answer_in_time_is_named() -> None:
    async with houses(2) as (one, two):

        @two.server.nodes.on(COUNT)
        async def count(node: str) -> int:
            await asyncio.get_running_loop().create_future()
            return 1

        assert (await one.server.nodes.call(COUNT, timeout=1)).unreachable_nodes == (two.node,)


async def test_a_handlers_exception_stays_on_its_node(caplog: pytest.LogCaptureFixture) -> None:
    async with houses(2) as (one, two):

        @two.server.nodes.on(COUNT)
        async def count(node: str) -> int:
            raise LookupError("secret")

        replies = await one.server.nodes.call(COUNT, timeout=1)
        assert replies.errors[two.node].code == "internal"
        assert "secret" not in str(replies.errors[two.node])
        assert "secret" in caplog.text


async def test_a_payload_of_another_shape_is_refused_with_its_path() -> None:
    async with houses(2) as (one, two):

        @two.server.nodes.on(PAIR)
        async def pair(node: str, first: int, second: int) -> None:
            raise AssertionError("not to be called")

        other = Event("pair", int, str)
        replies = await one.server.nodes.call(other, 1, "two", timeout=1)
        error = replies.errors[two.node]
        assert isinstance(error, EventRefused)
        assert (error.code, error.path) == ("invalid_payload", "$[1]")


def test_one_event_has_one_handler_of_the_right_shape() -> None:
    nodes = Server().nodes

    async def handler(node: str, text: str) -> None:
        pass

    nodes.on(SAY)(handler)
    with pytest.raises(ValueError, match="one event, one handler"):
        nodes.on(SAY)(handler)
    with pytest.raises(TypeError, match="node"):
        nodes.on(PAIR)(handler)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(TypeError, match="Event"):
        nodes.on("say")  # type: ignore[arg-type]  # that is what is tested


async def test_nobody_is_told_before_the_server_runs_or_while_the_broker_is_away() -> None:
    with pytest.raises(BellwireError, match="not running"):
        await Server().nodes.emit(SAY, "hello")
    async with houses(2) as (one, _):
        broker = one.runtime.broker
        assert isinstance(broker, SharedBroker)
        with away(broker), pytest.raises(BrokerUnavailable):
            await one.server.nodes.emit(SAY, "hello")
