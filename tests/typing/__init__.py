"""What type checkers see."""  # noqa: A005
