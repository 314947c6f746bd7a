"""One message to many sinks: what the kernel takes is written at a stretch, the rest is sent."""

from collections.abc import Sequence

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Sink
from bellwire.transports.descriptor import write_each


def fire(message: Message, sinks: Sequence[Sink]) -> None:
    """Have each of ``sinks`` take ``message``, which is likely to be the last that it is given in this tick."""
    outlets = [sink.outlet for sink in sinks]
    others: list[Sink] = []
    if outlets and min(outlets) < 0:
        others = [sink for sink in sinks if sink.outlet < 0]
        sinks = [sink for sink in sinks if sink.outlet >= 0]
        outlets = [sink.outlet for sink in sinks]
    if outlets:
        write_each(sinks, outlets, [message.frames] * len(outlets))
    for sink in others:
        sink.send(message)
