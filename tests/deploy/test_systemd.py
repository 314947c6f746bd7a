"""systemd's own opinion of the units, and what they say about Bellwire."""

import getpass
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bellwire import Config
from tests.cli.process import bellwire, write_application
from tests.deploy.fronts import RECIPES, render

PROGRAM = shutil.which("systemd-analyze")

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.skipif(PROGRAM is None, reason="systemd-analyze is not installed"),
]

each_unit = pytest.mark.parametrize("unit", ["bellwire.service", "bellwire@.service"])


def installed(unit: str, folder: Path) -> Path:
    """A unit whose user and program exist on this machine."""
    here = {"User=chat": f"User={getpass.getuser()}", "/srv/chat/.venv/bin/bellwire": sys.executable}
    path = folder / unit
    path.write_text(render(f"systemd/{unit}", here))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROGRAM is not None
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=30, check=False)


@each_unit
def test_systemd_has_nothing_to_complain_of(unit: str, tmp_path: Path) -> None:
    said = analyze("verify", "--man=no", "--recursive-errors=no", str(installed(unit, tmp_path)))
    assert (said.stdout, said.stderr) == ("", "")  # of a setting that it does not know it says so, and ends with 0


@each_unit
def test_what_a_program_that_was_taken_over_can_reach_is_little(unit: str, tmp_path: Path) -> None:
    said = analyze("security", "--offline=true", "--threshold=20", str(installed(unit, tmp_path)))
    assert said.returncode == 0, said.stdout


@each_unit
def test_there_is_time_to_stop(unit: str) -> None:
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", (RECIPES / "systemd" / unit).read_text(), re.MULTILINE)
    assert seconds is not None
    assert int(seconds[1]) > 2 * Config().shutdown_grace


@each_unit
def test_the_command_line_is_one_of_bellwire(unit: str, tmp_path: Path) -> None:
    """It is run as it is written, with the application of a test; the start is over when it can be connected to."""
    text = (RECIPES / "systemd" / unit).read_text()
    command = re.search(r"^ExecStart=\S+/bellwire (.+)$", text, re.MULTILINE)
    assert command is not None
    write_application(tmp_path)
    (tmp_path / "bellwire.toml").touch()
    arguments = command[1].replace("chat.server:server", "app:server").replace("/var/lib/bellwire", "data")
    arguments = arguments.replace("%i", "8001")
    port = re.search(r"--port \d+", arguments)
    assert port is not None
    with bellwire(*arguments.replace(port[0], "--port 0").split(), cwd=tmp_path) as process:
        listening = str(process.port())
        after = re.search(r"^ExecStartPost=/bin/bash -c '(.+)'$", text, re.MULTILINE)
        if after is not None:
            subprocess.run(["/bin/bash", "-c", after[1].replace("%i", listening)], timeout=20, check=True)
        process.process.terminate()
        assert process.end()[0] == 0
