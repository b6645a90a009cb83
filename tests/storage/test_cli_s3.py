"""The command line on a store in a bucket, from inputs in a bucket: the commands of docs/object-store.md."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.local import LocalClient
from qengine.errors import QEngineError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.storage.bucket import Bucket
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import start_worker
from tests.loader.stores import sky
from tests.support.buckets import KEY, SECRET

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*words: str, near: str = "near", status: int = 0) -> str:
        command = [sys.executable, "-m", "qengine.cli", *words]
        environment = {**os.environ, "QENGINE_NEAR": str(tmp_path / near), "COLUMNS": "250"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not any(word in done.stdout + done.stderr for word in (KEY, SECRET))
        return done.stdout + done.stderr

    return run


def upload(rows: pa.Table, name: str, folder: Path) -> str:
    pq.write_table(rows, folder / "input.parquet")
    boto3.client("s3").upload_file(str(folder / "input.parquet"), "sky", name)
    return f"s3://sky/{name}"


@pytest.mark.slow
def test_a_whole_life(bucket: str, tmp_path: Path, run: Run) -> None:
    store, folder = f"{bucket}/{uuid4().hex}", uuid4().hex
    rows = pa.table(sky(600))
    ids = rows["id"].to_pylist()
    inputs = [upload(part, f"{folder}/{number}.parquet", tmp_path) for number, part in enumerate((rows[:400], rows[400:]))]
    assert "there is no store" in run("tables", "--store", store, status=1)
    load = ("load", "--store", store, "--into", "demo", "--table", "obj", "--key", "id")
    run(*load, inputs[0])
    run(*load, inputs[1])
    upload(rows[400:450], f"{folder}/1.parquet", tmp_path)
    run(*load, inputs[1])  # another version of the input replaces its rows

    def answer(*words: str, **terms: str) -> dict[str, int]:
        sql = "SELECT COUNT(*) AS n, SUM(id) AS s FROM demo.obj WHERE mag > 0"
        out = tmp_path / "out.parquet"
        run("query", "--store", store, sql, "-o", str(out), *words, **terms)
        return {name: values[0] for name, values in pq.read_table(out).to_pydict().items()}

    expected = {"n": 450, "s": sum(ids[:450])}
    assert answer("--workers", "2") == expected
    assert f"store {store}" in run("status", "--store", store)
    assert "demo at snapshot 3" in run("verify", "--store", store, "demo")
    run("expire", "--store", store, "demo", "--keep", "1")
    assert "files" in run("collect", "--store", store, "demo", "--grace", "0")
    assert answer() == expected

    # another machine, after this one is lost
    assert "registry rebuild" in run("tables", "--store", store, near="other", status=1)
    run("registry", "rebuild", "--store", store, near="other")
    assert answer(near="other") == expected

    # damage is found, and mended from a copy
    objects = Bucket(store)
    key = next(one.key for one in objects.list() if "/parts/" in one.key)
    copy = tmp_path / "copy" / key
    copy.parent.mkdir(parents=True)
    copy.write_bytes(objects.read(key) or b"")
    objects.put(key, bytes(copy.stat().st_size))
    assert "is damaged" in run("verify", "--store", store, "demo", near="other", status=1)
    run("verify", "--store", store, "demo", "--repair", str(tmp_path / "copy"), near="other")
    assert objects.read(key) == copy.read_bytes()
    assert "as published" in run("verify", "--store", store, "demo", near="other")
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    contents += [objects.read(one.key) or b"" for one in objects.list()]
    assert not any(word.encode() in content for word in (KEY, SECRET) for content in contents)


@pytest.mark.slow
def test_an_endpoint_that_is_down_does_not_end_a_worker(
    bucket: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot reach the store answers with an error, and with rows as soon as it can."""
    monkeypatch.setenv("QENGINE_NEAR", str(tmp_path / "near"))
    store = f"{bucket}/{uuid4().hex}"
    pq.write_table(pa.table(sky(100)), tmp_path / "in.parquet")
    files, registry = open_store(store, create=True)
    with registry:
        load(LoadRequest(inputs=(str(tmp_path / "in.parquet"),), catalog="demo", table="obj", key="id"), registry, files)
    settings = WorkerSettings(store_root=tmp_path / "cache", far=store)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        started = start_worker(tmp_path / "cache", slots=1, settings=settings)
        worker = started.__enter__()
    try:
        with LocalClient(cluster(store, ClusterSettings(addresses=(worker.address,)))) as client:
            for _ in range(2):
                with pytest.raises(QEngineError, match=store):
                    client.query("SELECT SUM(mag) FROM demo.obj").to_arrow()
            assert worker.process.poll() is None
    finally:
        started.__exit__(None, None, None)
