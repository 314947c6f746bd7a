"""What stands between a client's bytes and a handler: who it is, and whether the payload is what the event says."""
