"""What a node that died has left undone is done by another: by the next one that starts, or the first that remains."""

from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.producers import Producers


class Succession:
    """Completes the relays of a node when that is gone (`bellwire.server.cluster.Watcher`)."""

    __slots__ = ("_cluster", "_dispatcher", "_producers")

    def __init__(self, cluster: Cluster, producers: Producers, dispatcher: Dispatcher) -> None:
        self._cluster = cluster
        self._producers = producers
        self._dispatcher = dispatcher
        cluster.watch(self)

    def node_joined(self, node: str) -> None:
        """Nothing is to be done."""

    def node_left(self, node: str) -> None:
        """Its relays are nobody's now. One of us is enough; if it dies too, the next one finds them."""
        if self._cluster.is_first:
            self._dispatcher.start(self._producers.recover(), _recovered)


def _recovered(outcome: Outcome) -> None:
    """Without the broker nothing could be done: who starts next, or sees another node die, tries again."""
