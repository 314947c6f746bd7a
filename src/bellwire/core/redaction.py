"""Addresses as they may be shown: without the user, password or token that stand in them."""


def without_secrets(address: str) -> str:
    """Return ``address`` with ``***`` for its userinfo (RFC 3986 section 3.2.1); it need not be well-formed.

    ``nats://user:password@host:4222`` is shown as ``nats://***@host:4222``. The userinfo is taken to reach up to the
    last ``@``, so that a password whose delimiters were not encoded is covered as well.
    """
    scheme, mark, rest = address.partition("://")
    if not mark or "@" in scheme:
        scheme, mark, rest = "", "", address
    _, at, hosts = rest.rpartition("@")
    return f"{scheme}{mark}***@{hosts}" if at else address
