"""Tokens of an OpenID Connect issuer: JSON Web Tokens that it signed for this service.

A token counts if its signature is by one of the issuer's keys with an algorithm that is allowed (asymmetric ones only: a public key
must never serve as a shared secret), if it names this issuer and this audience, and if it is valid now, give or take a minute.

The issuer's keys are read from where its configuration (`/.well-known/openid-configuration`) says, and kept for an hour. A token
that names a key which is not among them makes us look again, but once a minute at most: whoever sends nonsense shall not make us
ask the issuer each time. While the issuer does not answer, the keys that are known are used for a day.

All of it blocks; callers use a thread.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from qengine.errors import ClusterError, ConfigError, CredentialsError

_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_LEEWAY_S = 60
_FRESH_S = 3600.0
_USABLE_S = 86400.0
_AGAIN_S = 60.0
_TIMEOUT_S = 5.0
_DOCUMENT_BYTES = 1 << 20
_TOKEN_LETTERS = 1 << 15
_GROUPS = 1000

Key = RSAKey | ECKey | OKPKey


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """`url` is the issuer as its tokens name it, `audience` what they must name for this service. `user_claim` and `groups_claim`
    say where name and groups are; a dot goes into an object (`realm_access.roles`). An empty `jwks_url` is asked of the issuer."""

    url: str
    audience: str
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    user_claim: str = "preferred_username"
    groups_claim: str = "groups"

    def __post_init__(self) -> None:
        if not self.audience:
            raise ConfigError(
                f"tokens of {self.url} are taken for no audience", hint="set access.audience: the issuer's name for this service"
            )
        if wrong := [name for name in self.algorithms if name not in _ASYMMETRIC]:
            raise ConfigError(f"signatures of {wrong[0]} are not taken", hint=f"choose from {', '.join(_ASYMMETRIC)}")
        for url in filter(None, (self.url, self.jwks_url)):
            check_secure(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """What a token says. `expires` is in seconds since 1970."""

    user: str
    groups: frozenset[str]
    expires: float


class Issuer:
    """An issuer whose tokens are taken."""

    def __init__(self, settings: IssuerSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._read_at = -_USABLE_S
        self._tried_at = -_USABLE_S

    @property
    def discovery_url(self) -> str:
        """Where clients read how to get a token."""
        return self._settings.url.rstrip("/") + "/.well-known/openid-configuration"

    def verify(self, token: str) -> Proved:
        """Return what a token says. Raise `CredentialsError` if it does not count, `ClusterError` if the issuer's keys cannot be
        had."""
        header = _header(token)
        if header.get("alg") not in self._settings.algorithms:
            raise CredentialsError("the token is not signed by an algorithm that is taken here")
        try:
            claims = jwt.decode(token, self._key(header), algorithms=[header["alg"]]).claims
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise CredentialsError("the token is not signed by the issuer") from error
        return self._proved(claims)

    def _proved(self, claims: Mapping[str, Any]) -> Proved:
        now = self._clock()
        told = claims.get("aud")
        audiences = told if isinstance(told, list) else [told]
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        if claims.get("iss") != self._settings.url:
            raise CredentialsError("the token is of another issuer")
        if self._settings.audience not in audiences:
            raise CredentialsError("the token is for another service")
        if not _is_time(expires) or not _is_time(begins):
            raise CredentialsError("the token does not say when it is valid")
        if expires + _LEEWAY_S <= now:
            raise CredentialsError("the token has expired")
        if begins - _LEEWAY_S > now:
            raise CredentialsError("the token is not valid yet")
        user = _at(claims, self._settings.user_claim)
        if not isinstance(user, str) or not user:
            raise CredentialsError(f"the token has no {self._settings.user_claim}")
        given = _at(claims, self._settings.groups_claim) or ()
        groups = given.split() if isinstance(given, str) else given
        if not isinstance(groups, (list, tuple)) or len(groups) > _GROUPS or not all(isinstance(one, str) for one in groups):
            raise CredentialsError(f"the token's {self._settings.groups_claim} is no list of names")
        return Proved(user=user, groups=frozenset(groups), expires=float(expires) + _LEEWAY_S)

    # -- keys -----------------------------------------------------------------------------------------------------------------

    def _key(self, header: Mapping[str, Any]) -> Key:
        name = header.get("kid", "")
        if not isinstance(name, str):
            raise CredentialsError("the token's header cannot be read")
        key = self._find(name)
        now = self._clock()
        is_stale = now - self._read_at > _FRESH_S
        if (key is None or is_stale) and now - self._tried_at >= _AGAIN_S:
            # The first one asks, for all; whoever has a key meanwhile does not wait for the answer.
            if self._lock.acquire(blocking=key is None):
                try:
                    if now - self._tried_at >= _AGAIN_S:
                        self._read()
                finally:
                    self._lock.release()
            key = self._find(name)
        if key is None:
            if not self._keys:
                raise ClusterError("the issuer of tokens does not answer", hint="try again in a minute")
            raise CredentialsError("the token is not signed by a key of the issuer")
        if key.get("use", "sig") != "sig" or key.get("alg", header["alg"]) != header["alg"]:
            raise CredentialsError("the token is signed by a key that is not for this")
        return key

    def _find(self, name: str) -> Key | None:
        if self._clock() - self._read_at > _USABLE_S:
            self._keys = {}
        if not name and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            url = self._settings.jwks_url
            if not url:
                document = _fetched(self.discovery_url)
                if document.get("issuer") != self._settings.url:
                    return
                url = str(document.get("jwks_uri", ""))
                check_secure(url)
            found = _fetched(url).get("keys", [])
        except (OSError, ValueError, ConfigError, http.client.HTTPException):
            return
        keys: dict[str, Key] = {}
        for words in found if isinstance(found, list) else ():
            try:
                (key,) = KeySet.import_key_set({"keys": [words]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # a key of a kind that we do not know is none for us
            if isinstance(key, Key):
                keys[str(words.get("kid", ""))] = key
        if keys:
            self._keys, self._read_at = keys, self._tried_at


def check_secure(url: str) -> None:
    """Raise `ConfigError` unless `url` is of https, or of http on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and (host == "localhost" or _is_loopback(host)):
        return
    raise ConfigError(f"{url} is not https", hint="who can change what an issuer says can be anybody here")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: where keys come from is configured."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _fetched(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers={"accept": "application/json"})
    with urllib.request.build_opener(_Stay).open(request, timeout=_TIMEOUT_S) as response:
        text = response.read(_DOCUMENT_BYTES + 1)
    if len(text) > _DOCUMENT_BYTES:
        raise ValueError(f"{url} is too large")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{url} is no object")
    return found


def _header(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _TOKEN_LETTERS:
        raise CredentialsError("that is no token of the issuer")
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise CredentialsError("the token's header cannot be read") from error
    if not isinstance(found, dict):
        raise CredentialsError("the token's header cannot be read")
    return found


def _at(claims: Mapping[str, Any], path: str) -> Any:
    if path in claims:  # names of claims may have dots themselves
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
