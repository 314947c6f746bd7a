import json
import subprocess
import sys
from pathlib import Path

import msgspec
from bench.bus import KINDS
from bench.curve import Found

SMALL = "from bench.bus import bus; print(msgspec.json.encode(bus((0, 1, 2), (2, 4), 30, 20)).decode())"


def measured() -> Found:
    """Measure in another process: it asks the broker in the middle of its loop."""
    command = [sys.executable, "-c", f"import msgspec; {SMALL}"]
    said = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert not said.returncode, said.stderr
    return msgspec.convert(json.loads(said.stdout), Found)


def test_only_nodes_that_serve_the_room_are_told() -> None:
    found = measured()
    together, valkey, out, elsewhere, elsewhere_out = found.curves
    assert [point.x for point in together.points] == [0, 1, 2]
    for curve in (together, valkey, elsewhere):
        assert all(point.y > 1 for point in curve.points), str(curve)
    assert 150 < out.points[1].y - out.points[0].y < 1_000, "a message of 128 B is told once more"
    few, many = elsewhere_out.points
    assert many.y < 1.3 * few.y, "nothing goes to those who do not serve it"
    assert found.constants["broker_message_bytes"] > 128
    for kind in KINDS:
        assert found.constants[f"{kind}_come_us"] > 0
    assert found.constants["guest_come_commands"] < 3 < found.constants["user_come_commands"]
