"""Records as the scripts of Redis write them."""

import msgspec

from bellwire.brokers.redis_streams import VERSION
from bellwire.delivery.entry import Draft
from bellwire.delivery.position import START, Point


def record(seq: int, prev: Point = START, tag: int | None = None, at: float = 1.5) -> bytes:
    """An entry whose tag is eleven times its number unless it is another."""
    draft = Draft(f"m{seq}", 11 * seq if tag is None else tag, b"body")
    head = f"{seq} {draft.tag} {prev.seq} {prev.tag} {at * 1e6:.0f} 70\n"
    return head.encode() + VERSION + msgspec.msgpack.encode(draft)
