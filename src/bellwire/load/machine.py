"""On what a measurement was made, and which core does what."""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bellwire.transports import descriptor

BUSY = 0.5
"""From this load average on, before the run, the numbers deserve a warning."""


@dataclass(frozen=True)
class Machine:
    """The machine, as far as numbers depend on it."""

    cpu: str
    cores: int
    system: str
    python: str
    load_before: float
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Others were computing when the run began."""
        return self.load_before >= BUSY


def describe(packages: Iterable[str]) -> Machine:
    """Describe this machine now, with the versions of these packages."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}{_without()}",
        load_before=os.getloadavg()[0],
        packages={name: _version(name) for name in packages},
    )


def cores() -> tuple[int | None, int | None]:
    """The core of the server and the core of the load generator; none of their own on a single core."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _without() -> str:
    """Say what is slower here than it could be."""
    return ", nothing compiled" if descriptor.write_all is descriptor.write_in_python else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
