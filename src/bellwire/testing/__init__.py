"""What tests of an application use: a client in the same process, a virtual clock, a pytest plugin.

::

    async with bellwire.testing.connect(server, "/chat", user="u") as client:
        await client.emit(MESSAGE, draft)
        assert await client.receive(POSTED, timeout=1) == Posted("u", "hello")

Importing it does not need pytest; the plugin is found by pytest itself.
"""

from bellwire.testing.client import TestClient, connect
from bellwire.testing.clock import VirtualClockLoop

__all__ = ["TestClient", "VirtualClockLoop", "connect"]
