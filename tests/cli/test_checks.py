"""What the doctor finds on this machine, in settings, certificates and brokers."""

import datetime
import math
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from bellwire import Config
from bellwire.cli import checks
from bellwire.cli.certificate import load
from bellwire.cli.checks import EXPIRES_SOON, Finding
from bellwire.core import open_files
from tests.brokers.redis_server import RedisServer

AUTHORITY = trustme.CA()


def issue(folder: Path, days: float) -> tuple[Path, Path]:
    """A certificate that is valid for so many days more, and its key."""
    leaf = AUTHORITY.issue_cert(
        "localhost",
        not_after=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days),
        not_before=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=100),
    )
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    return chain, key


def statuses(found: list[Finding], check: str) -> list[str]:
    return [finding.status for finding in found if finding.check == check]


def test_the_machine_is_looked_at() -> None:
    found = list(checks.machine())
    assert {"open files", "event loop"} <= {finding.check for finding in found}
    assert all(finding.remedy for finding in found if finding.status != "ok")


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ((65_536, 65_536), ("ok", "65,536 at a time", "")),
        ((1_024, math.inf), ("ok", "any number at a time, 1,024 under another server than bellwire run", "")),
        ((1_024, 4_096), ("warn", "4,096 at a time, and each connection is one", open_files.MORE)),
    ],
)
def test_few_open_files_are_told_with_where_more_are_allowed(
    limits: tuple[float, float], found: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "limits", lambda: limits)
    assert next(finding[1:] for finding in checks.machine() if finding.check == "open files") == found


@pytest.mark.parametrize(("days", "status"), [(90, "ok"), (13, "warn"), (-1, "fail")])
def test_a_certificate_is_told_of_before_it_expires(tmp_path: Path, days: int, status: str) -> None:
    found = list(checks.certificate(*issue(tmp_path, days)))
    assert [finding.status for finding in found] == [status]
    assert ("expire" in found[0].message) is (status != "ok")


def test_its_end_is_that_of_the_leaf(tmp_path: Path) -> None:
    chain, key = issue(tmp_path, 30)
    ends = checks.expiry(load(chain, key), chain)
    assert abs(ends - time.time() - 30 * 86_400) < 3_600
    assert checks.lasting("TLS", "x", time.time() + EXPIRES_SOON + 60).status == "ok"
    assert ssl.cert_time_to_seconds("Jan  1 00:00:00 2000 GMT") < ends


def test_a_key_of_another_certificate_fails_and_one_that_all_may_read_is_told(tmp_path: Path) -> None:
    chain, key = issue(tmp_path, 90)
    key.chmod(0o644)
    assert statuses(list(checks.certificate(chain, key)), "TLS") == ["ok", "warn"]
    issue(tmp_path, 90)[0].rename(tmp_path / "other.pem")
    (found,) = checks.certificate(chain.with_name("none.pem"), key)
    assert found.status == "fail"


@pytest.mark.parametrize(
    ("config", "check", "status"),
    [
        (Config(), "origins", "ok"),
        (Config(allowed_origins=("*",)), "origins", "warn"),
        (Config(behind_proxy=("10.0.0.0/8",)), "proxies", "ok"),
        (Config(behind_proxy=("0.0.0.0/0",)), "proxies", "warn"),
        (Config(behind_proxy=("::/0",)), "proxies", "warn"),
        (Config(), "TLS", "ok"),
        (Config(tls_cert="none.pem"), "TLS", "fail"),
    ],
)
def test_settings_that_leave_too_much_open_are_told(config: Config, check: str, status: str) -> None:
    assert statuses(list(checks.settings(config)), check) == [status]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.bellwire(clock="real")
async def test_a_broker_is_asked_for_its_answer_and_its_time(redis: RedisServer) -> None:
    found = await checks.broker(Config(broker=redis.url))
    assert statuses(found, "clock") == ["ok"]
    assert re.search(r"answers in \d+\.\d\d ms", found[0].message), "one on the same machine needs less than 0.05"
    (gone,) = await checks.broker(Config(broker="redis://:secret@127.0.0.1:1"))
    assert gone.status == "fail"
    assert "secret" not in gone.message
    (memory,) = await checks.broker(Config())
    assert memory.status == "ok"


class Ahead:
    """A broker's clock that goes an hour ahead."""

    def clock(self) -> float:
        return time.time() + 3600


def test_a_clock_that_is_beside_the_brokers_is_told() -> None:
    found = checks._skew(Ahead())  # type: ignore[arg-type]  # of a broker it asks for nothing else
    assert found.status == "warn"
    assert "3600.0 s behind the broker's" in found.message
