"""Who sends a request.

The middleware of `access.py` finds out once for each request and leaves the answer in the ASGI scope; every handler asks
`identity_of`. Without that middleware all requests are anonymous.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection

from qengine.catalog.who import ANONYMOUS, LOCAL, Identity, Origin

__all__ = ["ANONYMOUS", "IDENTITY", "LOCAL", "Identity", "address_of", "identity_of", "origin_of"]

_CLIENT_LETTERS = 300
IDENTITY, ADDRESS = "qengine.identity", "qengine.address"
"""Keys of the scope that hold the `Identity` of a request, and the address that it comes from where a proxy tells."""


def identity_of(request: HTTPConnection) -> Identity:
    """Return who sends `request`."""
    found = request.scope.get(IDENTITY, ANONYMOUS)
    assert isinstance(found, Identity)
    return found


def address_of(request: HTTPConnection) -> str:
    """Return the address that a request comes from; empty if it is not known."""
    found = request.scope.get(ADDRESS)
    if found is None:
        return request.client.host if request.client is not None else ""
    return str(found)


def origin_of(request: HTTPConnection, method: str) -> Origin:
    """Return how and from where a request comes: address and program, for the log."""
    return Origin(method, f"{address_of(request)} {request.headers.get('user-agent', '')}".strip()[:_CLIENT_LETTERS])
