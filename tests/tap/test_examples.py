"""/examples: what is shown of catalogues, by whom it was thought of, and that every statement runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pyvo
from lxml import etree

from qengine.app import connect
from qengine.catalog.definition import from_json, to_json
from qengine.catalog.felis_schema import read_schema
from qengine.catalog.model import NO_PARTS, Catalog, Example, Table, TableSnapshot
from qengine.catalog.tap_schema import tap_schema
from qengine.demo import SCHEMA
from qengine.opening import open_store
from qengine.tap.examples import document, examples
from tests.support.dp1 import load_dp1
from tests.unit.catalog.snapshots import snapshot

ROOT = Path(__file__).resolve().parents[2]


def empty(table: Table, schema: str) -> TableSnapshot:
    return TableSnapshot(table=replace(table, schema=schema), number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)


@pytest.fixture(scope="module")
def dp1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_dp1(tmp_path_factory.mktemp("dp1"))


def test_every_example_of_dp1_runs(dp1: Path) -> None:
    files, registry = open_store(dp1)
    with registry:
        shown = examples(registry.catalog())
    ids = {example.id for example in shown}
    assert {"dp1-Object-cone", "dp1-ForcedSource-of-one", "dp1-DiaSource-of-one", "dp1-DiaObject-match-Object"} <= ids
    assert {"dp1-Object-point-sources", "dp1-ForcedSource-light-curve", "dp1-ForcedSource-count", "tables"} <= ids
    with connect(dp1) as client:
        found = {example.id: client.query(example.query).to_arrow().num_rows for example in shown}
    assert files.root == dp1
    # Positions of the two directors are random, and what the sidecar has is of real places and objects.
    unlikely = {"dp1-DiaObject-match-Object", "dp1-Object-point-sources", "dp1-ForcedSource-light-curve"}
    assert [name for name, rows in found.items() if not rows and name not in unlikely] == []


@pytest.mark.parametrize("name", ["demo", "dp02", "dp1", "dp2", "apdb"])
def test_examples_of_shipped_sidecars_can_be_bound(name: str) -> None:
    tables = [empty(table, "other") for table in read_schema(ROOT / "catalogs" / name / "sharding.toml")]
    wanted = {f"other-{one.table.name}-{example.name}" for one in tables for example in one.table.examples}
    assert wanted or name == "apdb"
    assert wanted <= {example.id for example in examples(Catalog(tuple(tables)))}


def test_what_may_not_be_read_is_not_shown() -> None:
    base = snapshot()
    words = Example(
        name="both", title="Two tables", query="SELECT a.id FROM {catalog}.Object AS a JOIN {catalog}.secret AS s ON a.id = s.id"
    )
    one = replace(base, table=replace(base.table, examples=(words,)))
    secret = snapshot("secret")
    assert "demo-Object-both" in {example.id for example in examples(Catalog((one, secret)))}
    assert "secret" not in document("x", examples(Catalog((one,))))


def test_names_that_need_quotes_and_markup() -> None:
    base = snapshot()
    odd = replace(base, table=replace(base.table, name='a <b> & "c"', schema="my sky"))
    found = examples(Catalog((odd,)))
    assert all('"my sky"."a <b> & ""c"""' in example.query for example in found)
    tree = etree.fromstring(document("<x> & y", found).encode())
    assert [node.get("id") for node in tree.iter() if node.get("typeof")] == ["my-sky-a-b-c-count", "my-sky-a-b-c-cone"]


def test_document_of_a_service(http: httpx.Client, url: str) -> None:
    answer = http.get(f"{url}/examples")
    assert answer.headers["content-type"].startswith("application/xhtml+xml")
    tree = etree.fromstring(answer.content)
    assert tree.xpath("string(//@vocab)") == "http://www.ivoa.net/rdf/examples#"
    shown = [node for node in tree.iter() if node.get("typeof") == "example"]
    assert shown
    for node in shown:
        assert node.get("resource") == f"#{node.get('id')}"
        assert {"name", "query", "table"} <= {inner.get("property") for inner in node.iter()}
    assert f'<accessURL use="full">{url}/examples</accessURL>' in http.get(f"{url}/capabilities").text
    assert f'href="{url}/examples"' in http.get(url).text


def test_pyvo_runs_the_examples(url: str) -> None:
    tap = pyvo.dal.TAPService(url)
    shown = tap.examples
    assert shown
    for example in shown:
        assert example.execute() is not None


def test_examples_survive_the_registry() -> None:
    for table in read_schema(SCHEMA):
        assert table.examples
        assert from_json(to_json(table)) == table


def test_a_service_without_tables_has_one_example() -> None:
    assert [example.id for example in examples(Catalog(tap_schema(())))] == ["tables"]
