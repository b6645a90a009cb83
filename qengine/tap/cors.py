"""Pages of other sites: which may use the service, and what of its answers their scripts may see.

Aladin Lite and notebooks in browsers run TAP clients. By default every site may ask, without cookies: who asks is told by a header
that such a script sets itself, so that no site can use what a browser knows of its user.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SEEN = (
    "Content-Disposition", "Location", "Retry-After", "WWW-Authenticate", "X-Query-Id", "X-Query-Maxrec", "X-Query-Status",
    "X-VO-Authenticated",
)  # fmt: skip
_REMEMBERED_S = 86_400


def cors(origins: tuple[str, ...]) -> list[Middleware]:
    """Return the middleware that lets pages of `origins` in (`*`: of all sites), or none if there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=list(_METHODS),
            allow_headers=["*"],
            expose_headers=list(_SEEN),
            max_age=_REMEMBERED_S,
        )
    ]
