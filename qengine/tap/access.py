"""The door of the service: an ASGI middleware that finds out who sends each request (`tap.credentials`).

It leaves the `Identity` in the scope, where `identity_of` finds it, and refuses with 401 and challenges what proves nothing. The
capabilities and the availability of a service are open to everybody, whatever else is.

Clients of the Virtual Observatory learn from challenges how they can log in, also where they need not: answers to nobody in
particular about the capabilities have some, and answers to somebody name them in `X-VO-Authenticated`.
"""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qengine.catalog.who import ANONYMOUS, Identity
from qengine.errors import CredentialsError, QEngineError
from qengine.tap.credentials import AccessSettings, Doorkeeper
from qengine.tap.failure import as_known, error_response
from qengine.tap.identity import ADDRESS, IDENTITY

__all__ = ["AccessMiddleware", "AccessSettings", "Doorkeeper", "security_methods"]

_OPEN = ("/tap/capabilities", "/tap/availability")
_SSO = "ivo://ivoa.net/sso#"


class AccessMiddleware:
    """Puts identities into scopes."""

    def __init__(self, app: ASGIApp, door: Doorkeeper) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        peer = (scope.get("client") or ("", 0))[0]
        try:
            identity = await self._identity(scope, headers, peer)
        except Exception as error:  # the edge of the service: whatever failed is answered as TAP asks, the rest is logged
            await self._refuse(as_known(error), scope, receive, send)
            return
        path = scope["path"].rstrip("/")

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if not identity.is_anonymous:
                    headers["x-vo-authenticated"] = identity.user
                    headers.add_vary_header("Authorization")
                elif path == _OPEN[0]:
                    self._challenge(headers)
            await send(message)

        known = {IDENTITY: identity, ADDRESS: self._door.address(headers, peer)}
        await self._app({**scope, **known}, receive, send_named)

    async def _identity(self, scope: Scope, headers: dict[str, list[str]], peer: str) -> Identity:
        if scope["method"] == "OPTIONS":  # browsers ask what they may send before they send who they are
            return ANONYMOUS
        identity = await self._door.identify(headers, peer)
        if identity.is_anonymous and not self._door.settings.is_anonymous_allowed and scope["path"].rstrip("/") not in _OPEN:
            raise CredentialsError("this service is for its users only", hint="send a token, or name and password")
        return identity

    async def _refuse(self, error: QEngineError, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(error)
        if isinstance(error, CredentialsError):
            self._challenge(response.headers, "invalid_token")
        await response(scope, receive, send)

    def _challenge(self, headers: MutableHeaders, error: str = "") -> None:
        realm = _quoted(self._door.settings.realm)
        headers.append("www-authenticate", f'Basic realm={realm}, charset="UTF-8"')
        headers.append("www-authenticate", f"Bearer realm={realm}" + (f', error="{error}"' if error else ""))
        if self._door.issuer is not None:
            url = _quoted(self._door.issuer.discovery_url)
            headers.append("www-authenticate", f'ivoa_bearer standard_id="{_SSO}OpenID", discovery_url={url}')


def security_methods(door: Doorkeeper | None) -> tuple[str, ...]:
    """Return the standard ids of the ways to prove who one is, for the capabilities; an empty one stands for none at all."""
    if door is None:
        return ()
    none = ("",) if door.settings.is_anonymous_allowed else ()
    return (*none, f"{_SSO}BasicAA", f"{_SSO}OAuth")


def _quoted(text: Any) -> str:
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
