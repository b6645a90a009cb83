"""Keys of attached catalogues are proven, or the rows that repeat them are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import TableSnapshot
from qengine.catalog.registry import LoadState, Registry
from qengine.errors import ConfigError, DuplicateKeyError, InputError, IntegrityError
from qengine.loader.attach import attach
from qengine.loader.key_cells import KeyCells
from qengine.loader.prove import KeyProof, prove_keys
from qengine.sky.healpix import cells_of
from qengine.storage.objects import Store
from tests.loader.stores import Site
from tests.loader.stores import sky as loaded_sky
from tests.support.hats_trees import Style, sky, with_cells, write_catalog


class Desk:
    """A store with one attached catalogue."""

    def __init__(self, root: Path, rows: pa.Table, *, key: str = "id") -> None:
        self.store = Store(root / "store")
        self.registry = Registry.open(self.store.root)
        self.path = write_catalog(root / "c", rows, style=Style(suffix="/"))
        attach(self.path, catalog="ext", table="Gaia", registry=self.registry, store=self.store, key=key)

    def prove(self, **words: str) -> KeyProof:
        return prove_keys("ext", "Gaia", self.registry, self.store, **words)

    @property
    def table(self) -> TableSnapshot:
        found = self.registry.catalog().find("ext", "Gaia")
        assert found is not None
        return found


@pytest.mark.parametrize("has_cells", [True, False])
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint16(), pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_unique_keys_are_proven_and_indexed(tmp_path: Path, has_cells: bool, kind: pa.DataType) -> None:
    rows = sky(300)
    rows = rows.set_column(
        0, "id", pa.array([str(i) for i in range(300)]).cast(kind) if not pa.types.is_integer(kind) else rows["id"].cast(kind)
    )
    desk = Desk(tmp_path, with_cells(rows) if has_cells else rows, key="")
    assert not desk.table.table.is_key_proven
    proof = desk.prove(key="id")
    assert (proof.rows, proof.nulls, proof.is_new, proof.snapshot) == (300, 0, True, 2)
    found = desk.table
    assert (found.table.locality_key, found.number) == ("id", 2)
    assert found.key_index is not None
    index = KeyCells(found.key_index, desk.store, arrow=pa.int64())
    keys = rows["id"].combine_chunks()
    plain = (
        keys.dictionary_decode()
        if pa.types.is_dictionary(keys.type)
        else keys.cast(pa.int64() if pa.types.is_integer(keys.type) else pa.string())
    )
    cells, is_known = index.cells(plain)
    assert is_known.all()
    true = cells_of(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    # without a line column a key is known to be in its tile
    np.testing.assert_array_equal(cells, true if has_cells else true >> 56 << 56)
    assert not desk.prove().is_new
    assert [load.state for load in desk.registry.loads()] == [LoadState.FINISHED] * 3


def test_keys_that_repeat_are_named_and_nothing_is_published(tmp_path: Path) -> None:
    rows = sky(300)
    ids = rows["id"].to_pylist()
    ids[17] = ids[250]
    desk = Desk(tmp_path, rows.set_column(0, "id", pa.array(ids)))
    with pytest.raises(DuplicateKeyError, match=r"1 rows repeat a key, such as 250"):
        desk.prove()
    assert (desk.table.number, desk.table.table.is_key_proven) == (1, False)
    assert sorted(load.state.value for load in desk.registry.loads()) == ["aborted", "finished"]


def test_rows_without_a_key_are_counted(tmp_path: Path) -> None:
    rows = sky(300)
    ids = [None if i % 3 == 0 else i for i in range(300)]
    proof = Desk(tmp_path, rows.set_column(0, "id", pa.array(ids, pa.int64()))).prove()
    assert (proof.rows, proof.nulls) == (300, 100)
    assert "200 keys, each in one row, 100 rows have none" in proof.to_text()


def test_what_cannot_be_proven(tmp_path: Path) -> None:
    desk = Desk(tmp_path, sky(300), key="")
    with pytest.raises(ConfigError, match="no key is declared"):
        desk.prove()
    with pytest.raises(ConfigError, match="no column other"):
        desk.prove(key="other")
    with pytest.raises(ConfigError, match=r"no table ext\.Nothing"):
        prove_keys("ext", "Nothing", desk.registry, desk.store)
    path = next(desk.path.glob("dataset/*/*/*/*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
    with pytest.raises(InputError, match="299 rows, but 300"):
        desk.prove(key="id")


def test_the_index_of_a_loaded_table_is_compared_with_its_rows(site: Site) -> None:
    site.load(site.write("a.parquet", loaded_sky(300)), key="id")
    proof = prove_keys("demo", "obj", site.registry, site.store)
    assert (proof.is_new, proof.rows) == (False, 309)
    index = site.snapshot().key_index
    assert index is not None
    path = site.store.path(index.uri[0])
    rows = pq.read_table(path)
    cells = rows["_healpix_29"].to_numpy().copy()
    cells[5] += 1
    pq.write_table(rows.set_column(1, "_healpix_29", pa.array(cells)), path)
    with pytest.raises(IntegrityError, match="does not lie where the index says"):
        prove_keys("demo", "obj", site.registry, site.store)


@pytest.mark.parametrize("has_cells", [True, False])
def test_joins_by_key_agree_before_and_after(tmp_path: Path, has_cells: bool) -> None:
    import qengine

    desk = Desk(tmp_path, with_cells(sky(400)) if has_cells else sky(400))
    text = "SELECT COUNT(*) AS n, SUM(b.mag) AS s FROM ext.Gaia a JOIN ext.Gaia b ON a.id = b.id WHERE a.dec > 10"
    lookup = "SELECT id, name FROM ext.Gaia WHERE id IN (7, 99, 1000000)"
    answers = []
    for _ in range(2):
        with qengine.connect(desk.store.root) as client:
            answers.append([client.query(text).to_arrow().to_pylist(), sorted(client.query(lookup).to_arrow()["id"].to_pylist())])
        desk.prove()
    assert answers[0] == answers[1]
    assert answers[0][1] == [7, 99]
