"""Queries on a store in a bucket: workers fetch the parts; what is wrong there is an error, and the processes stay up."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import connect
from qengine.errors import QEngineError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.storage.bucket import Bucket
from qengine.storage.place import near_folder
from tests.loader.stores import sky


@pytest.fixture
def address(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QENGINE_NEAR", str(tmp_path / "near"))
    address = f"{bucket}/{uuid4().hex}"
    pq.write_table(pa.table(sky(600)), tmp_path / "in.parquet")
    files, registry = open_store(address, create=True)
    with registry:
        request = LoadRequest(inputs=(str(tmp_path / "in.parquet"),), catalog="demo", table="obj", key="id", rows_per_tile=100)
        assert load(request, registry, files).stored == 609
    return address


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_queries_on_parts_of_a_bucket(address: str, workers: int) -> None:
    rows = pa.table(sky(600))
    with connect(address, workers=workers) as client:
        assert client.query("SELECT COUNT(*) AS n, SUM(id) AS s FROM demo.obj WHERE mag >= 0").to_arrow().to_pylist() == [
            {"n": 609, "s": sum(rows["id"].to_pylist())}
        ]
        key = rows["id"][5].as_py()
        assert client.query(f"SELECT ra FROM demo.obj WHERE id = {key}").to_arrow()["ra"].to_pylist() == [rows["ra"][5].as_py()]
        # damage on the worker's own disk is found, and mended by fetching the part again
        copies = list(near_folder(address, "cache").rglob("*.parquet"))
        for path in copies:
            path.write_bytes(bytes(path.stat().st_size))
        assert client.query("SELECT COUNT(*) AS n FROM demo.obj WHERE mag >= 0").to_arrow()["n"].to_pylist() == [609]
    assert copies


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_and_a_damaged_part_and_a_repair(address: str, workers: int) -> None:
    objects = Bucket(address)
    names = [one for one in objects.list() if "/parts/" in one.key]
    saved = {one.key: objects.read(one.key) for one in names}
    with connect(address, workers=workers) as client:
        objects.delete(one.key for one in names)
        with pytest.raises(QEngineError, match=f"{address}/demo/obj/parts/.* is missing from the store"):
            client.query("SELECT SUM(mag) FROM demo.obj").to_arrow()
        for one in names:
            objects.put(one.key, bytes(one.bytes))
        with pytest.raises(QEngineError, match=f"{address}/demo/obj/parts/.* is damaged"):
            client.query("SELECT SUM(mag) FROM demo.obj").to_arrow()
        for key, content in saved.items():
            assert content is not None
            objects.put(key, content)
        assert client.query("SELECT COUNT(*) AS n FROM demo.obj WHERE mag >= 0").to_arrow()["n"].to_pylist() == [609]
