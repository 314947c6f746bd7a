"""One message to many sockets: encoded and framed once, joined per room and tick, one write for each connection.

What is broadcast during a tick is kept as it came. When the tick ends, neighbouring messages to the same audience are
joined once, and each member is handed the common bytes.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Message, Outgoing, join
from bellwire.transports.tick import Tick

if TYPE_CHECKING:
    from bellwire.server.socket import Socket


class Fanout:
    """The broadcasts of this tick, in order."""

    __slots__ = ("_counters", "_pending", "_tick")

    def __init__(self, tick: Tick, counters: Counters) -> None:
        self._tick = tick
        self._counters = counters
        self._pending: list[tuple[Collection[Socket], list[Outgoing], bool]] = []
        tick.settle = self.settle

    def cast(self, audience: "Collection[Socket]", message: Outgoing, *, volatile: bool = False) -> None:
        """Send ``message`` to everyone in ``audience`` as it is now. Whoever changes a room's members settles first."""
        pending = self._pending
        if pending:
            last_audience, messages, was_volatile = pending[-1]
            if last_audience is audience and was_volatile is volatile:
                messages.append(message)
                return
        pending.append((audience, [message], volatile))
        self._tick.wake()

    def settle(self) -> None:
        """Hand what is pending to the carriers, in order. They write at the end of the tick."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        for audience, messages, volatile in pending:
            run = messages[0] if len(messages) == 1 else join(messages)
            if volatile:
                self._hand_volatile(audience, run, len(messages))
            else:
                for socket in audience:
                    socket.sink.send(run)

    def _hand_volatile(self, audience: "Collection[Socket]", run: Message, count: int) -> None:
        for socket in audience:
            sink = socket.sink
            if sink.writable:
                sink.send(run)
            else:
                self._counters.dropped("volatile", reason="buffer_full", policy="oldest_kept", n=count)
