"""Slots: the one of a key, a key for each, and who holds them."""

import pytest

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Refused
from bellwire.brokers.redis_slots import SLOTS, Shard, ask_shards, slot_of, tag_of
from bellwire.core.errors import BrokerUnavailable, ConfigError
from tests.brokers.making import answering
from tests.brokers.redis_server import RedisServer, linked

pytestmark = pytest.mark.bellwire(clock="real")

ADDRESS = RedisAddress("named", 7, encrypted=True, user="u", password="p")
CLUSTER = ADDRESS._replace(others=(("other", 8),))


def test_the_slot_of_a_key_is_that_of_the_specification() -> None:
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"foo") == 12182


def test_there_is_a_tag_for_each_slot() -> None:
    for slot in (0, 1, 4711, SLOTS - 1):
        assert slot_of(tag_of(slot)) == slot


async def test_a_server_in_no_cluster_holds_all_slots(redis: RedisServer) -> None:
    link = await linked(redis.url)
    (shard,) = await ask_shards(link, ADDRESS)
    assert shard == Shard(ADDRESS, ((0, SLOTS - 1),), in_cluster=False)
    assert shard.holds(0)
    assert shard.holds(SLOTS - 1)
    link.close()


async def test_masters_have_the_ranges_that_the_server_says_and_its_credentials() -> None:
    nodes = b"*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n", b"*4\r\n$-1\r\n:2\r\n$2\r\nid\r\n*0\r\n"
    ranges = [
        b"*3\r\n:10\r\n:16383\r\n" + nodes[1],
        b"*4\r\n:0\r\n:4\r\n" + nodes[0] + nodes[1],
        b"*3\r\n:5\r\n:5\r\n" + nodes[1],
        b"*3\r\n:6\r\n:9\r\n" + nodes[0],
    ]
    async with answering(b"*4\r\n" + b"".join(ranges)) as link:
        one, two = await ask_shards(link, CLUSTER)
    assert one == Shard(ADDRESS._replace(host="a", port=1), ((0, 4), (6, 9)), in_cluster=True)
    assert two == Shard(ADDRESS._replace(port=2), ((5, 5), (10, 16383)), in_cluster=True)
    assert (one.first, two.first) == (0, 5)
    assert [slot for slot in range(12) if two.holds(slot)] == [5, 10, 11]


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b"*0\r\n", BrokerUnavailable, "has no slots yet"),
        (b"-ERR This instance has cluster support disabled\r\n", ConfigError, "they are no cluster"),
        (b"-NOPERM no\r\n", ConfigError, "may not ask for CLUSTER SLOTS"),
        (b"-LOADING it\r\n", Refused, "LOADING"),
    ],
)
async def test_where_nothing_can_be_learned_it_is_told_why(answer: bytes, error: type[Exception], told: str) -> None:
    async with answering(answer) as link:
        with pytest.raises(error, match=told):
            await ask_shards(link, CLUSTER)
