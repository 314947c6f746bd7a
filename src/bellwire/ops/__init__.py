"""What those who run a server need of it: whether it is ready."""
