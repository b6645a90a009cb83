"""Rows that repeat a key, put aside: rows in = rows stored + rows in the quarantine file, which can be corrected and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.catalog.model import TableKind
from qengine.errors import ConfigError, DuplicateKeyError
from qengine.loader.keys import find_keys
from qengine.loader.request import LoadReport, OnDuplicate
from qengine.loader.sources.open import InputOptions
from tests.loader.stores import Site

ASIDE = {"key": "id", "on_duplicate": OnDuplicate.QUARANTINE, "rows_per_tile": 20}
REPEATED, THERE = "an earlier row of the load has the same key", "a row with this key is in the table already"


def rows(ids: Sequence[int | None], *, mark: int = 0, dec: Sequence[float] | None = None) -> pa.Table:
    """Rows at places that follow from their numbers; `mark` says which of several rows with a key one is."""
    count = len(ids)
    at = np.arange(count) + 100 * mark
    columns = {
        "id": pa.array(ids, pa.int64()),
        "ra": at * 7.3 % 360,
        "dec": dec if dec is not None else at % 170 - 85.0,
        "mark": at,
    }
    return pa.table(columns)


def aside(site: Site, report: LoadReport) -> list[dict[str, Any]]:
    if not report.quarantined:
        assert report.quarantine == ""
        return []
    found: list[dict[str, Any]] = pq.read_table(site.store.path(report.quarantine)).to_pylist()
    assert len(found) == report.quarantined
    return found


def stored(site: Site) -> list[dict[str, Any]]:
    found = site.snapshot()
    tables = [site.read(parts) for parts in (found.home, found.orphan) if len(parts)]
    return [row for table in tables for row in table.to_pylist()]


def accounts(site: Site, report: LoadReport, given: int, before: int = 0) -> None:
    """Check the counts of the report, the registry and the files, and that the index holds just the keys that are stored."""
    assert (report.read, report.stored + report.quarantined) == (given, given)
    own = [one for one in site.registry.inputs("demo") if one.load == site.registry.loads()[-1].number]
    assert sum(one.rows_quarantined for one in own) == report.quarantined
    assert sum(one.rows_stored for one in own) == report.stored
    there = stored(site)
    assert len(there) == before + report.stored
    keys = [row["id"] for row in there if row["id"] is not None]
    assert len(keys) == len(set(keys))
    index = site.snapshot().key_index
    assert index is not None
    assert index.rows == len(keys)
    found, cells = find_keys(index, site.store, pa.array(sorted(keys), pa.int64()))
    assert dict(zip(found.to_pylist(), cells.tolist(), strict=True)) == {
        row["id"]: row["_healpix_29"] for row in there if row["id"] is not None
    }


def test_keys_that_are_repeated_in_one_input(site: Site) -> None:
    path = site.write("a.parquet", rows([1, 2, 1, 3, 1, None, None]))
    with pytest.raises(DuplicateKeyError, match="'id' is not unique: 2 rows"):
        site.load(path, key="id")
    report = site.load(path, **ASIDE)
    accounts(site, report, 7)
    found = aside(site, report)
    assert [(row["_reason"], row["_file"], row["_row"], row["id"]) for row in found] == [
        (REPEATED, str(path), 3, 1),
        (REPEATED, str(path), 5, 1),
    ]
    assert "quarantined: 2 rows of 7" in report.to_text()


def test_keys_that_are_repeated_across_inputs_of_a_load(site: Site) -> None:
    first, second = site.write("a.parquet", rows([1, 2, 3])), site.write("b.parquet", rows([3, 4, 4, 1], mark=1))
    report = site.load([first, second], **ASIDE)
    accounts(site, report, 7)
    found = aside(site, report)
    assert [(row["_file"], row["_row"], row["id"], row["_reason"]) for row in found] == [
        (str(second), 1, 3, REPEATED),
        (str(second), 3, 4, REPEATED),
        (str(second), 4, 1, REPEATED),
    ]
    assert sorted((row["id"], row["mark"]) for row in stored(site)) == [(1, 0), (2, 1), (3, 2), (4, 101)]


def test_keys_of_rows_that_are_published(site: Site) -> None:
    site.load(site.write("a.parquet", rows([1, 2, 3])), key="id", rows_per_tile=20)
    path = site.write("b.parquet", rows([3, 4, 4, 1, 3], mark=1))
    with pytest.raises(DuplicateKeyError):
        site.load(path)
    report = site.load(path, **ASIDE)
    accounts(site, report, 5, before=3)
    found = {row["_row"]: (row["id"], row["_reason"]) for row in aside(site, report)}
    assert found == {1: (3, THERE), 3: (4, REPEATED), 4: (1, THERE), 5: (3, REPEATED)}
    assert sorted((row["id"], row["mark"]) for row in stored(site)) == [(1, 0), (2, 1), (3, 2), (4, 101)]


def test_a_row_with_two_faults_is_put_aside_once(site: Site) -> None:
    """A row with an impossible position holds no key: the next one with its key is the first."""
    path = site.write("a.parquet", rows([1, 1, 1, 2], dec=[99.0, 5.0, 95.0, 6.0]))
    report = site.load(path, **ASIDE)
    accounts(site, report, 4)
    assert [(row["_row"], row["_reason"]) for row in aside(site, report)] == [
        (1, "declination outside [-90, 90]"),
        (3, "declination outside [-90, 90]"),
    ]


def test_the_rows_of_a_replaced_input_are_not_in_the_way(site: Site) -> None:
    label = {"options": InputOptions(label="tract")}
    site.load(site.write("a.parquet", rows([1, 2, 3])), **ASIDE, **label)
    report = site.load(site.write("b.parquet", rows([2, 3, 4, 4], mark=1)), **ASIDE, **label)
    assert (report.read, report.stored, report.quarantined, report.removed) == (4, 3, 1, 3)
    assert sorted((row["id"], row["mark"]) for row in stored(site)) == [(2, 100), (3, 101), (4, 102)]


def test_all_rows_may_be_put_aside(site: Site) -> None:
    path = site.write("a.parquet", rows([1, 2]))
    site.load(path, **ASIDE)
    report = site.load(path, **ASIDE, options=InputOptions(label="again"))
    accounts(site, report, 2, before=2)
    assert report.stored == 0


def test_the_file_is_queried_corrected_and_loaded_again(site: Site, tmp_path: Path) -> None:
    report = site.load(site.write("a.parquet", rows([1, 2, 1, 2, 5])), **ASIDE)
    path = site.store.path(report.quarantine)
    asked = duckdb.sql(f"SELECT _reason, count(*), min(_row), max(_row) FROM '{path}' GROUP BY 1").fetchall()
    assert asked == [(REPEATED, 2, 3, 4)]
    corrected = tmp_path / "corrected.parquet"
    duckdb.sql(f"COPY (SELECT id + 100 AS id, ra, dec, mark FROM '{path}') TO '{corrected}' (FORMAT parquet)")
    again = site.load(corrected)
    accounts(site, again, 2, before=3)
    assert sorted(row["id"] for row in stored(site)) == [1, 2, 5, 101, 102]


def test_the_file_itself_is_a_table(site: Site) -> None:
    report = site.load(site.write("a.parquet", rows([1, 1])), **ASIDE)
    found = site.load(site.store.path(report.quarantine), table="aside", kind=TableKind.REPLICATED)
    assert found.stored == 1
    assert [column.name for column in site.snapshot("aside").table.columns if not column.hidden][:3] == ["_reason", "_file", "_row"]


def test_only_directors_with_keys_can_tell(site: Site) -> None:
    path = site.write("a.parquet", rows([1, 1]))
    with pytest.raises(ConfigError, match="no index of unique keys"):
        site.load(path, on_duplicate=OnDuplicate.QUARANTINE, kind=TableKind.REPLICATED)
    with pytest.raises(ConfigError, match="no index of unique keys"):
        site.load(path, on_duplicate=OnDuplicate.QUARANTINE, key="")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=1, max_size=15), min_size=1, max_size=4))
def test_any_history_keeps_the_first_row_of_each_key(
    tmp_path_factory: pytest.TempPathFactory, loads: list[list[int | None]]
) -> None:
    site = Site(tmp_path_factory.mktemp("quarantine"))
    expected: dict[int, int] = {}
    without, before = 0, 0
    for number, ids in enumerate(loads):
        given_rows = rows(ids, mark=number)
        for key, mark in zip(ids, given_rows["mark"].to_pylist(), strict=True):
            if key is not None:
                expected.setdefault(key, mark)
        without += ids.count(None)
        report = site.load(site.write(f"{number}.parquet", given_rows), **ASIDE)
        accounts(site, report, len(ids), before=before)
        before += report.stored
        aside(site, report)
    there = stored(site)
    assert {row["id"]: row["mark"] for row in there if row["id"] is not None} == expected
    assert sum(row["id"] is None for row in there) == without
