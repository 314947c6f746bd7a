from xml.etree import ElementTree

from bench.contestants import BUN, PLAIN
from bench.plot import OURS, PEER, svg
from bench.report import Row
from bench.spread import Spread

from bellwire.load.machine import Machine
from bellwire.load.result import MEMORY, RATE, Shape

MACHINE = Machine("A <CPU> & more", 2, "Linux 6", "CPython 3.11", 0.1)
SVG = "{http://www.w3.org/2000/svg}"


def row(server: str, figure: str, median: float, high: float) -> Row:
    return Row(Shape("fanout", 10, 16, 1), server, {figure: Spread(median, 0.0, high)}, {}, 0.5)


def drawn(*rows: Row) -> ElementTree.Element:
    return ElementTree.fromstring(svg(rows, MACHINE))


def test_bars_are_as_long_as_their_medians() -> None:
    picture = drawn(row(PLAIN, RATE, 100.0, 200.0), row(BUN, RATE, 50.0, 60.0))
    _, ours, peer = picture.iter(f"{SVG}rect")
    assert (ours.get("fill"), peer.get("fill")) == (OURS, PEER)
    assert float(ours.get("width") or 0) == 2 * float(peer.get("width") or 0)


def test_it_says_where_and_what_and_how_much() -> None:
    said = ["".join(text.itertext()) for text in drawn(row(PLAIN, MEMORY, 3_702.4, 4_000.0)).iter(f"{SVG}text")]
    assert said == [
        "A <CPU> & more, 2 cores; Linux 6; CPython 3.11",
        "Fan-out, 10 connections, 16 B, one message at a time (bytes each; less is better)",
        PLAIN,
        "3,702",
    ]


def test_nothing_measured_is_no_error() -> None:
    assert len(list(drawn(row(PLAIN, RATE, 0.0, 0.0)).iter(f"{SVG}rect"))) == 2
    assert len(list(drawn().iter(f"{SVG}rect"))) == 1
