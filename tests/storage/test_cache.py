"""Parts of an object store on a worker's disk: fetched once, held while they are read, bounded, and never wrong."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from qengine.errors import IntegrityError
from qengine.storage.bucket import Bucket
from qengine.storage.cache import CacheSettings, PartCache

KB = 1 << 10


@pytest.fixture
def objects(bucket: str) -> Bucket:
    return Bucket(f"{bucket}/{uuid4().hex}")


def part(objects: Bucket, size: int = 10 * KB) -> tuple[str, int]:
    content = os.urandom(size)
    uri = f"dp1/Object/parts/{hashlib.sha256(content).hexdigest()}.parquet"
    objects.put(uri, content)
    return uri, size


def cache(root: Path, objects: Bucket, size: int = 1 << 20) -> PartCache:
    return PartCache(root / "cache", objects.address, CacheSettings(bytes=size))


def used(one: PartCache) -> int:
    return sum(path.stat().st_size for path in one.root.rglob("*.parquet"))


def test_parts_are_there_while_they_are_held(objects: Bucket, tmp_path: Path) -> None:
    parts = [part(objects) for _ in range(20)]
    one = cache(tmp_path, objects)
    with one.hold(parts):
        assert all((one.root / uri).stat().st_size == size for uri, size in parts)
    objects.delete(uri for uri, _ in parts)
    with one.hold(parts):  # from the disk
        pass
    assert not [path for path in one.root.rglob(".*") if path.name != ".room"]


def test_the_cache_is_bounded_and_keeps_what_was_used_last(objects: Bucket, tmp_path: Path) -> None:
    one = cache(tmp_path, objects, 100 * KB)
    parts = [part(objects) for _ in range(30)]
    for number, each in enumerate(parts):
        with one.hold([each]):
            path = one.root / each[0]
            os.utime(path, ns=(number * 10**9, path.stat().st_mtime_ns))
    assert used(one) <= 100 * KB
    assert (one.root / parts[-1][0]).exists()
    assert not (one.root / parts[0][0]).exists()
    with one.hold(parts[:1]):
        assert (one.root / parts[0][0]).exists()


def test_what_is_held_stays_when_others_need_room(objects: Bucket, tmp_path: Path) -> None:
    parts = [part(objects) for _ in range(15)]
    # another process has its own object and the same directory
    one, other = (cache(tmp_path, objects, 30 * KB) for _ in range(2))
    with one.hold(parts[:5]):
        for each in parts[5:]:
            with other.hold([each]):
                pass
        assert all((one.root / uri).exists() for uri, _ in parts[:5])
    with other.hold([part(objects, 30 * KB)]):
        assert used(other) <= 60 * KB
    assert not any((one.root / uri).exists() for uri, _ in parts[:4])


def test_many_readers_and_little_room(objects: Bucket, tmp_path: Path) -> None:
    parts = [part(objects) for _ in range(12)]
    caches = [cache(tmp_path, objects, 40 * KB) for _ in range(3)]
    start = threading.Barrier(6)

    def read(number: int) -> None:
        start.wait()
        for turn in range(25):
            chosen = [parts[(number * 5 + turn * 7 + i) % len(parts)] for i in range(3)]
            with caches[number % 3].hold(chosen):
                for uri, _ in chosen:
                    content = (caches[0].root / uri).read_bytes()
                    assert hashlib.sha256(content).hexdigest() == Path(uri).stem

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(read, range(6)))


def test_missing_and_damaged_parts_are_named(objects: Bucket, tmp_path: Path) -> None:
    one = cache(tmp_path, objects)
    good, missing, damaged = (part(objects) for _ in range(3))
    objects.delete([missing[0]])
    objects.put(damaged[0], bytes(damaged[1]))
    for wrong, words in ((missing, "missing from the store"), (damaged, "damaged")):
        with pytest.raises(IntegrityError, match=words) as error, one.hold([good, wrong]):
            pass
        assert objects.uri(wrong[0]) in error.value.message
        assert error.value.details["uri"] == objects.uri(wrong[0])
    with one.hold([good]):
        pass


def test_a_cancelled_task_does_not_wait_for_its_parts(objects: Bucket, tmp_path: Path) -> None:
    one = cache(tmp_path, objects)
    each = part(objects)
    with one.hold([each], must_stop=lambda: True):
        assert not (one.root / each[0]).exists()
