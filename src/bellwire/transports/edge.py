"""What a request has to pass on the node that it has come to, before anything else is done with it."""

import logging
import math
import random
from typing import Final, Protocol

from bellwire.core import open_files
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.rate import parse_rate
from bellwire.guard.address import address_key, is_loopback
from bellwire.guard.newcomers import Newcomers
from bellwire.guard.origin import Origins, Verdict, parse_origin
from bellwire.guard.proxies import Proxies, is_local
from bellwire.guard.rates import Buckets
from bellwire.protocol.engineio import FORBIDDEN, RequestError, refuse_request
from bellwire.transports.base import Request, Scope

logger = logging.getLogger("bellwire.transports")

FORBIDDEN_ORIGIN: Final = "forbidden_origin: pages of this origin may not connect"
TLS_REQUIRED: Final = "tls_required: connect over https or wss"
TOO_MANY_CONNECTS: Final = "too_many_connects: this address has opened too many sessions, come again"
TOO_MANY_HALF_OPEN: Final = "too_many_half_open: too many are connecting, come again"

RETRY_AFTER: Final = (1, 5)
"""Seconds after which those who were turned away may come again: spread, or they would all come at once."""


SPEAKS_WITHIN: Final = 1.0
"""Seconds that a connection has for its first request however many there are: who comes with a thousand others at once
is read from when it is his turn."""


class Silent(Protocol):
    """A connection on which no head of a request has come yet."""

    def hang_up(self) -> None:
        """End it at once."""


