"""Parts: named by their bytes, encoded for scans, whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.errors import IntegrityError
from qengine.storage.objects import sha256_file
from qengine.storage.parts import PartFormat, part_path, row_group_rows, verify_part, write_part


def rows(count: int = 200_000) -> pa.Table:
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "_healpix_29": np.sort(rng.integers(0, 2**60, count)),
            "id": rng.integers(0, 2**62, count),
            "mag": rng.normal(size=count),
            "err": rng.normal(size=count).astype(np.float32),
            "band": np.array(list("ugrizy"))[rng.integers(0, 6, count)],
            "flag": rng.random(count) < 0.1,
            "_input": np.zeros(count, np.int32),
            "when": pa.array(rng.integers(0, 10**15, count), pa.timestamp("us")),
            "text": [f"t{i}" if i % 3 else None for i in range(count)],
            "list": pa.array([[1.0, float(i)] for i in range(count)], pa.list_(pa.float64())),
        }
    )


def test_written_rows_come_back(tmp_path: Path) -> None:
    table = rows()
    part = write_part(table, tmp_path, PartFormat())
    assert part.path == part_path(tmp_path, part.digest)
    assert part.digest == sha256_file(part.path)
    assert part.bytes == part.path.stat().st_size
    assert part.rows == table.num_rows
    assert pq.read_table(part.path).equals(table)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [part.path]


def test_the_same_rows_have_the_same_name(tmp_path: Path) -> None:
    table = rows(5000)
    first = write_part(table, tmp_path, PartFormat())
    again = write_part(pa.concat_tables([table.slice(0, 100), table.slice(100)]).combine_chunks(), tmp_path, PartFormat())
    other = write_part(table.slice(1), tmp_path, PartFormat())
    assert first == again
    assert other.digest != first.digest


def test_encodings_suit_scans(tmp_path: Path) -> None:
    table = rows()
    footer = pq.read_metadata(write_part(table, tmp_path, PartFormat()).path)
    assert footer.num_row_groups == 4
    assert footer.row_group(0).num_rows == 65_536
    group = footer.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert all(column.compression in ("LZ4", "LZ4_RAW") for column in columns.values())
    for name in ("mag", "err"):
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings
    for name in ("_healpix_29", "id", "when"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    assert {name for name, column in columns.items() if column.has_dictionary_page} == {"band", "_input"}
    for name in ("_healpix_29", "id", "mag", "band", "text"):
        assert columns[name].has_column_index
        assert columns[name].statistics.has_min_max
    assert group.sorting_columns[0].column_index == 0


def test_page_checksums_catch_a_flipped_bit(tmp_path: Path) -> None:
    part = write_part(rows(50_000), tmp_path, PartFormat())
    column = pq.read_metadata(part.path).row_group(0).column(2)
    raw = bytearray(part.path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    part.path.write_bytes(raw)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(part.path, columns=["mag"], page_checksum_verification=True)
    with pytest.raises(IntegrityError, match=part.digest):
        verify_part(part.path, part.digest)


def test_verify_accepts_what_was_written_and_names_what_is_missing(tmp_path: Path) -> None:
    part = write_part(rows(100), tmp_path, PartFormat())
    verify_part(part.path, part.digest)
    with pytest.raises(IntegrityError, match="cannot be read"):
        verify_part(tmp_path / "none.parquet", part.digest)


def test_bloom_filter_where_asked(tmp_path: Path) -> None:
    table = rows(80_000)
    plain = write_part(table, tmp_path / "a", PartFormat())
    bloomed = write_part(table, tmp_path / "b", PartFormat(bloom=("id",)))
    assert pq.read_metadata(plain.path).row_group(0).column(1).bloom_filter_offset is None
    assert pq.read_metadata(bloomed.path).row_group(1).column(1).bloom_filter_offset is not None


def test_wide_rows_make_small_row_groups() -> None:
    wide = pa.table({"x": pa.array([bytes(10_000)] * 2000)})
    assert row_group_rows(wide) == (64 << 20) // (wide.nbytes // 2000)
    assert row_group_rows(rows(10).slice(0, 0)) == 65_536


def test_units_travel_with_large_parts_only(tmp_path: Path) -> None:
    def with_unit(count: int) -> pa.Table:
        schema = pa.schema([pa.field("x", pa.float64(), metadata={"unit": "deg"})])
        return pa.table([np.arange(count, dtype=np.float64)], schema=schema)

    large = pq.read_schema(write_part(with_unit(600_000), tmp_path, PartFormat()).path)
    small = pq.read_schema(write_part(with_unit(10), tmp_path, PartFormat()).path)
    assert large.field("x").metadata[b"unit"] == b"deg"
    assert b"unit" not in (small.field("x").metadata or {})


def test_an_archive_can_be_zstd(tmp_path: Path) -> None:
    part = write_part(rows(1000), tmp_path, PartFormat(compression="zstd", compression_level=3))
    assert pq.read_metadata(part.path).row_group(0).column(0).compression == "ZSTD"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    class Unwritable(PartFormat):
        pass

    with pytest.raises((OSError, ValueError, pa.ArrowException)):
        write_part(rows(10), tmp_path, Unwritable(compression="brotli-ish"))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
