"""The wires, without I/O: bytes in, packets out, and back. No asyncio, no socket, no clock."""
