"""One message to many sinks at once: what the kernel takes is written at a stretch, the rest is sent."""

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Sink
from bellwire.transports.descriptor import write_each


class Volley:
    """A message, and whom it goes to. Between the first `add` and `fire` nothing else may happen to the sinks."""

    __slots__ = ("_descriptors", "_direct", "_message", "_others")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._descriptors: list[int] = []
        self._direct: list[Sink] = []  # whose they are
        self._others: list[Sink] = []

    def add(self, sink: Sink) -> None:
        """It goes to ``sink`` as well."""
        descriptor = sink.outlet()
        if descriptor < 0:
            self._others.append(sink)
        else:
            self._descriptors.append(descriptor)
            self._direct.append(sink)

    def fire(self) -> None:
        """Write it, or send it where that is not possible."""
        if self._direct:
            write_each(self._direct, self._descriptors, [self._message.frames] * len(self._direct))
        for sink in self._others:
            sink.send(self._message)
