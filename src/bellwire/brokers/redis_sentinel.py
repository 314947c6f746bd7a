"""Which server is the master: Sentinels are asked, one after the other, before each connection.

They are asked without a password. What one answers may be late: whether a server is a master now it says itself.
"""

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Link, Refused, Unanswered
from bellwire.core.errors import BrokerUnavailable


async def locate(address: RedisAddress) -> RedisAddress:
    """Return the address of the one server to connect to; without Sentinels it is ``address`` itself.

    Raises:
        BrokerUnavailable: no Sentinel knows.

    """
    if not address.sentinels:
        return address
    faults = []
    for host, port in address.sentinels:
        try:
            master = await _ask(RedisAddress(host, port, address.encrypted), address.service)
        except BrokerUnavailable as error:
            faults.append(f"{host}:{port}: {error}")
        else:
            return address._replace(host=master[0], port=master[1], sentinels=(), service="")
    raise BrokerUnavailable(f"no Sentinel knows the master of {address.service!r}: {'; '.join(faults)}")


async def _ask(sentinel: RedisAddress, service: str) -> tuple[str, int]:
    link = Link()
    await link.open(sentinel)
    try:
        answer = await link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        if answer is None:
            raise BrokerUnavailable("it knows no such name")
        host, port = answer
        return host.decode(), int(port)
    except (Refused, Unanswered, ValueError, TypeError) as error:
        raise BrokerUnavailable(str(error) or type(error).__name__) from error
    finally:
        link.close()
