"""Key indexes of many loads: few files over any key, whatever was appended, and the same keys in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.catalog.model import HEALPIX, KeyIndex
from qengine.errors import DuplicateKeyError, IntegrityError
from qengine.loader.key_cells import KeyCells
from qengine.loader.key_merge import DEPTH, merged, overlapping
from qengine.loader.keys import KEY, find_keys, index_schema
from qengine.loader.once import compact
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat, verify_part, write_part
from tests.loader.stores import Site
from tests.loader.test_grow import put, some


def _index(store: Store, folder: Path, files: list[pa.Array]) -> KeyIndex:
    made = []
    for keys in files:
        rows = pa.table([keys, pa.array(np.arange(len(keys)) * 7)], schema=index_schema(keys.type))
        made.append(write_part(rows, folder, PartFormat(sorted_by=(KEY,))))
    uris = tuple(store.uri(one.path) for one in made)
    return KeyIndex(uri=uris, digest=tuple(one.digest for one in made), rows=sum(one.rows for one in made))


def _bounds(index: KeyIndex, store: Store) -> list[tuple[object, object]]:
    keys = [pq.read_table(store.path(uri)).column(KEY) for uri in index.uri]
    assert all(one.to_pylist() == sorted(one.to_pylist()) for one in keys)
    return [(one[0].as_py(), one[-1].as_py()) for one in keys]


def _pairs(index: KeyIndex, store: Store) -> list[tuple[object, int]]:
    tables = [pq.read_table(store.path(uri)) for uri in index.uri]
    return sorted(pair for one in tables for pair in zip(one.column(KEY).to_pylist(), one.column(HEALPIX).to_pylist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), files=st.integers(1, 14), rows=st.integers(14, 300), depth=st.integers(1, 5),
    window=st.sampled_from((1, 10, 1000)), is_text=st.booleans(), spread=st.sampled_from((0.02, 0.3, 1.0)),
)  # fmt: skip
def test_the_same_pairs_in_fewer_files(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    files: int,
    rows: int,
    depth: int,
    window: int,
    is_text: bool,
    spread: float,
) -> None:
    root = tmp_path_factory.mktemp("keys")
    store, folder = Store(root), root / "keys"
    rng = np.random.default_rng(seed)
    centre = rng.random(files)[rng.integers(0, files, rows)]
    owner = (
        np.argsort(np.argsort(centre + spread * rng.random(rows))) % files if spread == 1.0 else np.argsort(centre) * files // rows
    )
    values = np.arange(rows) * 3 - 50
    parts = [values[owner == one] for one in range(files)]
    arrays = [pa.array([f"k{v + 50:05d}é" for v in one] if is_text else one) for one in parts if len(one)]
    index = _index(store, folder, arrays)
    before = _pairs(index, store)
    found = merged(index, store, folder, depth=depth, window_rows=window)
    assert (_pairs(found, store), found.rows) == (before, rows)
    assert overlapping(_bounds(found, store)) <= depth or len(found.uri) <= depth
    assert merged(found, store, folder, depth=depth, window_rows=window) == found
    for uri, digest in zip(found.uri, found.digest, strict=True):
        verify_part(store.path(uri), digest)


@pytest.mark.parametrize("files", [1, 5])
def test_an_index_that_is_mapped_says_what_one_in_memory_says(tmp_path: Path, files: int) -> None:
    store = Store(tmp_path)
    keys = np.unique(np.random.default_rng(4).integers(-(2**62), 2**62, 5000))
    index = _index(store, tmp_path / "keys", [pa.array(keys[one::files]) for one in range(files)])
    asked = pa.array([*keys[::7].tolist(), None, 5, 2**63 - 1, *keys[::-3].tolist()], pa.int64())
    held = KeyCells(index, store, arrow=pa.int64())
    before = set(tmp_path.rglob("*"))
    mapped = KeyCells(index, store, arrow=pa.int64(), held_rows=100)
    assert set(tmp_path.rglob("*")) == before
    (cells, known), (other, is_there) = held.cells(asked), mapped.cells(asked)
    assert known.tolist() == is_there.tolist()
    assert (int(known.sum()), cells[known].tolist()) == (len(asked) - 3, other[known].tolist())


@pytest.mark.parametrize("said", [299, 301])
def test_a_manifest_that_is_wrong_about_an_index(tmp_path: Path, said: int) -> None:
    store = Store(tmp_path)
    index = replace(_index(store, tmp_path / "keys", [pa.array(np.arange(300))]), rows=said)
    with pytest.raises(IntegrityError, match=f"{said} keys"):
        KeyCells(index, store, arrow=pa.int64(), held_rows=100)


def test_large_files_stay_while_there_are_few(tmp_path: Path) -> None:
    store, folder = Store(tmp_path), tmp_path / "keys"
    large = pa.array(np.arange(0, 3_000_000, 10))
    index = _index(store, folder, [large, *(pa.array(np.arange(1 + one, 3_000_000, 30_000)) for one in range(DEPTH))])
    found = merged(index, store, folder)
    assert (found.uri[0], len(found.uri), found.rows) == (index.uri[0], 2, index.rows)


def test_many_appends(tmp_path: Path) -> None:
    """Appends of ids that lie between each other's; every snapshot keeps its own files."""
    site = Site(tmp_path)
    ids = np.random.default_rng(2).permutation(1000)
    for number in range(20):
        columns = some(range(50 * number, 50 * number + 50))
        columns["id"] = ids[50 * number : 50 * number + 50]
        put(site, f"n{number}", columns)
        index = site.snapshot().key_index
        assert index is not None
        assert (index.rows, overlapping(_bounds(index, site.store)) <= DEPTH) == (50 * number + 50, True)
        known, cells = find_keys(index, site.store, pa.array(np.arange(1000)))
        assert sorted(known.to_pylist()) == sorted(ids[: 50 * number + 50].tolist())
        assert len(cells) == len(known)
    with pytest.raises(DuplicateKeyError, match="id"):
        put(site, "again", some(range(3)))
    for version in (3, 8, 9, 15):
        old = site.registry.catalog(snapshots={"demo": version}).find("demo", "obj")
        assert old is not None
        assert old.key_index is not None
        assert len(_pairs(old.key_index, site.store)) == 50 * version
    compact("demo", ("obj",), site.registry, site.store)
    index = site.snapshot().key_index
    assert index is not None
    assert (len(index.uri), index.rows) == (1, 1000)
