"""Replicated tables are compacted like others: fewer parts, the same rows, and names of dropped columns are free again."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qengine.catalog.loads import LoadState
from qengine.catalog.model import TableKind
from qengine.loader.load import load
from qengine.loader.once import compact
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import InputOptions
from qengine.loader.transaction import Transaction
from tests.loader.stores import Site


def put(site: Site, label: str, start: int, count: int = 3) -> None:
    rows = pa.table({"visit": range(start, start + count), "band": [f"b{i}" for i in range(count)]})
    site.load(site.write(f"{label}.parquet", rows), table="visit", kind=TableKind.REPLICATED, options=InputOptions(label=label))


def test_many_small_parts_become_one(site: Site) -> None:
    for number in range(4):
        put(site, str(number), 10 * number)
    before = site.snapshot("visit")
    rows = site.read(before.home).sort_by("visit")
    assert len(before.home) == 4
    [report] = compact("demo", ["visit"], site.registry, site.store)
    after = site.snapshot("visit")
    assert len(after.home) == 1
    assert site.read(after.home).sort_by("visit") == rows, "with the load and input that each row came by"
    assert (report.parts, report.stored, report.removed) == (1, 0, 0)
    put(site, "2", 100, count=5)  # replaces the rows of an input that are in the part of all
    assert sorted(site.read(site.snapshot("visit").home)["visit"].to_pylist()) == sorted(
        [0, 1, 2, 10, 11, 12, 30, 31, 32, *range(100, 105)]
    )


def test_what_has_one_part_has_nothing_to_do(site: Site) -> None:
    put(site, "a", 0)
    before = site.snapshot("visit")
    [report] = compact("demo", [], site.registry, site.store)
    assert site.snapshot("visit").home.uri.equals(before.home.uri)
    assert "demo.visit: nothing to do" in report.to_text()


def test_names_of_dropped_columns_are_free_again(site: Site) -> None:
    put(site, "a", 0)
    text = (
        "name: demo\ntables:\n- name: visit\n  columns:\n  - {name: visit, datatype: long, description: a number}\n"
        "  - {name: %s, datatype: %s, length: 9, description: a word}\n"
    )
    schema = site.inputs / "demo.yaml"
    schema.write_text(text % ("word", "string"))
    named: dict[str, Any] = {"catalog": "demo", "table": "visit", "schema": schema, "evolve": True, "kind": TableKind.REPLICATED}
    load(LoadRequest(inputs=(site.write("b.parquet", {"visit": [7], "word": ["w"]}),), **named), site.registry, site.store)
    assert site.snapshot("visit").table.dropped == ("band",)
    compact("demo", ["visit"], site.registry, site.store)
    assert site.snapshot("visit").table.dropped == ()
    found = site.read(site.snapshot("visit").home)
    assert "band" not in found.column_names
    assert sorted(zip(found["visit"].to_pylist(), found["word"].to_pylist(), strict=True), key=str) == [
        (0, None), (1, None), (2, None), (7, "w"),
    ]  # fmt: skip


def test_a_compaction_that_died_is_begun_again(site: Site) -> None:
    for number in range(3):
        put(site, str(number), 10 * number)
    dead = Transaction.begin("demo", site.registry, site.store, context={"operation": "compact", "compact": ["visit"]})
    site.registry.commit_load(dead.id)
    compact("demo", ["visit"], site.registry, site.store)
    assert dead.load.state is LoadState.ABORTED
    assert len(site.snapshot("visit").home) == 1
