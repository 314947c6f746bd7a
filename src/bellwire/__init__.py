"""Bellwire: a real-time server for Python."""
