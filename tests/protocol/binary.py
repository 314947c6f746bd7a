"""What stands for binary data in the JSON of a packet."""


def placeholder(number: object) -> dict[str, object]:
    return {"_placeholder": True, "num": number}
