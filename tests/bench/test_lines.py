from xml.etree import ElementTree

from bench.curve import FLAT, LINEAR, Curve
from bench.lines import COLUMNS, STEEP, svg
from bench.plot import OURS

from bellwire.load.machine import Machine

MACHINE = Machine("A <CPU>", 2, "Linux 6", "CPython 3.11", 0.1)
SVG = "{http://www.w3.org/2000/svg}"
RISING = Curve.of("an emit & more", "members", "us", LINEAR, (1, 10, 100), (11, 20, 110))
WRONG = Curve.of("a leave", "rooms", "us", FLAT, (1, 10, 100), (1, 10, 100))


def drawn(*curves: Curve) -> ElementTree.Element:
    return ElementTree.fromstring(svg(curves, MACHINE))


def test_a_curve_is_a_dot_for_each_point_and_a_line_through_them() -> None:
    picture = drawn(RISING)
    dots = list(picture.iter(f"{SVG}circle"))
    assert [dot.get("fill") for dot in dots] == [OURS] * 3
    heights = [float(dot.get("cy") or 0) for dot in dots]
    assert heights == sorted(heights, reverse=True)
    (line,) = picture.iter(f"{SVG}polyline")
    assert (line.get("points") or "").count(",") > 3


def test_it_says_what_is_drawn_and_where_it_was_measured() -> None:
    said = ["".join(text.itertext()) for text in drawn(RISING).iter(f"{SVG}text")]
    assert said == [
        "A <CPU>, 2 cores; Linux 6; CPython 3.11",
        "an emit & more",
        "us, by members",
        "1: 11.0",
        "100: 110",
    ]


def test_what_is_too_steep_stands_out() -> None:
    assert [dot.get("fill") for dot in drawn(WRONG).iter(f"{SVG}circle")] == [STEEP] * 3


def test_they_stand_in_rows_beside_each_other() -> None:
    frames = list(drawn(*[RISING] * (COLUMNS + 1)).iter(f"{SVG}rect"))[1:]
    places = [(frame.get("x"), frame.get("y")) for frame in frames]
    assert len({x for x, _ in places}) == COLUMNS
    assert places[0][0] == places[COLUMNS][0]
    assert places[0][1] != places[COLUMNS][1]


def test_nothing_measured_is_no_error() -> None:
    assert len(list(drawn(Curve.of("x", "y", "us", FLAT, (0, 1), (0, 0))).iter(f"{SVG}circle"))) == 2
