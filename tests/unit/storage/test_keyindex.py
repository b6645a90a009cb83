from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.model import HEALPIX, KeyIndex
from qengine.errors import IntegrityError
from qengine.sky.cells import LINE_END, beyond_cell
from qengine.storage.keyindex import KeyReader
from qengine.storage.objects import Store

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


def index(root: Path, known: dict[int, int] | dict[str, int], kind: pa.DataType) -> KeyIndex:
    """Write an index of tiny row groups in two files."""
    keys = sorted(known)
    half = (len(keys) + 1) // 2
    for number, some in enumerate((keys[:half], keys[half:])):
        cells = pa.array([known[key] for key in some], pa.int64())  # type: ignore[index]
        pq.write_table(pa.table({"key": pa.array(some, kind), HEALPIX: cells}), root / f"{number}.parquet", row_group_size=3)
    return KeyIndex(uri=("0.parquet", "1.parquet"), digest=("", ""), rows=len(keys))


def check(known: dict, wanted: list, kind: pa.DataType) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reader = KeyReader(Store(Path(folder)))
        found = reader.cells(index(Path(folder), known, kind), wanted)
        expected = []
        for key in wanted:
            is_key = not isinstance(key, int) or -(2**63) <= key < 2**63
            expected.append(known[key] if key in known else int(beyond_cell(pa.array([key]))[0]) if is_key else LINE_END)
        assert found.dtype == np.int64
        assert found.tolist() == expected


@given(st.dictionaries(NUMBERS, st.integers(0, LINE_END - 1), max_size=20), st.lists(NUMBERS, max_size=8), st.data())
def test_numbers(known: dict[int, int], others: list[int], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(sorted(known)), max_size=10)) if known else []
    check(known, some + others, pa.int64())


@given(st.dictionaries(WORDS, st.integers(0, LINE_END - 1), max_size=20), st.lists(WORDS, max_size=8), st.data())
def test_words(known: dict[str, int], others: list[str], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(sorted(known)), max_size=10)) if known else []
    check(known, some + others, pa.string())


def test_values_of_another_kind_are_not_found() -> None:
    check({1: 10, 2: 20}, [2, "2", 2**63], pa.int64())
    check({"1": 10, "2": 20}, ["2", 2, 2**70], pa.string())


def test_without_an_index_every_key_is_beyond_the_sky(tmp_path: Path) -> None:
    assert KeyReader(Store(tmp_path)).cells(None, [7]).tolist() == beyond_cell(pa.array([7])).tolist()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"gone\.parquet"):
        KeyReader(Store(tmp_path)).cells(KeyIndex(uri=("gone.parquet",), digest=("",), rows=1), [7])


def test_index_larger_than_the_room(tmp_path: Path) -> None:
    known = {key: 10 * key for key in range(1000)}
    written = index(tmp_path, known, pa.int64())
    for room_bytes in (0, 100, 5000):
        reader = KeyReader(Store(tmp_path), room_bytes=room_bytes)
        for wanted in (list(known), [7], list(known)[::-1], [999, 0, 500]):
            assert reader.cells(written, wanted).tolist() == [known[key] for key in wanted]
