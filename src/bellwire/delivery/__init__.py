"""The guarantee, without I/O: each accepted message once and in order, or a reset before anything newer.

Time and random bits are given to this floor; it has no asyncio, no socket, no clock of its own.
"""
