"""What ``bellwire doctor`` looks at on this machine, each with what to do about it."""

import asyncio
import importlib.util
import math
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from bellwire.brokers.base import Broker
from bellwire.brokers.urls import make_broker
from bellwire.cli.certificate import CertificateError, load
from bellwire.core import open_files
from bellwire.core.config import Config, shown
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError
from bellwire.guard.proxies import Proxies
from bellwire.ops.readiness import PROBE

Status: TypeAlias = Literal["ok", "warn", "fail"]

FEW_FILES: Final = 10_000
"""Open files, one for each connection; what most systems allow a program by default is 1,024."""

BACKLOG: Final = 2048
"""Connections that uvicorn lets wait to be accepted; the kernel allows no more than ``somaxconn``."""

EXPIRES_SOON: Final = 14 * 86_400.0
"""Seconds; whoever renews by itself, such as certbot, does so 30 days before."""

SLOW_BROKER: Final = 0.02
"""Seconds of a round trip; each event that is kept waits for one."""

SKEW: Final = 1.0
"""Seconds that this machine's clock may be beside the broker's; tokens and sessions run out by them."""

BROKER_WITHIN: Final = 10.0
"""Seconds that the broker has to answer."""


class Finding(NamedTuple):
    """What was found, and, unless it is ``ok``, what to do."""

    check: str
    status: Status
    message: str
    remedy: str = ""


def machine() -> Iterator[Finding]:
    """What any server needs of the machine and of what is installed."""
    yield _open_files()
    yield _fast_loop()
    yield from _backlog()


def _open_files() -> Finding:
    soft, hard = open_files.limits()
    found = f"{_files(hard)} at a time"
    if hard < FEW_FILES:
        return Finding("open files", "warn", f"{found}, and each connection is one", open_files.MORE)
    others = "" if soft == hard else f", {_files(soft)} under another server than bellwire run"
    return Finding("open files", "ok", f"{found}{others}")


def _files(limit: float) -> str:
    return "any number" if limit == math.inf else f"{limit:,}"


def _fast_loop() -> Finding:
    missing = [name for name in ("uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        return Finding("event loop", "warn", f"{' and '.join(missing)} missing: it serves several times slower", remedy)
    return Finding("event loop", "ok", "uvloop and httptools")


def _backlog() -> Iterator[Finding]:
    for name, least in (("net.core.somaxconn", BACKLOG), ("net.ipv4.tcp_max_syn_backlog", BACKLOG // 2)):
        with suppress(OSError, ValueError):  # no Linux
            allowed = int(Path("/proc/sys", *name.split(".")).read_text())
            if allowed < least:
                message = f"{name} = {allowed}: when many come back at once, their connections are dropped"
                yield Finding("backlog", "warn", message, f"sysctl -w {name}=4096, and in /etc/sysctl.d")
            else:
                yield Finding("backlog", "ok", f"{name} = {allowed}")


def settings(config: Config) -> Iterator[Finding]:
    """What the settings leave open."""
    if "*" in config.allowed_origins:
        yield Finding(
            "origins", "warn", "any page may connect, with the cookies of whoever looks at it", "name the pages"
        )
    else:
        named = ", ".join(config.allowed_origins)
        yield Finding("origins", "ok", f"the server's own pages{f', and {named}' if named else ' only'}")
    proxies = Proxies(config.behind_proxy)
    if proxies.trusts("203.0.113.1") or proxies.trusts("2001:db8::1"):  # documentation's: nobody's (RFC 5737, RFC 3849)
        yield Finding("proxies", "warn", "anybody's X-Forwarded headers are believed", "name the proxy's own network")
    elif proxies:
        yield Finding("proxies", "ok", f"{', '.join(config.behind_proxy)}: clients have to come over TLS")
    if config.tls_cert:
        yield from certificate(Path(config.tls_cert), Path(config.tls_key) if config.tls_key else None)
    elif not proxies:
        yield Finding("TLS", "ok", "none: the server is for this machine only")


def certificate(chain: Path, key: Path | None) -> Iterator[Finding]:
    """Whether a certificate can be served with, and for how long."""
    try:
        context = load(chain, key)
    except CertificateError as error:
        yield Finding("TLS", "fail", error.message, "give files in PEM that belong together")
        return
    try:
        ends = expiry(context, chain)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or str(error)
        yield Finding("TLS", "fail", f"{chain}: {reason}", "renew it, then SIGHUP has it read again")
    else:
        yield lasting("TLS", str(chain), ends)
    secret = key or chain
    if sys.platform != "win32" and secret.stat().st_mode & 0o077:
        yield Finding("TLS", "warn", f"others on this machine can read {secret}", f"chmod 600 {secret}")


def lasting(check: str, name: str, ends: float) -> Finding:
    """Whether a certificate lasts long enough; it ``ends`` at a time in seconds since the epoch."""
    left = ends - time.time()
    day = time.strftime("%Y-%m-%d", time.gmtime(ends))
    if left < EXPIRES_SOON:
        return Finding(check, "warn", f"{name} expires on {day}", "renew it, then SIGHUP has it read again")
    return Finding(check, "ok", f"{name} is valid until {day}")


def expiry(server: ssl.SSLContext, chain: Path) -> float:
    """When the certificate of ``server`` ends, in seconds since the epoch, as a client in memory is shown it.

    Raises:
        ssl.SSLError: it has expired, or its time has not begun.

    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is trusted itself: only its time is looked at
    client.load_verify_locations(chain)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (theirs, ours) * 2:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown_to = theirs.getpeercert()
    assert shown_to is not None  # noqa: S101 - the handshake is over
    return ssl.cert_time_to_seconds(str(shown_to["notAfter"]))


async def broker(config: Config) -> list[Finding]:
    """Whether the broker answers and has what it takes, how quickly, and what time it has."""
    address = shown("broker", config.broker)
    if config.broker == "memory://":
        return [Finding("broker", "ok", "memory://: one process, and what it keeps ends with it")]
    try:
        found = make_broker(config.broker, None, Counters(), prefix=config.prefix)
        async with asyncio.timeout(BROKER_WITHIN):
            await found.start()
    except (BellwireError, TimeoutError) as error:
        reason = str(error) or f"no answer within {BROKER_WITHIN:g} s"
        return [Finding("broker", "fail", f"{address}: {reason}", "start it, or mend the address or what it lacks")]
    try:
        async with asyncio.timeout(BROKER_WITHIN):
            return [await _round_trip(found, address), _skew(found)]
    except (BellwireError, TimeoutError) as error:
        return [Finding("broker", "fail", f"{address}: {str(error) or 'no answer any more'}", "look at its log")]
    finally:
        await found.close()


async def _round_trip(found: Broker, address: str) -> Finding:
    times = []
    for _ in range(9):
        began = time.monotonic()
        await found.get(PROBE)
        times.append(time.monotonic() - began)
    took = statistics.median(times)
    message = f"{address} answers in {took * 1000:.2f} ms"
    if took > SLOW_BROKER:
        return Finding("broker", "warn", message, "bring it nearer: each event that is kept waits for it")
    return Finding("broker", "ok", message)


def _skew(found: Broker) -> Finding:
    ahead = time.time() - found.clock()
    if abs(ahead) > SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        return Finding("clock", "warn", f"{abs(ahead):.1f} s {side} the broker's", "run an NTP client on both")
    return Finding("clock", "ok", f"within {SKEW:g} s of the broker's")
