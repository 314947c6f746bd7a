"""The command as a whole."""

import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from bellwire.cli import main

COMMANDS = ["bench", "check", "demo", "doctor", "publish", "routes", "run", "tail", "token"]


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"bellwire {version('bellwire')}\n"


def test_help_lists_the_commands_in_whole_sentences() -> None:
    output = CliRunner().invoke(main, ["--help"], terminal_width=100).output
    commands = output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command: str) -> None:
    (found,) = (main.commands[name] for name in main.commands if name == command)
    assert found.help
    parts = found.commands.values() if isinstance(found, click.Group) else (found,)
    assert all(part.help for part in parts)
    for parameter in (parameter for part in parts for parameter in part.params):
        if parameter.param_type_name == "option":
            help_ = getattr(parameter, "help", None)
            assert help_, parameter.name
            assert help_[0].isupper(), parameter.name


def test_help_loads_neither_a_server_nor_a_terminal_library() -> None:
    program = "import sys, bellwire.cli; print([m for m in ('uvicorn', 'uvloop', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "bellwire", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.startswith("Usage: python -m bellwire [OPTIONS] COMMAND [ARGS]...")
