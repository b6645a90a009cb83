"""Statements over older snapshots, beside and together with the latest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import qengine
from qengine.client.local import LocalClient
from qengine.errors import QEngineError
from qengine.loader.collect import collect
from tests.loader.stores import Site, sky


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Snapshot 1: obj. Snapshot 2: also later. Snapshot 3: 1 again, by rolling back."""
    made = Site(tmp_path_factory.mktemp("versions"))
    made.load(made.write("a.parquet", sky(900, seed=1)), key="id", rows_per_tile=400)
    made.load(made.write("b.parquet", sky(300, seed=2)), key="id", table="later", rows_per_tile=400)
    made.registry.releases.tag("demo", 2, "DP1")
    made.registry.releases.rollback("demo", 1)
    return made


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[LocalClient]:
    with qengine.connect(site.store.root) as found:
        assert isinstance(found, LocalClient)
        yield found


def one(client: LocalClient, text: str, lang: str = "adql") -> object:
    return client.query(text, lang=lang).to_arrow().to_pylist()[0]


@pytest.mark.parametrize("lang", ["adql", "sql"])
@pytest.mark.parametrize("version", ["VERSION => 2", "VERSION => 'DP1'", "VERSION => 'dp1'"])
def test_a_table_of_an_older_snapshot(client: LocalClient, version: str, lang: str) -> None:
    assert one(client, f"SELECT COUNT(*) AS n FROM demo.later AT ({version})", lang) == {"n": 309}
    assert one(client, f"SELECT COUNT(*) AS n FROM demo.later AT ({version}) AS l WHERE l.mag < 15", lang) == one(
        client, f"SELECT COUNT(*) AS n FROM demo.later AT ({version}) WHERE mag < 15", lang
    )


def test_what_the_latest_does_not_have(client: LocalClient) -> None:
    with pytest.raises(QEngineError, match="later"):
        client.query("SELECT * FROM demo.later")


def test_a_time(client: LocalClient, site: Site) -> None:
    first, second, _ = (entry.published for entry in site.registry.snapshots("demo"))
    text = "SELECT COUNT(*) AS n FROM demo.{} AT (TIMESTAMP => '{}')"
    assert one(client, text.format("later", second.isoformat())) == {"n": 309}
    with pytest.raises(QEngineError, match="later"):
        client.query(text.format("later", first.isoformat()))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT COUNT(*) AS n FROM demo.obj AT (VERSION => 1) AS a JOIN demo.obj AS b ON a.id = b.id AND a.ra = b.ra",
        "SELECT COUNT(*) AS n FROM demo.obj AT (VERSION => 1) a JOIN demo.obj AT (VERSION => 2) b ON a.id = b.id AND a.ra = b.ra",
        "SELECT COUNT(*) AS n FROM demo.obj AT (VERSION => 1) AS a WHERE EXISTS (SELECT 1 FROM demo.obj AS b WHERE a.id = b.id)",
    ],
)
def test_two_snapshots_in_one_statement(client: LocalClient, text: str) -> None:
    assert one(client, text) == {"n": 909}


def test_keys_of_different_snapshots_are_no_proof_of_the_same_place(client: LocalClient) -> None:
    plan = client.explain("SELECT a.ra FROM demo.obj AT (VERSION => 1) AS a JOIN demo.obj AS b ON a.id = b.id").to_text()
    assert "joined by key" not in plan
    near = client.explain(
        "SELECT a.ra FROM demo.obj AT (VERSION => 1) AS a JOIN demo.obj AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.001"
    )
    assert "joined by distance" in near.to_text()


def test_results_say_which_snapshot_they_read(client: LocalClient) -> None:
    result = client.query("SELECT a.id FROM demo.later AT (VERSION => 2) AS a")
    assert dict(result.snapshots) == {"demo@2": 2}
    assert client.query("SELECT id FROM demo.obj", snapshots={"demo": "DP1"}).snapshots == {"demo": 2}


@pytest.mark.parametrize(
    ("text", "lang", "message"),
    [
        ("SELECT id FROM demo.obj AT (VERSION => 9)", "adql", "no snapshot 9"),
        ("SELECT id FROM demo.obj AT (VERSION => 'DP9')", "adql", "no snapshot or tag 'DP9'"),
        ("SELECT id FROM demo.obj AT (VERSION => 1 + 1)", "adql", "a version is a number"),
        ("SELECT id FROM demo.obj AT (VERSION => -1)", "sql", "a version is a number"),
        ("SELECT id FROM nothing.obj AT (VERSION => 1)", "adql", "no catalogue nothing"),
        ("SELECT id FROM nothing AT (VERSION => 1)", "adql", "no table has the name nothing"),
        ("SELECT id FROM demo.obj AT (VERSION => 1)", "adql-strict", "not ADQL 2.1"),
    ],
)
def test_versions_that_are_none(client: LocalClient, text: str, lang: str, message: str) -> None:
    with pytest.raises(QEngineError, match=message) as caught:
        client.query(text, lang=lang)
    assert caught.value.span is not None
    assert caught.value.excerpt


def test_collecting_what_expired(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.load(site.write("a.parquet", sky(900, seed=1)), key="id", rows_per_tile=400)
    site.load(site.write("b.parquet", sky(300, seed=2)), key="id", table="later", rows_per_tile=400)
    site.registry.releases.rollback("demo", 1)
    assert site.registry.releases.expire("demo", keep=1) == (1, 2)
    done = collect(site.store.root, site.registry, "demo", grace=timedelta(hours=1))
    assert (done.snapshots, done.files) == ((), 0)
    done = collect(site.store.root, site.registry, "demo", grace=timedelta(0))
    assert done.snapshots == (1, 2)
    assert done.trees == 2  # obj's is that of snapshot 1, which the latest is again; later had one, and its margins
    assert done.bytes > 0
    left = site.files()
    assert not [name for name in left if name.startswith("demo/later/parts")]
    with qengine.connect(site.store.root) as client:
        assert client.query("SELECT COUNT(*) AS n FROM demo.obj").to_arrow().to_pylist() == [{"n": 909}]
        assert client.query("SELECT COUNT(DISTINCT id) AS n FROM demo.obj").to_arrow().to_pylist() == [{"n": 909}]
    assert collect(site.store.root, site.registry, "demo", grace=timedelta(0)).files == 0
