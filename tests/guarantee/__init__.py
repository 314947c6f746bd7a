"""The guarantee from end to end: real servers, brokers and clients, and everything between them breaks."""
