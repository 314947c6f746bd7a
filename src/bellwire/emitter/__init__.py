"""Emitting from programs that are no servers."""
