"""Where a result comes from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from qengine.catalog.model import Catalog, Release
from qengine.tap.provenance import provenance
from tests.unit.catalog.snapshots import snapshot


def test_services_and_releases_are_named_once() -> None:
    base = snapshot()
    dp1 = replace(base.table, schema="dp1", release=Release(title="Data Preview 1", doi="10.71929/x", licence="CC BY 4.0"))
    other = replace(base.table, schema="gaia", release=Release(title="Gaia DR3", citation="2023A&A...674A...1G"))
    catalog = Catalog(tuple(replace(base, table=table) for table in (dp1, replace(dp1, name="Source"), other)))
    moment = datetime(2026, 11, 23, 6, 7, 8, tzinfo=UTC)
    found = provenance(catalog, {"dp1": 3}, requested=moment)
    assert found[1:] == (
        ("service_protocol", "ivo://ivoa.net/std/TAP"),
        ("request_date", "2026-11-23T06:07:08Z"),
        ("title", "Data Preview 1"),
        ("publication_id", "10.71929/x"),
        ("rights", "CC BY 4.0"),
    )
    both = provenance(catalog, {"dp1@2": 2, "gaia": 1}, requested=moment)
    assert ("citation", "2023A&A...674A...1G") in both
    assert ("publication_id", "10.71929/x") in both
    assert provenance(catalog, {}, requested=moment) == found[:3]
