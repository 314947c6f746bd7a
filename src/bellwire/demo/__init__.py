"""The demo: a chat in a browser page, served by Bellwire itself (``bellwire demo``)."""
