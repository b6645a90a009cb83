"""Statistics bound the values or say that they do not know."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.errors import InputError
from qengine.storage.statistics import Bounds, PartRecord, part_record, to_parts


def record(
    folder: Path, columns: dict[str, pa.Array], *, name: str = "p.parquet", has_nan: bool = False, **options: object
) -> PartRecord:
    pq.write_table(pa.table(columns), folder / name, **options)
    return part_record(folder / name, start=0, stop=100, has_nan=has_nan)


def test_bounds_of_every_type(tmp_path: Path) -> None:
    when = [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), None, dt.datetime(2030, 1, 1)]
    found = record(
        tmp_path,
        {
            "i": pa.array([3, None, -7], pa.int16()),
            "u": pa.array([1, 2, 2**64 - 1], pa.uint64()),
            "f": pa.array([1.5, float("nan"), None], pa.float32()),
            "z": pa.array([-0.0, 0.0, -0.0]),
            "t": pa.array(["b", "é", "a"]),
            "d": pa.array(["x", "y", "x"]).dictionary_encode(),
            "long": pa.array(["y" * 1000, "y", "x"]),
            "us": pa.array(when, pa.timestamp("us")),
            "ms": pa.array([-1, None, 5], pa.timestamp("ms")),
            "ns": pa.array([-1, None, 1500], pa.timestamp("ns")),
            "utc": pa.array(when, pa.timestamp("us", "UTC")),
            "b": pa.array([True, False, None]),
            "date": pa.array([1, None, -3], pa.date32()),
            "dec": pa.array([decimal.Decimal("0.10"), None, decimal.Decimal("-2.50")]),
            "list": pa.array([[1], [2], [3]]),
            "struct": pa.array([{"i": 1}] * 3),
            "none": pa.array([None] * 3, pa.int32()),
            "nan": pa.array([float("nan")] * 3),
        },
    ).stats
    assert found["i"] == Bounds(-7, 3, 1)
    assert found["u"] == Bounds(None, None, 0)
    assert found["f"] == Bounds(1.5, 1.5, 1)
    assert str(found["z"]) == str(Bounds(0.0, 0.0, 0))
    assert found["t"] == Bounds("a", "é", 0)
    assert found["d"] == Bounds("x", "y", 0)
    assert found["long"] == Bounds("x", "y" * 127 + "z", 0, is_exact=False)
    assert found["us"] == Bounds(-1, 1893456000000000, 1)
    assert found["utc"] == found["us"]
    assert found["ms"] == Bounds(-1000, 5000, 1)
    assert found["ns"] == Bounds(-1, 2, 1, is_exact=False)  # outwards: -1 ns is after -1 us, 1500 ns before 2 us
    assert found["none"] == Bounds(None, None, 3)
    assert found["nan"] == Bounds(None, None, 0)
    assert found["b"] == Bounds(0, 1, 1)
    assert found["date"] == Bounds(-3 * 86_400_000_000, 86_400_000_000, 1)
    low, high = found["dec"].minimum, found["dec"].maximum
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert low < -2.5 < 0.1 < high < 0.11
    assert not found["dec"].is_exact
    assert not {"list", "struct", "i.list", "struct.i"} & found.keys()


def test_nan_files_do_not_know_their_nulls(tmp_path: Path) -> None:
    found = record(tmp_path, {"f": pa.array([1.0, float("nan")]), "i": pa.array([1, None])}, has_nan=True).stats
    assert found["f"] == Bounds(1.0, 1.0, -1, is_exact=False)
    assert found["i"] == Bounds(1, 1, 1)


def test_one_row_group_without_bounds_makes_the_column_unknown(tmp_path: Path) -> None:
    columns = {"f": pa.array([1.0, 2.0, float("nan"), float("nan")]), "n": pa.array([1, 2, None, None])}
    found = record(tmp_path, columns, row_group_size=2).stats
    assert found["f"] == Bounds(None, None, 0)
    assert found["n"] == Bounds(1, 2, 2)  # a group of NULLs has no values to bound


def test_files_without_statistics(tmp_path: Path) -> None:
    found = record(tmp_path, {"_healpix_29": pa.array([1, 2]), "x": pa.array([1, 2])}, write_statistics=False)
    assert found.stats["x"] == Bounds(None, None, -1)
    assert (found.has_line, found.lowest, found.highest) == (False, 0, 99)
    parts = to_parts([found])
    assert "x" not in parts.stats
    assert parts.row_groups.highest.tolist() == [99]


def test_line_ranges_of_row_groups(tmp_path: Path) -> None:
    cells = pa.array([5, 7, 9, 11, 90], pa.int64())
    found = record(tmp_path, {"_healpix_29": cells}, row_group_size=2)
    assert found.has_line
    assert (found.lowest, found.highest) == (5, 90)
    assert found.group_lowest.tolist() == [5, 9, 90]
    assert found.group_highest.tolist() == [7, 11, 90]
    assert found.group_rows.tolist() == [2, 2, 1]
    assert (found.group_bytes > 0).all()
    assert found.group_bytes.sum() < found.bytes
    holes = record(tmp_path, {"_healpix_29": pa.array([5, None, 9, 11], pa.int64())}, row_group_size=2)
    assert not holes.has_line
    assert holes.group_lowest.tolist() == [0, 9]
    path = tmp_path / "p.parquet"
    only = part_record(path, start=0, stop=100, columns=())
    assert only.stats == {}
    assert only.group_lowest.tolist() == [0, 9]


def test_empty_file(tmp_path: Path) -> None:
    found = record(tmp_path, {"_healpix_29": pa.array([], pa.int64())})
    assert (found.rows, found.lowest > found.highest) == (0, True)
    assert len(to_parts([found, found])) == 2


def test_parts_are_sorted_and_complete(tmp_path: Path) -> None:
    a = record(tmp_path, {"_healpix_29": pa.array([1, 2]), "x": pa.array([1, 2])}, name="a.parquet", row_group_size=1)
    b = record(tmp_path, {"_healpix_29": pa.array([150]), "x": pa.array([2.5]), "y": pa.array(["t"])}, name="b.parquet")
    late = part_record(tmp_path / "b.parquet", start=100, stop=200, digest="dd", uri="u")
    parts = to_parts([late, b, a])
    assert parts.start.tolist() == [0, 0, 100]
    assert parts.uri.to_pylist() == [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), "u"]
    assert parts.digest.to_pylist() == ["", "", "dd"]
    assert parts.row_groups.offset.tolist() == [0, 2, 3, 4]
    assert parts.stats["x"].minimum.dtype == np.float64  # int in one file, float in another
    assert parts.stats["x"].minimum.tolist() == [1.0, 2.5, 2.5]
    assert parts.stats["y"].minimum.tolist() == [None, "t", "t"]
    assert parts.stats["y"].is_known.tolist() == [False, True, True]
    assert parts.stats["y"].nulls.tolist() == [-1, 0, 0]


def test_parts_that_disagree_about_a_column_know_nothing(tmp_path: Path) -> None:
    a = record(tmp_path, {"x": pa.array([1])}, name="a.parquet")
    b = record(tmp_path, {"x": pa.array(["t"])}, name="b.parquet")
    assert "x" not in to_parts([a, b]).stats
    huge = record(tmp_path, {"x": pa.array([2**60 + 1])}, name="c.parquet")
    floats = record(tmp_path, {"x": pa.array([0.5])}, name="d.parquet")
    assert "x" not in to_parts([huge, floats]).stats
    assert to_parts([huge]).stats["x"].minimum.tolist() == [2**60 + 1]


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("hello")
    for name in ("x.parquet", "none.parquet"):
        with pytest.raises(InputError, match=name):
            part_record(tmp_path / name, start=0, stop=1)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), min_size=1, max_size=12),
    size=st.integers(1, 5),
)
def test_float_bounds_hold(tmp_path_factory: pytest.TempPathFactory, values: list[float | None], size: int) -> None:
    path = tmp_path_factory.mktemp("p")
    found = record(path, {"f": pa.array(values, pa.float64(), from_pandas=False)}, row_group_size=size).stats["f"]
    numbers = [value for value in values if value is not None and value == value]
    if found.minimum is not None:
        assert found.minimum == min(numbers)
        assert found.maximum == max(numbers)
    assert found.nulls == sum(value is None for value in values)
