"""What a request has to pass on the node that it has come to, before anything else is done with it."""

import logging
from typing import Final

from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.guard.origin import Origins, Verdict, parse_origin
from bellwire.guard.proxies import Proxies, is_local
from bellwire.protocol.engineio import FORBIDDEN, RequestError, refuse_request
from bellwire.transports.base import Request, Scope

logger = logging.getLogger("bellwire.transports")

FORBIDDEN_ORIGIN: Final = "forbidden_origin: pages of this origin may not connect"
TLS_REQUIRED: Final = "tls_required: connect over https or wss"


class Edge:
    """Looks through trusted proxies, and turns away who may not come in."""

    __slots__ = ("_counters", "_origins", "_proxies", "_told")

    def __init__(self, config: Config, counters: Counters) -> None:
        self._origins = Origins(config.allowed_origins)
        self._proxies = Proxies(config.behind_proxy)
        self._counters = counters
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
