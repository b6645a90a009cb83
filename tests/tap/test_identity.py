"""Who is let in, and as whom: tokens, passwords, an issuer, a proxy, and everything that proves nothing."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import pyvo
import requests

from qengine.catalog.database import Database
from qengine.catalog.users import Users
from qengine.catalog.who import Identity
from qengine.errors import ConfigError, CredentialsError, TooManyRequestsError
from qengine.tap.access import AccessSettings, Doorkeeper
from qengine.tap.app import create_app
from tests.support.fake_service import FakeService
from tests.support.http_server import serving
from tests.support.vo_schemas import faults
from tests.tap.issuer import LocalIssuer, issuing


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    database = Database.open(tmp_path, None)
    found = Users(database)
    found.add("ann", password="sécret:1", groups=["dp1"])
    found.add("root", is_admin=True)
    yield found
    database.close()


@pytest.fixture
def local() -> Iterator[LocalIssuer]:
    with issuing() as found:
        yield found


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def who(door: Doorkeeper, peer: str = "192.0.2.1", **headers: str | list[str]) -> Identity:
    """Whom the door takes the sender of these headers for."""
    given = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in headers.items()}
    return asyncio.run(door.identify(given, peer))


def refused(door: Doorkeeper, peer: str = "192.0.2.1", **headers: Any) -> str:
    with pytest.raises(CredentialsError) as caught:
        who(door, peer, **headers)
    return caught.value.message


def test_tokens_and_passwords(users: Users) -> None:
    door = Doorkeeper(users, AccessSettings())
    token, _ = users.create_token("ann", lifetime=timedelta(hours=1))
    assert who(door).is_anonymous
    bearer = who(door, authorization=f"Bearer {token}")
    assert (bearer.user, bearer.groups, bearer.is_admin, bearer.method) == ("ann", {"dp1"}, False, "token")
    assert who(door, authorization=f"bearer  {token} ") == bearer
    found = who(door, authorization=basic("Ann", "sécret:1"))
    assert found == replace(bearer, method="basic")
    # clients that know passwords only
    for name, password in (("ann", token), ("ANN", token), ("", token), (token, ""), (token, "x-oauth-basic")):
        assert who(door, authorization=basic(name, password)) == bearer
    admin, _ = users.create_token("root")
    assert who(door, authorization=f"Bearer {admin}").is_admin


def test_what_proves_nothing_is_refused(users: Users) -> None:
    door = Doorkeeper(users, AccessSettings())
    token, _ = users.create_token("ann")
    old, _ = users.create_token("ann", lifetime=timedelta(0))
    for text in (
        "", "Bearer", "Bearer ", f"Bearer {token}x", f"Bearer {old}", f"Token {token}", token, "Bearer a.b.c", "Negotiate abc", "Basic",
        "Basic !!!", "Basic YQ==", basic("ann", "wrong"), basic("ann", ""), basic("nobody", "sécret:1"), basic("root", ""),
        basic("root", token), basic("nobody", token), basic("ann", token[:-1]), "Bearer " + "x" * 70000, basic("ann\0", "x"),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Bearer \udcff",
    ):  # fmt: skip
        refused(door, authorization=text)
    assert "clear" in refused(door, authorization=[f"Bearer {token}", f"Bearer {token}"])


def test_changes_count_at_once(users: Users) -> None:
    clock = Clock()
    door = Doorkeeper(users, AccessSettings(), clock=clock)
    token, kept = users.create_token("ann")
    shown = [f"Bearer {token}", basic("ann", "sécret:1")]
    for text in shown:
        assert who(door, authorization=text).groups == {"dp1"}
    users.join("ann", "ops")
    clock.now += 1
    for text in shown:
        assert who(door, authorization=text).groups == {"dp1", "ops"}
    users.change("ann", is_disabled=True)
    clock.now += 1
    for text in shown:
        refused(door, authorization=text)
    users.change("ann", is_disabled=False)
    users.revoke_token(kept.id)
    clock.now += 1
    refused(door, authorization=shown[0])
    assert who(door, authorization=shown[1]).user == "ann"


def test_wrong_passwords_are_counted(users: Users) -> None:
    clock = Clock()
    door = Doorkeeper(users, AccessSettings(), clock=clock)
    for number in range(20):
        refused(door, authorization=basic("ann", f"guess {number}"))
    with pytest.raises(TooManyRequestsError) as caught:
        who(door, authorization=basic("ann", "sécret:1"))
    assert caught.value.details["retry_after_s"] == 60
    assert who(door, "192.0.2.2", authorization=basic("ann", "sécret:1")).user == "ann"  # from elsewhere
    clock.now += 61
    assert who(door, authorization=basic("ann", "sécret:1")).user == "ann"


def test_a_password_is_hashed_once(users: Users) -> None:
    tried = []

    class Counting(Users):
        def by_password(self, name: str, password: str) -> Identity | None:
            tried.append(name)
            return super().by_password(name, password)

    door = Doorkeeper(Counting(users._database), AccessSettings())

    async def at_once() -> list[Identity]:
        return await asyncio.gather(*(door.identify({"authorization": [basic("ann", "sécret:1")]}, "p") for _ in range(50)))

    assert {found.user for found in asyncio.run(at_once())} == {"ann"}
    assert tried == ["ann"]


def test_tokens_of_an_issuer(users: Users, local: LocalIssuer) -> None:
    door = Doorkeeper(users, AccessSettings(issuer=local.url, audience="qengine", admin_groups=("Admins",)))
    zoe = who(door, authorization=f"Bearer {local.token('Zoe@Site.org', groups=['DP1', '/rubin/x'])}")
    assert (zoe.user, zoe.groups, zoe.is_admin, zoe.method) == ("zoe@site.org", {"dp1", "/rubin/x"}, False, "oidc")
    assert who(door, authorization=basic("zoe", local.token("zoe"))).user == "zoe"
    assert who(door, authorization=f"Bearer {local.token('bob', groups=['admins'])}").is_admin
    assert who(door, authorization=f"Bearer {local.token('root')}").is_admin  # as in the registry
    assert who(door, authorization=f"Bearer {local.token('ann')}").groups == {"dp1"}
    users.change("ann", is_disabled=True)
    for token in (local.token("ann", jti="x"), local.token("a b"), local.token("public"), local.token("z", aud="other"), "x.y.z"):
        refused(door, authorization=f"Bearer {token}")
    own, _ = users.create_token("root")
    assert who(door, authorization=f"Bearer {own}").method == "token"


def test_a_proxy_is_believed_from_its_network_only(users: Users) -> None:
    door = Doorkeeper(users, AccessSettings(proxy_networks=("10.0.3.0/24", "::1"), admin_groups=("ops",)))
    headers: dict[str, Any] = {"x_auth_request_user": "Zoe", "x_auth_request_groups": "DP2, Ops,"}
    for peer in ("10.0.3.7", "::1", "::ffff:10.0.3.9"):
        found = who(door, peer, **headers)
        assert (found.user, found.groups, found.is_admin, found.method) == ("zoe", {"dp2", "ops"}, True, "proxy")
    for peer in ("10.0.4.7", "", "unix", "::2"):
        assert "proxy of this service" in refused(door, peer, **headers)
    assert "more than one" in refused(door, "10.0.3.7", x_auth_request_user=["zoe", "root"])
    refused(door, "10.0.3.7", x_auth_request_user="a b")
    assert who(door, "10.0.3.7").is_anonymous
    assert who(door, "10.0.3.7", x_auth_request_user="").is_anonymous
    refused(door, "10.0.3.7", x_auth_request_user="", authorization="Bearer x")
    users.change("ann", is_disabled=True)
    refused(door, "10.0.3.7", x_auth_request_user="ann")
    assert who(Doorkeeper(users, AccessSettings()), "10.0.3.7", **headers).is_anonymous  # no proxy: a header like any other
    with pytest.raises(ConfigError, match="proxy_networks"):
        Doorkeeper(users, AccessSettings(proxy_networks=("10.0.3.7/24",)))


@contextmanager
def served(users: Users, settings: AccessSettings) -> Iterator[httpx.Client]:
    with (
        serving(create_app(FakeService(), door=Doorkeeper(users, settings))) as address,
        httpx.Client(base_url=f"{address}/tap", trust_env=False) as client,
    ):
        yield client


QUERY = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 source_id FROM demo.stars", "RESPONSEFORMAT": "csv"}


def test_over_http(users: Users) -> None:
    token, _ = users.create_token("ann")
    with served(users, AccessSettings(realm='a "b"')) as http:
        anonymous = http.get("/sync", params=QUERY)
        assert anonymous.status_code == 200
        assert "x-vo-authenticated" not in anonymous.headers
        known = http.get("/sync", params=QUERY, headers={"authorization": f"Bearer {token}"})
        assert (known.status_code, known.headers["x-vo-authenticated"]) == (200, "ann")
        assert http.get("/sync", params=QUERY, auth=("ann", "sécret:1")).headers["x-vo-authenticated"] == "ann"
        for path in ("/sync", "/tables", "/capabilities", "/availability", "/progress", ""):
            bad = http.get(path, params=QUERY, headers={"authorization": "Bearer qengine_x"})
            assert bad.status_code == 401
            assert 'value="ERROR"' in bad.text
            assert bad.headers.get_list("www-authenticate") == [
                'Basic realm="a \\"b\\"", charset="UTF-8"', 'Bearer realm="a \\"b\\"", error="invalid_token"'
            ]  # fmt: skip
        open_ = http.get("/capabilities")
        assert open_.status_code == 200
        assert len(open_.headers.get_list("www-authenticate")) == 2
        assert "www-authenticate" not in http.get("/capabilities", headers={"authorization": f"Bearer {token}"}).headers


def test_a_service_for_its_users_only(users: Users, local: LocalIssuer) -> None:
    with served(users, AccessSettings(is_anonymous_allowed=False, issuer=local.url, audience="qengine")) as http:
        for path in ("/sync", "/tables", "/progress", "", "/query-plan"):
            assert http.get(path, params=QUERY).status_code == 401
        assert http.get("/capabilities").status_code == http.get("/availability").status_code == 200
        known = http.get("/sync", params=QUERY, headers={"authorization": f"Bearer {local.token('zoe')}"})
        assert known.headers["x-vo-authenticated"] == "zoe"
        assert "openid-configuration" in http.get("/capabilities").headers["www-authenticate"]


def test_an_issuer_that_cannot_be_reached_is_no_fault_of_the_user(users: Users, local: LocalIssuer) -> None:
    local.is_down = True
    with served(users, AccessSettings(issuer=local.url, audience="qengine")) as http:
        answer = http.get("/sync", params=QUERY, headers={"authorization": f"Bearer {local.token('zoe')}"})
        assert answer.status_code == 503
        assert http.get("/sync", params=QUERY).status_code == 200


def test_too_many_wrong_passwords_are_429(users: Users) -> None:
    with served(users, AccessSettings()) as http:
        statuses = [http.get("/sync", params=QUERY, auth=("ann", f"guess {number}")).status_code for number in range(21)]
        assert statuses == [401] * 20 + [429]
        answer = http.get("/sync", params=QUERY, auth=("ann", "sécret:1"))
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.parametrize("is_anonymous_allowed", [True, False])
def test_the_capabilities_name_what_is_taken(users: Users, is_anonymous_allowed: bool) -> None:
    with served(users, AccessSettings(is_anonymous_allowed=is_anonymous_allowed)) as http:
        document = http.get("/capabilities").content
        assert faults(document) == []
        [tap] = [one for one in ElementTree.fromstring(document) if one.get("standardID") == "ivo://ivoa.net/std/TAP"]
        methods = [[method.get("standardID") for method in one.iter("securityMethod")] for one in tap.iter("interface")]
        expected = [["ivo://ivoa.net/sso#BasicAA"], ["ivo://ivoa.net/sso#OAuth"]]
        assert methods == ([[], *expected] if is_anonymous_allowed else expected)
        refused = http.get("/sync", params=QUERY, headers={"authorization": "Bearer qengine_x"})
        assert faults(refused.content) == []


def test_pyvo_with_a_token_and_with_a_password(users: Users) -> None:
    token, _ = users.create_token("ann")
    with served(users, AccessSettings(is_anonymous_allowed=False)) as http:
        url = str(http.base_url).rstrip("/")
        for session in (requests.Session(), requests.Session()):
            if token:
                session.headers["Authorization"], token = f"Bearer {token}", ""
            else:
                session.auth = ("ann", "sécret:1".encode())
            service = pyvo.dal.TAPService(url, session=session)
            assert len(service.search("SELECT TOP 3 source_id FROM demo.stars")) == 3
            assert "demo.stars" in service.tables
        with pytest.raises(pyvo.dal.DALQueryError, match="for its users only"):
            pyvo.dal.TAPService(url).search("SELECT TOP 3 source_id FROM demo.stars")
