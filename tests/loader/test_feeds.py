"""Loads of datasets of a Butler and of answers, in one step and on the command line."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

import qengine
from qengine.cli import app
from qengine.errors import ConfigError
from qengine.loader.feeds import load_answer, load_butler
from qengine.loader.request import LoadReport, LoadRequest
from qengine.loader.sources.butler import ButlerQuery
from qengine.loader.sources.open import InputOptions
from tests.loader.stores import Site, sky
from tests.support.butler_repo import make_repo, objects, put


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    logging.getLogger("lsst").setLevel(logging.ERROR)
    root = make_repo(tmp_path / "repo")
    for tract in range(3):
        put(root, "run1", tract, objects(tract))
    return root


def load(site: Site, repo: Path, *collections: str, where: str = "", **words: object) -> LoadReport:
    query = ButlerQuery(repo=str(repo), collections=collections, dataset_type="object", where=where)
    request = LoadRequest(catalog="demo", table="obj", key="objectId", **words)
    return load_butler(request, query, site.registry, site.store)


def test_datasets_of_a_butler_become_a_table(site: Site, repo: Path) -> None:
    report = load(site, repo, "run1")
    assert (report.stored, report.snapshot) == (150, 1)
    rows = site.read(site.snapshot().home).sort_by("objectId")
    assert (
        rows.select(["objectId", "ra"]).to_pydict()
        == pa.concat_tables(objects(t) for t in range(3)).select(["objectId", "ra"]).to_pydict()
    )
    known = site.registry.inputs("demo", "obj")
    assert {one.kind for one in known} == {"butler"}
    assert [one.label for one in known] == [f'object {{"skymap": "map", "tract": {tract}}}' for tract in range(3)]
    again = load(site, repo, "run1")
    assert (again.stored, again.skipped_inputs, site.registry.snapshot_number("demo")) == (0, 3, 1)
    assert len(site.registry.loads()) == 1


def test_an_increment_is_what_is_new_and_what_was_made_again(site: Site, repo: Path) -> None:
    load(site, repo, "run1", where="tract IN (0..1)")
    first = {one.label: one for one in site.registry.inputs("demo", "obj")}
    more = load(site, repo, "run1")
    assert (more.read, more.stored, more.skipped_inputs) == (50, 50, 2)
    put(repo, "run2", 1, objects(1, 60, shift=1.0))
    again = load(site, repo, "run2", "run1")
    assert (again.read, again.stored, again.skipped_inputs) == (60, 60, 2)
    wanted = pa.concat_tables([objects(0), objects(1, 60, shift=1.0), objects(2)])
    found = site.read(site.snapshot().home).sort_by("objectId").select(wanted.schema.names)
    assert found.to_pydict() == wanted.sort_by("objectId").to_pydict()
    now = {one.label: one for one in site.registry.inputs("demo", "obj")}
    same = [label for label in first if now[label].version == first[label].version]
    assert same == ['object {"skymap": "map", "tract": 0}']
    # a collection that is older than the rows: its version of the tract comes back
    back = load(site, repo, "run1")
    assert (back.read, site.snapshot().rows) == (50, 150)


def test_labels_of_datasets_are_their_own(site: Site, repo: Path) -> None:
    with pytest.raises(ConfigError, match="labels of their own"):
        load(site, repo, "run1", options=InputOptions(label="x"))


def test_the_command_line_loads_from_a_butler(tmp_path: Path, repo: Path) -> None:
    words = ["--collection", "run1", "--dataset-type", "object", "--into", "dp1", "--table", "Object", "--key", "objectId"]
    store = ["--store", str(tmp_path / "store")]
    result = CliRunner().invoke(app, ["load", "butler", str(repo), *words, "--where", "tract IN (1..2)", *store])
    assert result.exit_code == 0, result.stderr
    assert "dp1.Object: 100 rows" in " ".join(result.stderr.split())
    with qengine.connect(tmp_path / "store") as client:
        assert client.query("SELECT COUNT(*) AS n, MIN(objectId) AS k FROM dp1.Object").to_arrow().to_pylist() == [
            {"n": 100, "k": 1_000_000}
        ]
    wrong = CliRunner().invoke(app, ["load", "a.parquet", *words, *store])
    assert isinstance(wrong.exception, ConfigError)
    assert "of a Butler" in str(wrong.exception)


STATEMENT = "SELECT id, ra, dec, mag FROM demo.obj WHERE mag < 17"


def test_an_answer_becomes_a_table(site: Site) -> None:
    site.load(site.write("a.parquet", sky(300)), key="id")
    with qengine.connect(site.store.root) as client:
        request = LoadRequest(catalog="demo", table="bright", key="id")
        report = load_answer(request, STATEMENT, lambda: client.query(STATEMENT), site.registry, site.store)
        expected = client.query(STATEMENT).to_arrow().sort_by("id")
    assert report.stored == expected.num_rows > 0
    assert site.read(site.snapshot("bright").home).sort_by("id").select(expected.schema.names).to_pydict() == expected.to_pydict()
    [one] = site.registry.inputs("demo", "bright")
    assert (one.kind, one.label, one.rows_read or one.kind) == ("query", f"query {STATEMENT}", one.rows_read or "query")


def test_the_command_line_loads_an_answer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.load(site.write("a.parquet", sky(300)), key="id")
    site.registry.close()
    words = ["--into", "demo", "--table", "bright", "--key", "id", "--store", str(site.store.root)]
    result = CliRunner().invoke(app, ["load", "--query", STATEMENT, *words])
    assert result.exit_code == 0, (result.stderr, result.exception)
    with qengine.connect(site.store.root) as client:
        counts = [
            client.query(text).to_arrow()["n"][0].as_py()
            for text in (f"SELECT COUNT(*) AS n FROM ({STATEMENT}) x", "SELECT COUNT(*) AS n FROM demo.bright")
        ]
    assert counts[0] == counts[1] > 0
    for wrong in (["load", *words], ["load", "a.parquet", "--query", STATEMENT, *words]):
        assert isinstance(CliRunner().invoke(app, wrong).exception, ConfigError)


def test_options_of_inputs_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("1;10;20;-9\n2;11;21;5\n")
    words = ["--names", "id,ra,dec,n", "--delimiter", ";", "--null-word", "-9", "--label", "first", "--key", "id"]
    result = CliRunner().invoke(
        app, ["load", str(tmp_path / "a.dat"), *words, "--into", "demo", "--table", "obj", "--store", str(tmp_path / "store")]
    )
    assert result.exit_code == 0, (result.stderr, result.exception)
    with qengine.connect(tmp_path / "store") as client:
        assert client.query("SELECT id, n FROM demo.obj ORDER BY id").to_arrow().to_pylist() == [
            {"id": 1, "n": None},
            {"id": 2, "n": 5},
        ]
