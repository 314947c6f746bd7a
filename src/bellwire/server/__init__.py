"""The server that applications talk to: namespaces, sockets, rooms, fan-out."""
