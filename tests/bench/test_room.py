"""A huge room, ten times smaller than in the bench: everyone is served, and nobody else waits for it."""

import json
import subprocess
import sys
from pathlib import Path

from bench.room import Room, text

MEMBERS, BATCH = 10_000, 1_024


def measured(tmp_path: Path, *options: str) -> Room:
    """Measure in another process: it looks at its own memory while its loop runs."""
    file = tmp_path / "room.json"
    command = [sys.executable, "-m", "bench.room", *options, "--json", str(file)]
    said = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert not said.returncode, said.stderr
    return Room(**json.loads(file.read_text()))


def test_a_huge_room_is_served_and_others_wait_for_a_few_batches_only(tmp_path: Path) -> None:
    found = measured(tmp_path, "--members", str(MEMBERS), "--messages", "3", "--burst", "500")
    assert 0 < found.ahead <= 3 * BATCH
    assert found.p50 <= found.p99
    assert found.member_bytes < 2_000
    assert found.burst_bytes < 2_000, "what waits is kept once: 500 events of 150 bytes would be 75,000"
    assert "10,000 members, batches of 1,024" in text(found)


def test_without_batches_others_wait_for_all_of_it(tmp_path: Path) -> None:
    found = measured(tmp_path, "--members", "2000", "--batch", "2000", "--messages", "1", "--burst", "1")
    assert found.ahead == 2_000
