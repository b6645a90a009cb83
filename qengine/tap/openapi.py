"""/tap/openapi.json: what of this service no standard of the Virtual Observatory describes, as OpenAPI 3.1.

The document is data beside this module, written by hand; a test compares it with the routes. TAP, UWS and VOSI have documents of
their own: /tap/capabilities.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

STANDARD = ("/", "/tap", "/tap/sync", "/tap/async", "/tap/tables", "/tap/capabilities", "/tap/availability", "/tap/examples")
"""Addresses that standards describe, with all below them."""


def document(base_url: str) -> dict[str, Any]:
    """Return the document of the service at `base_url`, the address of `/tap`."""
    found = dict(_document())
    found["info"] = {**found["info"], "version": version("qengine")}
    found["servers"] = [{"url": base_url.removesuffix("/tap")}]
    return found


def is_standard(path: str) -> bool:
    """Say whether a route is described elsewhere."""
    return path in STANDARD or any(path.startswith(f"{known}/") for known in STANDARD if known not in ("/", "/tap"))


def routes(base: Callable[[Request], str], *, path: str) -> list[Route]:
    """Return the route of the document; `base` returns the address of the service."""

    async def show(request: Request) -> Response:
        return JSONResponse(document(base(request)))

    return [Route(f"{path}/openapi.json", show)]


@cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("qengine.tap").joinpath("openapi.json").read_text(encoding="utf-8"))
    return found
