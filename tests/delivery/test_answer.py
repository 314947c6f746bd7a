"""What a log answers: the words that clients are told."""

from bellwire.delivery.answer import Reason


def test_a_reason_is_the_word_that_the_wire_carries() -> None:
    assert [str(reason) for reason in Reason] == [
        "truncated",
        "generation",
        "diverged",
        "too_far",
        "forbidden",
        "session_lost",
    ]
