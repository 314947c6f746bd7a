"""The same small program on every server that is measured.

The event ``pub`` with a text is sent on to everyone in the namespace as ``msg``; the event ``echo`` with a
text is acknowledged with that text.
"""