class Edge:
    """Looks through trusted proxies, and turns away who may not come in."""

    __slots__ = (
        "_connects",
        "_counters",
        "_last_file",
        "_most",
        "_origins",
        "_proxies",
        "_silent",
        "_told",
        "newcomers",
    )

    def __init__(self, config: Config, counters: Counters) -> None:
        self._origins = Origins(config.allowed_origins)
        self._proxies = Proxies(config.behind_proxy)
        self._counters = counters
        rate = parse_rate(config.connect_rate_per_address)
        self._connects: Buckets[str] | None = None if rate is None else Buckets(rate)
        self._most = config.half_open
        self._last_file = open_files.limits()[0] - 1
        self.newcomers = Newcomers(self._most, config.half_open_per_address, self._stands_for_many)
        """The sessions that have not joined a namespace yet."""
        self._silent: dict[Silent, float] = {}
        self._told: set[str] = set()

    def enter(self, request: Request) -> Verdict | None:
        """Let ``request`` in, and have it show its client in place of a proxy; return what the origin check said.

        None is for a request without an ``Origin``, which no page has made.

        Raises:
            RequestError: it came without TLS to a server behind proxies, or from a page that may not connect.

        """
        headers = request.headers
        seen = self._proxies.see(request.client, request.scheme, headers)
        request.client, request.scheme = seen.client, seen.scheme
        if seen.scheme != "https" and (seen.proxied or not is_local(seen.client)):
            self._without_tls()
        origin = headers.get("origin")
        if origin is None:
            return None
        own = f"{seen.scheme}://{seen.host}"
        verdict = self._origins.judge(origin, parse_origin(own))
        if verdict is Verdict.REFUSED:
            raise self._foreign(origin, own)
        return verdict

    def welcome(self, request: Request, now: float) -> None:
        """See whether there is a place for the new session that ``request``, which was let in, is about to open.

        Raises:
            RequestError: there is none, or its address has opened too many in the time until ``now``, in seconds.

        """
        wait = self._wait(request.address, now)
        if wait:
            self._counters.add("requests_refused_total", reason="too_many_connects")
            retry_after = math.ceil(wait) + random.randint(0, RETRY_AFTER[1])  # noqa: S311 - nothing secret
            raise RequestError(429, FORBIDDEN, TOO_MANY_CONNECTS, "TOO_MANY_CONNECTS", retry_after)
        if self.newcomers.is_full(request.address):
            self._counters.add("requests_refused_total", reason="too_many_half_open")
            self._tell_once(
                TOO_MANY_HALF_OPEN,
                "refused a connection: too many have not joined a namespace yet (half_open, half_open_per_address)",
            )
            retry_after = random.randint(*RETRY_AFTER)  # noqa: S311 - nothing secret
            raise RequestError(503, FORBIDDEN, TOO_MANY_HALF_OPEN, "TOO_MANY_HALF_OPEN", retry_after)

    def _wait(self, address: str | None, now: float) -> float:
        """The seconds until an address may open one more session; 0.0 if it may now, and does."""
        if self._connects is None or address is None or self._stands_for_many(address):
            return 0.0
        return self._connects.of(address_key(address), now).take(now)

    def knock(self, connection: "Silent", now: float) -> None:
        """A connection has come at the time ``now``, and has sent nothing yet.

        If there are too many such, the one that has been silent for longest makes room: whoever wants something says so
        at once, and would else be shut out by those who do not.
        """
        if len(self._silent) >= self._most:
            longest, since = next(iter(self._silent.items()))
            if now - since > SPEAKS_WITHIN:
                self._counters.add("connections_refused_total", reason="silent")
                self.spoke(longest)
                longest.hang_up()
        self._silent[connection] = now

    def note(self, descriptor: int) -> None:
        """The kernel calls a connection that has come so: by the lowest number that was free (POSIX, §2.6).

        After the last one uvloop closes whoever comes, and tells nobody.
        """
        if descriptor >= self._last_file:
            self._tell_once(
                "open files",
                f"this process has all {self._last_file + 1:,} files open that it may have, and each connection is "
                f"one: clients that come now are cut off without an answer. Allow more with {open_files.MORE}",
            )

    def spoke(self, connection: "Silent") -> None:
        """A connection has said what it wants, or is gone; nothing happens if that is known."""
        self._silent.pop(connection, None)

    def _stands_for_many(self, address: str) -> bool:
        """Whether behind an address there may be all clients: a proxy, one that was not named to us among them."""
        return is_loopback(address) or self._proxies.trusts(address)

    def uncover(self, scope: Scope) -> Scope:
        """Return the ASGI scope with its client in place of a proxy, for an application behind this one."""
        if not self._proxies or scope["type"] not in ("http", "websocket"):
            return scope
        request = Request.from_scope(scope)
        seen = self._proxies.see(request.client, request.scheme, request.headers)
        scheme = seen.scheme if scope["type"] == "http" else seen.scheme.replace("http", "ws")
        return {**scope, "client": seen.client, "scheme": scheme} if seen.proxied else scope

    def _without_tls(self) -> None:
        if self._proxies:
            self._counters.add("requests_refused_total", reason="tls_required")
            self._tell_once(
                TLS_REQUIRED,
                "refused a request that came without TLS: it has to come from a proxy in behind_proxy that says "
                "X-Forwarded-Proto: https",
            )
            raise refuse_request(FORBIDDEN, "TLS_REQUIRED", TLS_REQUIRED)
        self._tell_once(
            "",
            "clients of other machines connect without TLS, and what they say can be read on the way: have a proxy end "
            "TLS and name it in behind_proxy, or serve with bellwire run --tls-cert",
        )

    def _foreign(self, origin: str, own: str) -> RequestError:
        self._counters.add("requests_refused_total", reason="forbidden_origin")
        self._tell_once(
            FORBIDDEN_ORIGIN,
            f"refused a page of {origin[:100]!r}, the server being {own[:100]!r}: name pages that may connect in "
            "allowed_origins, and the proxy that ends TLS in behind_proxy",
        )
        return refuse_request(FORBIDDEN, "FORBIDDEN_ORIGIN", FORBIDDEN_ORIGIN)

    def _tell_once(self, about: str, text: str) -> None:
        """Warn of the first such request; whoever sends many fills no log."""
        if about not in self._told:
            self._told.add(about)
            logger.warning("%s", text)
