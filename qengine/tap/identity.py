"""Who sends a request.

The middleware of `access.py` finds out once for each request and leaves the answer in the ASGI scope; every handler asks
`identity_of`. Without that middleware all requests are anonymous.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection

from qengine.catalog.who import ANONYMOUS, LOCAL, Identity

__all__ = ["ANONYMOUS", "IDENTITY", "LOCAL", "Identity", "identity_of"]

IDENTITY = "qengine.identity"
"""Key of the scope that holds the `Identity` of a request."""


def identity_of(request: HTTPConnection) -> Identity:
    """Return who sends `request`."""
    found = request.scope.get(IDENTITY, ANONYMOUS)
    assert isinstance(found, Identity)
    return found
