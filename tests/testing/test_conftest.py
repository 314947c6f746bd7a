import time
from pathlib import Path

import pytest
from blockbuster import BlockingError

CONFTEST = Path(__file__).parents[1] / "conftest.py"


async def test_a_blocking_call_in_a_loop_is_an_error() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        time.sleep(0.001)  # noqa: ASYNC251  # this is the offence


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(
        test_some="""
        import pytest

        def test_skips():
            pytest.skip("no Redis here")

        @pytest.mark.skipif(True, reason="wrong platform")
        def test_marked():
            pass

        @pytest.mark.xfail(strict=True, reason="known")
        def test_known():
            assert False
        """,
        test_module="import pytest\npytest.importorskip('no_such_module', reason='not installed')",
    )
    return pytester


def test_a_skip_is_a_failure_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_subprocess("--continue-on-collection-errors")
    result.assert_outcomes(failed=1, errors=2, xfailed=1)
    text = result.stdout.str()
    assert "in CI nothing is skipped: Skipped: no Redis here" in text
    assert "in CI nothing is skipped: Skipped: wrong platform" in text
    assert "in CI nothing is skipped: Skipped: not installed" in text


def test_elsewhere_a_skip_is_a_skip(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    suite.runpytest_subprocess().assert_outcomes(skipped=3, xfailed=1)
