"""The verbs about snapshots, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from qengine.cli import run
from tests.loader.stores import Site, sky


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.load(made.write("a.parquet", sky(300, seed=1)), key="id", rows_per_tile=400)
    made.load(made.write("b.parquet", sky(200, seed=2)), key="id", table="later", rows_per_tile=400)
    return made


def ask(site: Site, *arguments: str) -> int:
    return run([*arguments, "--store", str(site.store.root)])


def test_from_tag_to_collected(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(site, "tag", "demo", "1", "DP1", "--doi", "10.1/x", "--note", "the first") == 0
    assert ask(site, "rollback", "demo", "DP1", "--why", "bad photometry") == 0
    capsys.readouterr()
    assert ask(site, "snapshots", "demo") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["snapshot", "1", "2", "3"]
    assert "DP1 (10.1/x)" in lines[1]
    assert "bad photometry" in lines[3]
    assert "latest" in lines[3]
    assert ask(site, "expire", "demo", "--keep", "1") == 0
    assert capsys.readouterr().err == "expired: 2\n"
    assert ask(site, "collect", "demo", "--grace", "0") == 0
    assert "snapshots 2 are gone" in capsys.readouterr().err
    assert ask(site, "query", "SELECT COUNT(*) AS n FROM demo.obj AT (VERSION => 'DP1')", "--format", "csv") == 0
    assert capsys.readouterr().out == "n\r\n309\r\n"
    assert ask(site, "query", "SELECT COUNT(*) AS n FROM demo.obj AT (VERSION => 2)", "--format", "csv") == 1
    assert "snapshot 2 of demo expired" in capsys.readouterr().err
    assert ask(site, "untag", "demo", "DP1") == 1
    pointer = (site.store.root / "demo" / "obj" / "collection.properties").read_text()
    assert "snapshots/1" in pointer


def test_states_and_budgets(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(site, "promote", "demo", "internal", "--group", "science", "--group", "ops") == 0
    assert capsys.readouterr().err == "demo is internal for science, ops\n"
    assert ask(site, "promote", "demo", "frozen") == 0
    assert ask(site, "promote", "demo", "released") == 1
    assert "demo is frozen" in capsys.readouterr().err
    assert ask(site, "budget", "1GB", "--catalog", "demo") == 0
    assert "of 1.000 GB" in capsys.readouterr().out
    assert ask(site, "budget", "ten minutes") == 1
    assert ask(site, "budget", "60s") == 1
    assert ask(site, "budget", "none", "--catalog", "demo") == 0
    assert capsys.readouterr().out == ""


def test_a_load_over_its_budget_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(site, "budget", "10kB", "--catalog", "demo") == 0
    more = site.write("c.parquet", sky(300, seed=3))
    before = site.files()
    assert run(["load", str(more), "--store", str(site.store.root), "--into", "demo", "--table", "third"]) == 1
    assert "may take 10.0 kB" in capsys.readouterr().err
    assert site.registry.snapshot_number("demo") == 2
    assert not [name for name in site.files() - before if "/third/parts" in name]
