"""The ground floor: errors, configuration, events, counters and time. It imports nothing of Bellwire."""
