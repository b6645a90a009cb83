"""`qengine user`, `token` and `group`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from qengine.catalog.registry import Registry
from qengine.catalog.user_tables import UserTables
from qengine.cli import run
from qengine.opening import open_store
from tests.loader.stores import Site, sky


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "store"
    open_store(root, create=True)[1].close()
    monkeypatch.setenv("QENGINE_STORE", str(root))
    monkeypatch.setenv("COLUMNS", "200")
    return root


def test_users_and_groups(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["user", "add", "Ann", "--admin", "--group", "dp1", "--group", "ops"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert run(["user", "add", "bob", "--password"]) == 0
    assert run(["group", "add", "dp1", "bob"]) == 0
    capsys.readouterr()
    assert run(["user", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["ann", "dp1,", "ops", "no", "0"]
    assert lines[1].endswith("administrator")
    assert lines[2].split()[:4] == ["bob", "dp1", "yes", "0"]
    assert run(["group", "list"]) == 0
    assert "ann, bob" in capsys.readouterr().out
    assert run(["group", "remove", "dp1", "bob"]) == 0
    assert run(["group", "remove", "dp1", "bob"]) == 1
    assert run(["user", "disable", "bob"]) == 0
    assert run(["user", "admin", "ann", "--no"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["user", "password", "bob"]) == 1
    with Registry.open(store) as registry:
        assert registry.users.find("bob").is_disabled
        assert not registry.users.find("ann").is_admin
    assert run(["user", "enable", "bob"]) == 0
    assert run(["user", "password", "bob", "--none"]) == 0
    assert run(["user", "remove", "bob"]) == 0
    assert run(["user", "remove", "bob"]) == 1
    assert "no user bob" in capsys.readouterr().err


def test_a_token_is_printed_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["user", "add", "ann"])
    capsys.readouterr()
    assert run(["token", "create", "ann", "--label", "laptop", "--days", "30"]) == 0
    shown = capsys.readouterr()
    text = shown.out.strip()
    assert text.startswith("qengine_")
    assert run(["token", "list"]) == 0
    listed = capsys.readouterr().out
    assert "laptop" in listed
    assert text not in listed
    number = listed.splitlines()[1].split()[0]
    with Registry.open(store) as registry:
        assert registry.users.by_token(text) is not None
    assert run(["token", "revoke", number]) == 0
    with Registry.open(store) as registry:
        assert registry.users.by_token(text) is None


def test_grants(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    site.load(site.write("a.parquet", sky(20)), key="id")
    site.load(site.write("b.parquet", sky(20)), key="id", catalog="other")
    monkeypatch.setenv("QENGINE_STORE", str(site.store.root))
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["grant", "DEMO", "--group", "dp1"]) == 0
    assert "by nobody else" in capsys.readouterr().err
    assert run(["grant", "demo.obj", "--public"]) == 0
    assert run(["promote", "other", "internal", "--group", "ops"]) == 0
    assert run(["grants"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["demo", "released", "group:dp1"], ["demo.obj", "released", "public"], ["other", "internal", "group:ops"]
    ]  # fmt: skip
    assert run(["revoke", "demo.obj", "--public"]) == 0
    assert run(["revoke", "demo", "--group", "dp1"]) == 1
    assert "everybody reads demo" in capsys.readouterr().err
    assert run(["revoke", "demo", "--group", "dp1", "--open"]) == 0
    for wrong in (["nothing", "--public"], ["demo.nothing", "--public"], ["demo"], ["demo", "--public", "--user", "ann"]):
        assert run(["grant", *wrong]) == 1


def test_who_is_removed_leaves_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    monkeypatch.setenv("QENGINE_STORE", str(site.store.root))
    run(["user", "add", "ann"])
    site.load(site.write("mine.parquet", sky(50)), catalog="user_ann", table="mine")
    tables = UserTables(site.registry)
    tables.share("ann", "mine", "group:club")
    assert [one.name for one in tables.of("ann")] == ["mine"]
    assert run(["user", "remove", "Ann"]) == 0
    assert tables.of("ann") == ()
    assert site.registry.rights.listed() == ()
