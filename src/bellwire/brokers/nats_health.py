"""Whether a nats-server can still write: a stream whose write failed once takes nothing more until it is restarted.

That is so even when there is room on the disk again, and nobody is told: messages to it are just not acknowledged. The
server's ``/healthz`` knows (nats-server, "Monitoring"): status 503, and a JSON object with the fault under ``error``.
Other faults, such as streams that are still being read after a start, pass by themselves.
"""

import asyncio
import contextlib
import json
from typing import Final

ANSWERS_WITHIN: Final = 5.0
_MOST: Final = 65_536
_WRITE_ERROR: Final = "write error"


async def write_error(port: int, base: str = "") -> str | None:
    """Return the write that failed on a nats-server with its monitoring at ``port``, under the path ``base``.

    None if none did, or if it does not answer: that alone says nothing about what it writes.
    """
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        async with asyncio.timeout(ANSWERS_WITHIN):
            head, body = await _get(port, base)
        if b" 503 " in head.partition(b"\r\n")[0]:
            fault = str(json.loads(body)["error"])
            return fault if _WRITE_ERROR in fault else None
    return None


async def _get(port: int, base: str) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {base}/healthz HTTP/1.0\r\n\r\n".encode())
        answer = await _read(reader)
    finally:
        writer.transport.abort()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def _read(reader: asyncio.StreamReader) -> bytes:
    parts = []
    size = 0
    while size < _MOST and (part := await reader.read(_MOST)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
