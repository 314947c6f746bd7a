import re
from collections.abc import Callable

import pytest
from bench.__main__ import main

from bench import ROOT, model, soak


def test_no_command_takes_a_number_that_is_not_looked_at() -> None:
    code = "".join(file.read_text() for file in (ROOT / "bench").glob("*.py"))
    unseen = set(re.findall(r'"--(\w+)", type=(?:int|float)\b', code))
    assert unseen == {"port", "server", "attend", "observe"}, "ports and processes, for the parts that it starts itself"


@pytest.mark.parametrize(
    ("command", "words", "why"),
    [
        (main, "--seconds nan", "'nan' is no number above 0"),
        (soak.main, "--share 1.5", "'1.5' is more than 1, the whole"),
        (soak.main, "--connections 0", "'0' is no number from 1 on"),
        (soak.main, "--minutes 0.2", "give a longer time, or --every 4 or less"),
        (soak.main, "--minutes 2", "120 s are no 3 lines of 60 s, which a verdict takes"),
        (model.main, "--nodes 0 --connections 10", "'0' is no number from 1 on"),
        (model.main, "--connections 10", "--nodes"),
        (model.main, "--client guest", "--nodes"),
    ],
)
def test_a_command_says_which_number_is_wrong(
    command: Callable[[list[str]], None], words: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command(words.split())
    assert end.value.code == 2
    assert why in capsys.readouterr().err


def test_the_model_reckons_with_so_many_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    model.main(["--nodes", "2"])
    assert capsys.readouterr().out.startswith("| | 100,000 on 2 |\n")
