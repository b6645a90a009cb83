"""Who a request comes from, by what it shows.

What can be shown, in this order:

1. a name (and groups) in the header of a proxy that has checked it. It counts from the networks that are configured; from
   elsewhere that header is refused, because either somebody lies or the service is not set up as its operator thinks;
2. `Authorization: Bearer` with a token of ours (`catalog.users`) or of the configured issuer (`tap.oidc`);
3. `Authorization: Basic` with name and password, or with such a token in place of the password, for clients that know no other.

What is shown and does not prove anything is refused, and never taken for nobody's. What was found is remembered for a minute under
the digest of what was shown, so that a password does not cost its scrypt each time, and forgotten at once (within a second) when
users, tokens or groups change. At most two passwords are tried at a time, and those of one name from one place no more than twenty
times a minute when they are wrong.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from qengine.catalog.users import PREFIX, Token, Users, checked_name
from qengine.catalog.who import ANONYMOUS, Identity
from qengine.errors import ConfigError, CredentialsError, QEngineError, TooManyRequestsError
from qengine.tap.oidc import Issuer, IssuerSettings

log = logging.getLogger(__name__)

_KEPT = 4096
_REFUSED_S = 10.0
_VERSION_S = 1.0
_PASSWORDS_AT_ONCE, _PASSWORDS_WAITING = 2, 64
_NAME_LETTERS = 128
_WRONG, _WRONG_WINDOW_S = 20, 60.0
_HEADER_LETTERS = 1 << 16
_ANY_NAME = ("", "token", "x-oauth-basic", "x-token")
"""What clients that want a name send beside a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Who is let in. `issuer` and what follows is about its tokens (`tap.oidc.IssuerSettings`); empty takes none.

    `proxy_networks` are addresses of proxies that are believed ("10.0.3.0/24"), which name users in `proxy_user_header` and their
    groups, with commas, in `proxy_groups_header`. Members of `admin_groups` are administrators. `remembered_s` is for how long a
    proof is remembered.
    """

    is_anonymous_allowed: bool = True
    realm: str = "qengine"
    issuer: str = ""
    audience: str = ""
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    user_claim: str = "preferred_username"
    groups_claim: str = "groups"
    proxy_networks: tuple[str, ...] = ()
    proxy_user_header: str = "x-auth-request-user"
    proxy_groups_header: str = "x-auth-request-groups"
    admin_groups: tuple[str, ...] = ()
    remembered_s: float = 60.0


Prove = Callable[[], Awaitable[tuple[Identity, float]]]
"""Returns whose proof something is, and for how many seconds; raises `CredentialsError`."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found out: nobody where `identity` is None. Good until `until` (monotonic) and for `version` of the users."""

    identity: Identity | None
    why: str
    until: float
    version: int


