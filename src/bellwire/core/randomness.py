"""Random bytes for ids that nobody may guess: the kernel's, fetched many at a time.

A system call for each id costs more than all else that an id takes. No byte is given out twice, a process that was
forked off among others: it begins with bytes of its own.
"""

import os
from io import BytesIO
from typing import Final

__all__ = ["random_bytes", "random_number"]

BLOCK: Final = 4_096
"""Bytes that are fetched at a time, enough for 200 clients; what is left of a block that is too short is let go."""

_block = BytesIO()


def random_bytes(count: int) -> bytes:
    """Return ``count`` random bytes."""
    taken = _block.read(count)
    return taken if len(taken) == count else _fetched(count)


def random_number() -> int:
    """Return a number of 64 random bits."""
    return int.from_bytes(random_bytes(8), "big")


def _fetched(count: int) -> bytes:
    global _block
    if count > BLOCK:
        return os.urandom(count)
    fetched = BytesIO(os.urandom(BLOCK))
    taken = fetched.read(count)
    _block = fetched
    return taken


def _forget() -> None:
    global _block
    _block = BytesIO()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)
