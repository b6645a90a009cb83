"""Descriptors of services in results: which links there are, for whom, and what a key may be."""

from __future__ import annotations

import io
from dataclasses import replace

import pyarrow as pa
import pytest
from astropy.io.votable import parse as parse_votable

from qengine.catalog.felis_schema import read_schema
from qengine.catalog.model import NO_PARTS, Catalog, Link, Table, TableSnapshot
from qengine.catalog.types import to_arrow
from qengine.errors import QueryError
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.tap.datalink import links, service_links, statement
from qengine.tap.formats.votable import Binary2Writer, TableDataWriter, metadata_document
from qengine.tap.formats.writer import ResultHeader
from tests.support.vo_schemas import faults

URL = "http://127.0.0.1/tap"


def published(table: Table) -> TableSnapshot:
    return TableSnapshot(table=replace(table, schema="dp1"), number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(tuple(map(published, read_schema("dp1"))))


def names(catalog: Catalog, text: str) -> list[tuple[int, str]]:
    columns = bind(parse(text, "adql"), catalog).columns
    return [(link.column, link.name) for link in service_links(columns, catalog, URL)]


def test_a_key_leads_to_the_children_and_to_what_the_sidecar_says(catalog: Catalog) -> None:
    assert names(catalog, "SELECT coord_ra, objectId AS id FROM dp1.Object") == [(1, "ForcedSource"), (1, "light-curve")]
    assert names(catalog, "SELECT d.diaObjectId FROM dp1.DiaObject AS d") == [(0, "DiaSource"), (0, "ForcedSourceOnDiaObject")]
    inner = "SELECT i FROM (SELECT objectId AS i FROM dp1.Object) AS o"
    assert names(catalog, inner) == [(0, "ForcedSource"), (0, "light-curve")]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT coord_ra FROM dp1.Object",
        "SELECT objectId + 1 AS objectId FROM dp1.Object",
        "SELECT COUNT(objectId) AS objectId FROM dp1.Object",
        "SELECT MIN(objectId) AS objectId FROM dp1.Object",
        "SELECT visit FROM dp1.Visit",
    ],
)
def test_other_columns_lead_nowhere(catalog: Catalog, text: str) -> None:
    assert names(catalog, text) == []


def test_what_may_not_be_read_is_not_described(catalog: Catalog) -> None:
    seen = Catalog(tuple(one for one in catalog if one.table.name != "Visit"))
    assert names(seen, "SELECT objectId FROM dp1.Object") == [(0, "ForcedSource")]
    none = Catalog(tuple(one for one in catalog if one.table.name == "Object"))
    assert names(none, "SELECT objectId FROM dp1.Object") == []


def test_keys_are_numbers(catalog: Catalog) -> None:
    snapshot = catalog.find("dp1", "Object")
    assert snapshot is not None
    link = links(snapshot.table, catalog)[0]
    assert statement(snapshot.table, link, "+7").endswith("objectId = 7")
    for value in ("7 OR 1 = 1", "", "7.0", "x", "9" * 20, "1e3", "７"):
        with pytest.raises(QueryError, match="objectId"):
            statement(snapshot.table, link, value)


def test_keys_are_texts(catalog: Catalog) -> None:
    ngc = next(table for table in read_schema("demo") if table.name == "ngc")
    own = replace(ngc, links=(replace(_any_link(catalog), query="SELECT name FROM {catalog}.ngc WHERE name = {key}"),))
    assert statement(own, own.links[0], "it's").endswith("name = 'it''s'")


@pytest.mark.parametrize("writer", [Binary2Writer, TableDataWriter])
def test_the_document(catalog: Catalog, writer: type[Binary2Writer]) -> None:
    columns = bind(parse("SELECT coord_ra, objectId FROM dp1.Object", "adql"), catalog).columns
    found = service_links(columns, catalog, URL)
    schema = pa.schema([(column.name, to_arrow(column.type)) for column in columns])
    header = ResultHeader(columns=columns, schema=schema, links=found)
    made = writer(header)
    document = made.begin() + made.finish(is_overflow=True)
    assert faults(document) == []
    assert faults(metadata_document(header, is_overflow=False).encode()) == []
    tree = parse_votable(io.BytesIO(document), verify="exception")
    results, *services = tree.resources
    assert results.type == "results"
    assert [service.utype for service in services] == ["adhoc:service"] * 2
    for service, link in zip(services, found, strict=True):
        assert {param.name: param.value for param in service.params}["accessURL"] == link.url
        [given] = service.groups[0].entries
        assert given.name == "ID"
        assert tree.get_field_by_id(given.ref).name == "objectId"


def _any_link(catalog: Catalog) -> Link:
    snapshot = catalog.find("dp1", "Object")
    assert snapshot is not None
    return snapshot.table.links[0]
