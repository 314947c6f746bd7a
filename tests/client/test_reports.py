from bellwire import EventRefused
from bellwire.client.reports import DeadLetter, Failed, Reset


def test_what_they_say() -> None:
    error = EventRefused("no", "x")
    assert Reset("r7Xw", "truncated")._fields == ("room", "reason")
    assert DeadLetter("say", ("hi",), error)._fields == ("event", "payload", "error")
    assert Failed("say", error)._fields == ("event", "error")
