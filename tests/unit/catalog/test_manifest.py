"""Manifests come back as they were written, fast, and broken ones are named."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.manifest import read_definition, read_header, read_manifest, write_manifest
from qengine.catalog.model import NO_PARTS, ColumnStats
from qengine.errors import BugError, RegistryError
from tests.unit.catalog.snapshots import assert_same, parts, snapshot


def test_round_trip_is_lossless(tmp_path: Path) -> None:
    written = snapshot()
    write_manifest(written, tmp_path / "m.parquet")
    assert_same(read_manifest(tmp_path / "m.parquet"), written)
    assert_same(read_manifest(tmp_path / "m.parquet", written.table), written)
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]


def test_roles_keep_their_own_parts_and_statistics(tmp_path: Path) -> None:
    margin = replace(parts(4, seed=9), stats={"id": parts(4, seed=9).stats["id"]})
    written = replace(snapshot(), home=NO_PARTS, margin=margin, key_index=None, margin_arcsec=0.0)
    write_manifest(written, tmp_path / "m.parquet")
    read = read_manifest(tmp_path / "m.parquet")
    assert_same(read, written)
    assert "ra" not in read.margin.stats
    assert read.margin.stats.get("ra") is None
    with pytest.raises(KeyError):
        read.margin.stats["ra"]


def test_text_that_is_null_everywhere_in_one_role(tmp_path: Path) -> None:
    """Statistics of a role without a single value cannot tell text from numbers."""
    some, none = parts(3), parts(2, seed=9)
    nothing = replace(none.stats["id"], is_known=np.zeros(2, np.bool_), nulls=none.rows)
    orphan = replace(none, stats={"name": replace(nothing, minimum=np.zeros(2, np.int64), maximum=np.zeros(2, np.int64))})
    written = replace(snapshot(), home=replace(some, stats={"name": some.stats["name"]}), orphan=orphan, margin=NO_PARTS)
    write_manifest(written, tmp_path / "m.parquet")
    read = read_manifest(tmp_path / "m.parquet").orphan.stats["name"]
    assert not read.is_known.any()
    assert read.nulls.tolist() == none.rows.tolist()


def test_statistics_of_another_type_are_not_known(tmp_path: Path) -> None:
    home, margin = parts(3), parts(2, seed=4)
    nothing = np.zeros(2, np.int64)
    margin = replace(margin, stats={"name": ColumnStats(nothing, nothing, nothing + 2, np.zeros(2, np.bool_))})
    write_manifest(replace(snapshot(), home=home, margin=margin), tmp_path / "m.parquet")
    read = read_manifest(tmp_path / "m.parquet")
    assert read.home.stats["name"].minimum.tolist() == home.stats["name"].minimum.tolist()
    assert read.margin.stats["name"].is_known.tolist() == [False, False]
    assert read.margin.stats["name"].nulls.tolist() == [2, 2]


def test_statistics_outlive_the_file(tmp_path: Path) -> None:
    write_manifest(snapshot(), tmp_path / "m.parquet")
    read = read_manifest(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").unlink()
    assert read.home.stats["ra"].maximum.tolist() == snapshot().home.stats["ra"].maximum.tolist()


def test_empty_table(tmp_path: Path) -> None:
    written = replace(snapshot(), home=NO_PARTS, orphan=NO_PARTS)
    write_manifest(written, tmp_path / "m.parquet")
    assert_same(read_manifest(tmp_path / "m.parquet"), written)


def test_header_says_what_it_is(tmp_path: Path) -> None:
    write_manifest(replace(snapshot("T", schema="c"), number=42), tmp_path / "m.parquet")
    header = read_header(tmp_path / "m.parquet")
    assert (header.catalog, header.table, header.number, header.parts) == ("c", "T", 42, (5, 2, 0))
    assert read_definition(tmp_path / "m.parquet").column("ra").unit == "deg"


def test_a_million_parts_in_a_second(tmp_path: Path) -> None:
    written = replace(snapshot(), home=parts(1_000_000, groups=1), key_index=None)
    path = tmp_path / "m.parquet"
    write_manifest(written, path)
    fastest = 9.0
    for _ in range(3):
        begin = time.perf_counter()
        read = read_manifest(path)
        fastest = min(fastest, time.perf_counter() - begin)
    assert fastest < 1.0
    assert len(read.home) == 1_000_000
    assert read.home.row_groups.offset[-1] == 1_000_000


def test_broken_manifests_are_registry_errors(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="missing"):
        read_manifest(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(RegistryError, match="cannot be read"):
        read_manifest(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(RegistryError, match="not a manifest"):
        read_header(tmp_path / "other.parquet")
    write_manifest(snapshot(), tmp_path / "cut.parquet")
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-100])
    with pytest.raises(RegistryError, match=r"cut\.parquet"):
        read_manifest(tmp_path / "cut.parquet")


def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(snapshot(), path)
    content = pq.read_table(path)
    metadata = {key: value.replace(b'"format": 1', b'"format": 99') for key, value in content.schema.metadata.items()}
    pq.write_table(content.replace_schema_metadata(metadata), path)
    with pytest.raises(RegistryError, match="99"):
        read_manifest(path)


def test_inline_tables_have_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(BugError):
        write_manifest(replace(snapshot(), inline=pa.table({"a": [1]})), tmp_path / "m.parquet")


def test_bounds_say_whether_they_are_values(tmp_path: Path) -> None:
    some = parts(3)
    exact = np.array([True, False, True])
    written = replace(snapshot(), home=replace(some, stats={"id": replace(some.stats["id"], is_exact=exact)}))
    write_manifest(written, tmp_path / "m.parquet")
    found = read_manifest(tmp_path / "m.parquet")
    assert found.home.stats["id"].is_exact is not None
    assert found.home.stats["id"].is_exact.tolist() == exact.tolist()
    assert not any(_exact(found.orphan.stats["id"], len(found.orphan)))


def test_manifests_without_that_answer_nothing(tmp_path: Path) -> None:
    write_manifest(snapshot(), tmp_path / "m.parquet")
    whole = pq.read_table(tmp_path / "m.parquet")
    pq.write_table(whole.drop([name for name in whole.column_names if name.startswith("exact:")]), tmp_path / "old.parquet")
    found = read_manifest(tmp_path / "old.parquet").home.stats["id"]
    assert found.is_exact is None
    assert found.minimum.tolist() == snapshot().home.stats["id"].minimum.tolist()


def _exact(stats: ColumnStats, count: int) -> list[bool]:
    return [False] * count if stats.is_exact is None else stats.is_exact.tolist()
