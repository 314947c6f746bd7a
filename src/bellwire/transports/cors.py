"""What lets a page of another origin use long-polling: the headers of CORS (WHATWG Fetch, "CORS protocol").

Only a page that the origin check admits is told anything. One that ``*`` alone admits is not told to send cookies: any
page could otherwise act for whoever looks at it. WebSockets need none of this.
"""

import re
from typing import Final

from bellwire.guard.origin import Verdict
from bellwire.transports.base import Request
from bellwire.transports.polling import Response

MAX_AGE: Final = 7200
"""Seconds that a browser remembers the answer to a preflight; Chromium takes no more."""

_NAMES: Final = re.compile(r"[A-Za-z0-9_, -]{0,1024}")


def is_preflight(request: Request, method: str) -> bool:
    """Whether a browser asks what a page may do, on behalf of no page yet."""
    return method == "OPTIONS" and "access-control-request-method" in request.headers


def preflight(request: Request) -> Response:
    """Answer that all methods of long-polling, and whatever headers were asked for, are allowed."""
    names = request.headers.get("access-control-request-headers", "")
    headers = [("access-control-allow-methods", "GET, POST"), ("access-control-max-age", str(MAX_AGE))]
    if names and _NAMES.fullmatch(names):
        headers.append(("access-control-allow-headers", names))
    return Response(204, headers=tuple(headers))


def with_cors(response: Response, request: Request, verdict: Verdict | None) -> Response:
    """Return ``response`` for the page that was judged so; unchanged if there is none."""
    if verdict is None:
        return response
    if verdict is Verdict.ANYBODY:
        return response._replace(headers=(*response.headers, ("access-control-allow-origin", "*")))
    added = (
        ("access-control-allow-origin", request.headers["origin"]),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    )
    return response._replace(headers=(*response.headers, *added))
