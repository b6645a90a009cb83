"""A load into a bucket that is killed before or after any of its uploads, and resumed, is the load that was never disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.opening import open_store
from qengine.storage.bucket import Bucket
from tests.loader.stores import sky
from tests.support.buckets import bucket_server

PROGRAM = """
import os, signal, sys, threading
from qengine.opening import open_store
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.storage.bucket import Bucket

address, inputs, at, when = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), sys.argv[4]
put, lock, done = Bucket.put, threading.Lock(), 0

def counted(self, key, source, **words):
    global done
    with lock:  # one upload at a time: the n-th is always the same number of objects away from the end
        done += 1
        if done == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        made = put(self, key, source, **words)
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

Bucket.put = counted
files, registry = open_store(address, create=True)
with registry:
    for one in inputs:
        asked = LoadRequest(inputs=(one,), catalog="demo", table="obj", key="id", rows_per_tile=200)
        load(asked, registry, files, resume=True)
print(done)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("inputs")
    rows = pa.table(sky(600))
    for number, part in enumerate((rows[:400], rows[400:])):
        pq.write_table(part, folder / f"{number}.parquet")
    with bucket_server("sky") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield ",".join(str(path) for path in sorted(folder.iterdir()))


def run(address: str, inputs: str, near: Path, at: int = 0, when: str = "after") -> int | None:
    """Run both loads, killed at an upload (0: never), and return how many uploads there were, None if it was killed."""
    command = [sys.executable, "-c", PROGRAM, address, inputs, str(at), when]
    done = subprocess.run(
        command, env={**os.environ, "QENGINE_NEAR": str(near)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def state(address: str, near: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the keys of all objects but those named by loads, and the parts of each snapshot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QENGINE_NEAR", str(near))
        files, registry = open_store(address)
        with registry:
            assert {load.state.value for load in registry.loads()} == {"finished"}
            snapshots = []
            for number in (1, 2):
                found = registry.catalog(snapshots={"demo": number}).find("demo", "obj")
                assert found is not None
                assert found.key_index is not None
                parts = [*found.home.uri.to_pylist(), *found.margin.uri.to_pylist(), *found.key_index.uri]
                assert all(Bucket(address).head(uri) for uri in parts)
                snapshots.append((found.rows, sorted(parts)))
        assert not list(files.root.glob("demo/*/parts/*"))
    keys = [one.key for one in Bucket(address).list()]
    # a manifest has the number of its load, and so has the quality file
    return sorted(key for key in keys if not any(word in key for word in ("_quality/", "manifests/"))), snapshots


@pytest.fixture(scope="module")
def calm(inputs: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, object]:
    """How many uploads an undisturbed run makes, and what it leaves."""
    address, near = f"s3://sky/{uuid4().hex}", tmp_path_factory.mktemp("calm")
    count = run(address, inputs, near)
    assert count is not None
    expected = state(address, near)
    assert [rows for rows, _ in expected[1]] == [400, 609]
    return count, expected


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(8))
def test_a_load_killed_at_any_upload_is_resumed(inputs: str, calm: tuple[int, object], tmp_path: Path, batch: int) -> None:
    count, expected = calm
    for at in range(1 + batch, count + 1, 8):
        for when in ("before", "after"):
            address, near = f"s3://sky/{uuid4().hex}", tmp_path / f"{at}{when}"
            assert run(address, inputs, near, at, when) is None
            assert run(address, inputs, near) is not None
            assert state(address, near) == expected, (at, when)
