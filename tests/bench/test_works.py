from bench.contestants import CONTESTANTS
from bench.rounds import servers
from bench.works import FULL, QUICK, Work

from bellwire.load.__main__ import check, parser


def test_the_load_generator_understands_every_work_for_everybody_who_does_it() -> None:
    for work in (*QUICK, *FULL):
        for name in work.who:
            kind, *options = work.load.split()
            words = [kind, "--port", "1", "--client", CONTESTANTS[name].client, *options]
            assert check(parser().parse_args(words)) == "", words


def test_everybody_is_measured() -> None:
    assert {name for work in FULL for name in work.who} == set(CONTESTANTS)


def test_what_must_be_alone_has_a_server_of_its_own() -> None:
    works = [Work("idle", ("a", "b"), alone=True), Work("one", ("a",)), Work("two", ("a", "b"))]
    assert servers("a", works) == [["one", "two"], ["idle"]]
    assert servers("b", works) == [["two"], ["idle"]]
    assert servers("c", works) == []
