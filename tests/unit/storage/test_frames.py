"""Files of frames: rows that are mapped are those that were written, and take memory only when they are read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from qengine.errors import IntegrityError
from qengine.execution.spool import Spool
from qengine.plan.physical import QueryId
from qengine.storage.frames import find_frames, map_frames


def write(root: Path, batches: list[pa.RecordBatch]) -> Path:
    writer = Spool(root).writer(QueryId("q"))
    for batch in batches:
        writer.write(batch)
    return find_frames(root, writer.finish())


def batch_of(first: int, count: int) -> pa.RecordBatch:
    numbers = np.arange(first, first + count)
    return pa.record_batch({"i": numbers, "x": numbers * 0.5, "s": pa.array([f"n{n}" for n in numbers[:3]] * (count // 3))})


def resident() -> int:
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_rows_outlive_the_file(tmp_path: Path) -> None:
    given = [batch_of(first, 30_000) for first in (0, 30_000, 60_000)]
    path = write(tmp_path, given)
    found = map_frames(path)
    path.unlink()
    assert found == given
    found[0].validate(full=True)


def test_mapped_rows_take_memory_only_when_they_are_read(tmp_path: Path) -> None:
    size = 64 << 20
    path = write(tmp_path, [pa.record_batch({"i": np.arange(1 << 18)})] * (size // (8 << 18)))
    before = resident()
    found = map_frames(path)
    assert resident() - before < size / 4
    assert sum(int(batch["i"].to_numpy().sum()) for batch in found) == len(found) * sum(range(1 << 18))
    assert resident() - before > size / 2


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_damage_is_noticed(tmp_path: Path, harm: str) -> None:
    path = write(tmp_path, [batch_of(0, 30_000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[: len(data) // 3]), "empty": b""}[harm])
    with pytest.raises(IntegrityError):
        map_frames(path)


def test_strange_names_are_no_paths(tmp_path: Path) -> None:
    for name in ("../x", "*", "", "0" * 32, "0" * 32 + "-" + "0" * 16):
        with pytest.raises(FileNotFoundError):
            find_frames(tmp_path, name)
