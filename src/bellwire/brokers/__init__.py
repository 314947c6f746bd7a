"""Brokers: where streams are logged and published, and what the nodes of a cluster must agree on is kept."""
