"""The program that is measured, served by a process of its own, and every kind of load on it."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from bellwire.load.__main__ import check, parser, run
from bellwire.load.clients.base import RefusedError
from bellwire.load.processes import measure, running
from bellwire.load.program import NAMESPACE
from bellwire.load.result import Found, Result

SERVE = "-m bellwire run bellwire.load.program:server --host {host} --port {port} --per-message-deflate"
FANOUTS = {"fanout": "", "fanout --binary": "binary", "fanout --deflate": "compressed", "rooms --rooms 3": "3 rooms"}


class Served(NamedTuple):
    port: int
    process: int
    client: str

    def words(self, load: str, client: str) -> Sequence[str]:
        words = [*load.split(), "--client", client, "--seconds", "0.05", "--connections", "6", "--size", "200"]
        return [*words, "--server", str(self.process)]

    def load(self, load: str, client: str = "") -> Found:
        options = parser().parse_args([*self.words(load, client or self.client), "--port", str(self.port)])
        assert check(options) == ""
        (result,) = run(options)
        return result


def serve(client: str, *options: str) -> Iterator[Served]:
    with running("the program", [sys.executable, *SERVE.split(), *options], None, ready="Bellwire serves") as found:
        yield Served(*found, client)


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    yield from serve("stock")


@pytest.fixture(scope="module")
def recovering() -> Iterator[Served]:
    yield from serve("recovering", "--connection-state-recovery")


@pytest.mark.parametrize("load", list(FANOUTS))
@pytest.mark.parametrize("client", ["stock", "v1"])
def test_what_is_published_reaches_everyone(plain: Served, load: str, client: str) -> None:
    result = plain.load(load, client)
    assert isinstance(result, Result)
    assert result.messages > 0
    assert result.cpu > 0
    assert result.shape.variant == FANOUTS[load]


@pytest.mark.parametrize("load", list(FANOUTS))
def test_and_everyone_who_can_come_back(recovering: Served, load: str) -> None:
    assert recovering.load(load).figures["per_second"] > 0


@pytest.mark.parametrize("client", ["stock", "v1"])
def test_beside_another_application_it_is_the_same(plain: Served, client: str) -> None:
    for load in ("roundtrips", "connecting"):
        assert plain.load(f"{load} --namespace {NAMESPACE}", client).shape.connections == 6


@pytest.mark.parametrize(("client", "transport"), [("stock", ""), ("polling", "polling")])
def test_clients_can_be_idle(plain: Served, client: str, transport: str) -> None:
    result = plain.load(f"idle --namespace {NAMESPACE}", client)
    assert result.shape == ("idle", 6, 0, 0, transport)
    assert set(result.figures) == {"bytes_each", "core_percent"}


@pytest.mark.parametrize("client", ["stock", "v1", "polling"])
def test_a_namespace_that_is_not_served_is_told(plain: Served, client: str) -> None:
    with pytest.raises(RefusedError, match=r"the server refused the namespace: 'Invalid namespace'$"):
        plain.load(f"{'idle' if client == 'polling' else 'connecting'} --namespace /elsewhere", client)


def test_results_come_from_a_process_of_its_own(plain: Served) -> None:
    (result,) = measure(plain.words("roundtrips", "stock"), plain.port, plain.process, None)
    assert result.shape == ("echo", 6, 200, 1, "")
