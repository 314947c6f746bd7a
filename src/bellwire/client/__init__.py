"""The asyncio client: one namespace of one server, connected again and again."""
