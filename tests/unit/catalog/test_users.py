"""Users, passwords, tokens and groups, in SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from qengine.catalog.database import Database
from qengine.catalog.users import Users
from qengine.catalog.who import ANONYMOUS, Identity
from qengine.errors import ConfigError, ConflictError, UnknownNameError
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = ON_BOTH


@pytest.fixture
def users(database: NewDatabase, tmp_path: Path) -> Iterator[Users]:
    found = Database.open(tmp_path, database())
    yield Users(found)
    found.close()


def test_users_come_and_go(users: Users) -> None:
    ann = users.add("Ann", password="secret", is_admin=True, groups=["dp1", "DP1", "rubin"])
    assert (ann.name, ann.is_admin, ann.has_password, ann.groups) == ("ann", True, True, {"dp1", "rubin"})
    users.add("bob@site.org")
    assert [user.name for user in users.listed()] == ["ann", "bob@site.org"]
    assert not users.find("BOB@site.org").has_password
    with pytest.raises(ConflictError, match="user ann already"):
        users.add("ANN")
    users.remove("ann")
    with pytest.raises(UnknownNameError):
        users.find("ann")
    assert users.groups() == {}


@pytest.mark.parametrize("name", ["", "public", "Anonymous", "local", "a b", "a/b", "é", "x" * 65, "-x", "a\n"])
def test_names_that_cannot_be(users: Users, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        users.add(name)
    with pytest.raises(ConfigError, match="cannot be the name of a user"):
        users.join(name, "dp1")


def test_passwords(users: Users) -> None:
    users.add("ann", password="sécret")
    users.add("bob")
    found = users.by_password("Ann", "sécret")
    assert found is not None
    assert (found.user, found.method, found.is_admin) == ("ann", "basic", False)
    assert users.by_password("ann", "secret") is None
    assert users.by_password("bob", "") is None
    assert users.by_password("carl", "") is None
    assert users.by_password("ann\0", "sécret") is None
    users.change("ann", password="other")
    assert users.by_password("ann", "sécret") is None
    assert users.by_password("ann", "other") is not None
    users.change("ann", is_disabled=True)
    assert users.by_password("ann", "other") is None
    assert users.vouched("ann", (), "oidc") is None
    users.change("ann", is_disabled=False, password="")
    assert users.by_password("ann", "other") is None
    assert users.by_password("ann", "") is None


def test_tokens(users: Users) -> None:
    users.add("ann", groups=["dp1"])
    text, token = users.create_token("ann", label="laptop", lifetime=timedelta(days=1))
    assert token.label == "laptop"
    assert token.expires is not None
    assert token.used is None
    found = users.by_token(text)
    assert found is not None
    assert (found[0].user, found[0].groups, found[0].method, found[1]) == ("ann", {"dp1"}, "token", token)
    assert users.by_token(text + "x") is None
    users.note_use(token)
    [used] = users.tokens("ann")
    assert used.used is not None
    assert used.used.minute == 0
    _, old = users.create_token("ann", lifetime=timedelta(seconds=-1))
    old_text, _ = users.create_token("ann", lifetime=timedelta(0))
    assert users.by_token(old_text) is None
    users.change("ann", is_disabled=True)
    assert users.by_token(text) is None
    users.change("ann", is_disabled=False)
    users.revoke_token(token.id)
    assert users.by_token(text) is None
    with pytest.raises(UnknownNameError, match="no token"):
        users.revoke_token(token.id)
    with pytest.raises(UnknownNameError, match="no user"):
        users.create_token("bob")
    assert old.id in {one.id for one in users.tokens()}
    users.remove("ann")
    assert users.tokens() == ()


def test_groups_of_those_whom_others_vouch_for(users: Users) -> None:
    users.join("zoe", "dp1")
    users.join("zoe", "dp1")
    with pytest.raises(ConfigError, match="name of a group"):
        users.join("zoe", "a b")
    found = users.vouched("zoe", {"told"}, "oidc")
    assert found is not None
    assert (found.groups, found.is_admin) == ({"dp1", "told"}, False)
    assert users.groups() == {"dp1": ("zoe",)}
    users.leave("zoe", "dp1")
    with pytest.raises(UnknownNameError, match="not in group"):
        users.leave("zoe", "dp1")


def test_who_somebody_is_later(users: Users) -> None:
    users.add("ann", is_admin=True, groups=["dp1"])
    text, _ = users.create_token("ann")
    found = users.by_token(text)
    assert found is not None
    ann = found[0]
    told = Identity("zoe", frozenset({"told"}), is_admin=True, method="oidc")
    assert users.still(ann) == ann
    assert users.still(told) == told
    assert users.still(ANONYMOUS) == ANONYMOUS
    users.leave("ann", "dp1")
    users.change("ann", is_admin=False)
    assert users.still(ann) == Identity("ann", method="token")
    users.change("ann", is_disabled=True)
    assert users.still(ann) is None
    users.remove("ann")
    assert users.still(ann) is None
    users.add("zoe")
    users.change("zoe", is_disabled=True)
    assert users.still(told) is None


def test_every_change_has_a_number(users: Users) -> None:
    seen = [users.version()]

    def changed() -> None:
        assert users.version() > seen[-1]
        seen.append(users.version())

    users.add("ann")
    changed()
    _, token = users.create_token("ann")
    changed()
    users.join("ann", "g")
    changed()
    users.leave("ann", "g")
    changed()
    users.revoke_token(token.id)
    changed()
    users.change("ann", is_disabled=True)
    changed()
    users.remove("ann")
    changed()
