"""Tokens of an issuer: which count, and how often the issuer is asked."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from qengine.errors import ClusterError, ConfigError, CredentialsError
from qengine.tap.oidc import Issuer, IssuerSettings
from tests.tap.issuer import LocalIssuer, issuing


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def local() -> Iterator[LocalIssuer]:
    with issuing() as found:
        yield found


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def issuer_of(local: LocalIssuer, clock: Clock | None = None, **settings: Any) -> Issuer:
    return Issuer(IssuerSettings(url=local.url, audience="qengine", **settings), clock=clock or Clock())


def test_what_a_token_says(local: LocalIssuer) -> None:
    issuer = issuer_of(local)
    found = issuer.verify(local.token("ann", groups=["dp1", "ops"]))
    assert (found.user, found.groups) == ("ann", {"dp1", "ops"})
    assert issuer.verify(local.token("bob", aud=["other", "qengine"], groups="dp1 ops")).groups == {"dp1", "ops"}
    assert issuer.verify(local.token("bob")).groups == frozenset()
    nested = issuer_of(local, groups_claim="realm.roles", user_claim="sub")
    assert nested.verify(local.token(realm={"roles": ["dp1"]})).groups == {"dp1"}
    assert local.asked == ["/.well-known/openid-configuration", "/keys"] * 2


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://evil"}, "another issuer"),
        ({"aud": "other"}, "another service"),
        ({"aud": None}, "another service"),
        ({"aud": 7}, "another service"),
        ({"exp": None}, "when it is valid"),
        ({"exp": "soon"}, "when it is valid"),
        ({"exp": float("nan")}, "when it is valid"),
        ({"exp": 1000}, "expired"),
        ({"nbf": 9e9}, "not valid yet"),
        ({"preferred_username": None}, "no preferred_username"),
        ({"preferred_username": ["ann"]}, "no preferred_username"),
        ({"groups": {"a": 1}}, "no list of names"),
        ({"groups": [1]}, "no list of names"),
    ],
)
def test_claims_that_do_not_count(local: LocalIssuer, claims: dict[str, Any], why: str) -> None:
    with pytest.raises(CredentialsError, match=why):
        issuer_of(local).verify(local.token(**claims))


def test_signatures_that_do_not_count(local: LocalIssuer) -> None:
    issuer = issuer_of(local)
    good = local.token()
    issuer.verify(good)
    head, body, signature = good.split(".")
    other = RSAKey.generate_key(2048, {"kid": "one"}, private=True)
    # The issuer's public key taken for a shared secret: the classic confusion of algorithms.
    start = f"{encoded(json.dumps({'alg': 'HS256', 'kid': 'one'}).encode())}.{body}"
    confused = f"{start}.{encoded(hmac.digest(local.keys[0].as_pem(private=False), start.encode(), 'sha256'))}"
    forged = encoded(json.dumps({"alg": "none", "kid": "one"}).encode())
    bad = [
        local.token(key=other), confused, f"{forged}.{body}.", f"{forged}.{body}.{signature}",
        f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body[:-4]}AAAA.{signature}", "a.b.c", "..", "", "é.ü.x",
        f"{head}.{body}", "x" * 40000, local.token(key=other, header={"jwk": other.as_dict(private=False)}),
    ]  # fmt: skip
    for token in bad:
        with pytest.raises(CredentialsError):
            issuer.verify(token)


def test_a_new_key_is_found_and_nonsense_does_not_ask_again(local: LocalIssuer) -> None:
    clock = Clock()
    issuer = issuer_of(local, clock)
    issuer.verify(local.token())
    stranger = RSAKey.generate_key(2048, {"kid": "stranger"}, private=True)
    local.turn()
    with pytest.raises(CredentialsError):
        issuer.verify(local.token())  # asked less than a minute ago
    clock.ahead = 61
    issuer.verify(local.token())
    assert len(local.asked) == 4
    for _ in range(20):
        with pytest.raises(CredentialsError, match="not signed by a key"):
            issuer.verify(local.token(key=stranger))
    assert len(local.asked) == 4


def test_an_issuer_that_is_down(local: LocalIssuer) -> None:
    clock = Clock()
    issuer = issuer_of(local, clock)
    local.is_down = True
    with pytest.raises(ClusterError):
        issuer.verify(local.token())
    local.is_down = False
    clock.ahead = 61
    issuer.verify(local.token())
    local.is_down = True
    clock.ahead = 5000
    issuer.verify(local.token(exp=9e9))  # with the keys that are known
    clock.ahead = 90000
    with pytest.raises(ClusterError):
        issuer.verify(local.token(exp=9e9))


def test_settings_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="audience"):
        IssuerSettings(url="https://issuer", audience="")
    for algorithm in ("HS256", "none", "RS1"):
        with pytest.raises(ConfigError, match="not taken"):
            IssuerSettings(url="https://issuer", audience="q", algorithms=(algorithm,))
    for url in ("http://issuer.org", "http://10.0.0.1", "file:///etc/passwd", "ftp://x", "https://"):
        with pytest.raises(ConfigError, match="not https"):
            IssuerSettings(url=url, audience="q")