class Doorkeeper:
    """Finds out who sends a request."""

    def __init__(self, users: Users, settings: AccessSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = users
        self._settings = settings
        self._clock = clock
        self._networks = _networks(settings.proxy_networks)
        self._admin_groups = frozenset(group.lower() for group in settings.admin_groups)
        self._found: OrderedDict[bytes, _Found] = OrderedDict()
        self._wrong: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._proving: dict[bytes, asyncio.Future[_Found]] = {}
        self._passwords, self._waiting = asyncio.Semaphore(_PASSWORDS_AT_ONCE), 0
        self._version, self._version_at = 0, float("-inf")
        self._noting: set[asyncio.Task[None]] = set()
        self.issuer = _issuer(settings)

    @property
    def settings(self) -> AccessSettings:
        """How it was set up."""
        return self._settings

    async def identify(self, headers: Mapping[str, Sequence[str]], peer: str) -> Identity:
        """Return who asks, `ANONYMOUS` if nothing is shown. `headers` are by name in lower case, `peer` is who sent them.

        Raise `CredentialsError` if what is shown proves nothing, `TooManyRequestsError` after too many wrong passwords.
        """
        if (vouched := self._vouched(headers, peer)) is not None:
            name, groups = vouched
            return await self._remembered(f"proxy\0{name}\0{groups}", lambda: self._by_proxy(name, groups))
        shown = headers.get("authorization", ())
        if not shown:
            return ANONYMOUS
        if len(shown) > 1 or len(shown[0]) > _HEADER_LETTERS:
            raise CredentialsError("the request has no clear Authorization", hint="send one header")
        scheme, _, rest = shown[0].strip().partition(" ")
        rest = rest.strip()
        if scheme.lower() == "bearer":
            return await self._remembered(f"bearer\0{rest}", lambda: self._by_token(rest))
        if scheme.lower() == "basic":
            return await self._remembered(f"basic\0{rest}\0{peer}", lambda: self._by_basic(rest, peer))
        raise CredentialsError("this kind of Authorization is not taken", hint="use Bearer with a token, or Basic")

    def address(self, headers: Mapping[str, Sequence[str]], peer: str) -> str:
        """Return the address that a request comes from: behind our proxies, the last that is not one of them."""
        told = [word.strip() for line in headers.get("x-forwarded-for", ()) for word in line.split(",")]
        address = peer
        while told and _is_within(address, self._networks):
            address = told.pop()
        return address if _is_address(address) else peer

    # -- what is remembered -----------------------------------------------------------------------------------------------------

    async def _remembered(self, shown: str, prove: Prove) -> Identity:
        digest = hashlib.sha256(shown.encode("utf-8", "surrogatepass")).digest()
        version = await self._current_version()
        found = self._found.get(digest)
        if found is None or found.until <= self._clock() or found.version != version:
            # Requests that show the same at once share one proof; one of them that goes away does not take it along.
            task = self._proving.get(digest)
            if task is None:
                task = self._proving[digest] = asyncio.ensure_future(self._prove(prove, version))
                task.add_done_callback(lambda _: self._proving.pop(digest, None))
            found = self._found[digest] = await asyncio.shield(task)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        if found.identity is None:
            raise CredentialsError(found.why)
        return found.identity

    async def _prove(self, prove: Prove, version: int) -> _Found:
        try:
            identity, lasts_s = await prove()
        except CredentialsError as error:
            return _Found(None, error.message, self._clock() + min(_REFUSED_S, self._settings.remembered_s), version)
        is_admin = identity.is_admin or not self._admin_groups.isdisjoint(identity.groups)
        until = self._clock() + min(self._settings.remembered_s, lasts_s)
        return _Found(replace(identity, is_admin=is_admin), "", until, version)

    async def _current_version(self) -> int:
        if self._clock() - self._version_at >= _VERSION_S:
            self._version = await asyncio.to_thread(self._users.version)
            self._version_at = self._clock()
        return self._version

    # -- proofs -----------------------------------------------------------------------------------------------------------------

    def _vouched(self, headers: Mapping[str, Sequence[str]], peer: str) -> tuple[str, str] | None:
        if not self._networks:
            return None
        names = headers.get(self._settings.proxy_user_header.lower(), ())
        groups = headers.get(self._settings.proxy_groups_header.lower(), ())
        if not names and not groups:
            return None
        if not _is_within(peer, self._networks):
            raise CredentialsError("a name in a header is taken from the proxy of this service only")
        if len(names) > 1 or len(groups) > 1:
            raise CredentialsError("the proxy names more than one user")
        # Proxies send an empty name for whom they let pass without one.
        return (names[0].strip(), groups[0] if groups else "") if names and names[0].strip() else None

    async def _by_proxy(self, name: str, groups: str) -> tuple[Identity, float]:
        told = frozenset(group.strip().lower() for group in groups.split(",") if group.strip())
        return await self._known(name, told, "proxy"), float("inf")

    async def _by_token(self, text: str) -> tuple[Identity, float]:
        if text.startswith(PREFIX):
            found = await asyncio.to_thread(self._users.by_token, text)
            if found is None:
                raise CredentialsError("the token is not known, or it has expired")
            identity, token = found
            self._note(token)
            return identity, token.expires.timestamp() - time.time() if token.expires is not None else float("inf")
        if self.issuer is None:
            raise CredentialsError("the token is not known, or it has expired")
        proved = await asyncio.to_thread(self.issuer.verify, text)
        identity = await self._known(proved.user, frozenset(group.lower() for group in proved.groups), "oidc")
        return identity, proved.expires - time.time()

    async def _by_basic(self, text: str, peer: str) -> tuple[Identity, float]:
        try:
            name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise CredentialsError("the name and the password cannot be read")
        if self._is_token(password) or (self._is_token(name) and password in _ANY_NAME):
            is_second = self._is_token(password)
            identity, lasts_s = await self._by_token(password if is_second else name)
            if is_second and name.lower() not in (*_ANY_NAME, identity.user):
                raise CredentialsError("the token is somebody else's")
            return identity, lasts_s
        found = await self._by_password(name, password, peer)
        if found is None:
            raise CredentialsError("name and password do not match")
        return found, float("inf")

    async def _known(self, name: str, groups: frozenset[str], method: str) -> Identity:
        try:
            user = checked_name(name)
        except ConfigError as error:
            raise CredentialsError("the name cannot be one of a user here") from error
        found = await asyncio.to_thread(self._users.vouched, user, groups, method)
        if found is None:
            raise CredentialsError("this user is not let in")
        return found

    def _is_token(self, text: str) -> bool:
        return text.startswith(PREFIX) or (self.issuer is not None and text.startswith("eyJ") and text.count(".") == 2)

    # -- tries and uses ---------------------------------------------------------------------------------------------------------

    async def _by_password(self, name: str, password: str, peer: str) -> Identity | None:
        if self._waiting >= _PASSWORDS_WAITING:
            raise TooManyRequestsError("too many passwords are being checked")
        self._waiting += 1
        try:
            async with self._passwords:
                self._check_tries(peer, name)
                found = await asyncio.to_thread(self._users.by_password, name, password)
                if found is None:
                    self._count_wrong(peer, name)
        finally:
            self._waiting -= 1
        return found

    def _check_tries(self, peer: str, name: str) -> None:
        began, count = self._wrong.get((peer, name.lower()[:_NAME_LETTERS]), (float("-inf"), 0))
        left = began + _WRONG_WINDOW_S - self._clock()
        if count >= _WRONG and left > 0:
            raise TooManyRequestsError("too many wrong passwords", details={"retry_after_s": left})

    def _count_wrong(self, peer: str, name: str) -> None:
        key = (peer, name.lower()[:_NAME_LETTERS])
        began, count = self._wrong.pop(key, (float("-inf"), 0))
        if self._clock() - began > _WRONG_WINDOW_S:
            began, count = self._clock(), 0
        self._wrong[key] = (began, count + 1)
        while len(self._wrong) > _KEPT:
            self._wrong.popitem(last=False)

    def _note(self, token: Token) -> None:
        async def note() -> None:
            try:
                await asyncio.to_thread(self._users.note_use, token)
            except QEngineError as error:
                log.warning("the use of token %s is not noted: %s", token.id, error)

        if not self._noting:
            task = asyncio.get_running_loop().create_task(note())
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigError(f"access.proxy_networks: {error}", hint="for example 10.0.3.0/24, or one address") from error


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_within(peer: str, networks: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _issuer(settings: AccessSettings) -> Issuer | None:
    if not settings.issuer:
        return None
    return Issuer(
        IssuerSettings(
            url=settings.issuer, audience=settings.audience, jwks_url=settings.jwks_url, algorithms=settings.algorithms,
            user_claim=settings.user_claim, groups_claim=settings.groups_claim,
        )
    )  # fmt: skip
