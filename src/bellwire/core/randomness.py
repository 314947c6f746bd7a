"""Random bytes for ids that nobody may guess: the kernel's, fetched many at a time.

A system call for each id costs more than all else that an id takes. No byte is given out twice, a process that was
forked off among others: it begins with bytes of its own.
"""

import os
from io import BytesIO
from typing import Final

__all__ = ["random_bytes"]

BLOCK: Final = 4_096
"""Bytes that are fetched at a time, enough for 200 clients; what is left of a block that is too short is let go."""

_block = BytesIO()


def random_bytes(count: int) -> bytes:
    """Return ``count`` random bytes."""
    taken = _block.read(count)
    return taken if len(taken) == count else _fetched(count)


def _fetched(count: int) -> bytes:
    if count > BLOCK:
        return os.urandom(count)
    _forget()
    _block.write(os.urandom(BLOCK))
    _block.seek(0)
    return _block.read(count)


def _forget() -> None:
    _block.seek(0)
    _block.truncate()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)
