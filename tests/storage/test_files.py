"""The files of a store: one suite for a directory and for an object store with a near copy."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from qengine.catalog.files import Files, LocalFiles
from qengine.errors import ConfigError, InputError, IntegrityError, StoreUnavailableError
from qengine.storage.bucket import Bucket, BucketFiles, bucket_address, is_bucket
from qengine.storage.objects import Store


@pytest.fixture(params=["local", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Files:
    root = tmp_path / "near"
    root.mkdir()
    if request.param == "local":
        return LocalFiles(root)
    return BucketFiles(root, Bucket(f"{bucket}/{uuid4().hex}"))


def made(files: Files, uri: str, content: bytes = b"content") -> Path:
    path = files.root / uri
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def elsewhere(files: Files, root: Path) -> Files:
    """The same store, as another machine sees it."""
    root.mkdir()
    return BucketFiles(root, files.bucket) if isinstance(files, BucketFiles) else files


def test_what_is_kept_is_there_for_everybody(files: Files, tmp_path: Path) -> None:
    names = ["dp1/Object/parts/ab/x.parquet", "dp1/_snapshots/000001.json", "dp1/a b%20ü/#1.txt"]
    files.keep([made(files, name, name.encode()) for name in names])
    other = elsewhere(files, tmp_path / "other")
    for name in names:
        assert other.exists(other.root / name)
        assert other.need(other.root / name).read_bytes() == name.encode()
    assert {path.relative_to(other.root).as_posix() for path, _ in other.listed(other.root)} == set(names)
    assert [size for _, size in other.listed(other.root / "dp1/_snapshots")] == [len(names[1])]
    files.remove(files.root / names[0])
    files.remove(files.root / names[0])
    assert not other.exists(other.root / names[0])


def test_what_is_not_there_is_no_error(files: Files) -> None:
    missing = files.root / "dp1/none.parquet"
    assert not files.need(missing).exists()
    assert not files.exists(missing)
    assert list(files.listed(files.root / "dp1")) == []
    files.remove(missing)


def test_small_files_that_change_are_followed(files: Files, tmp_path: Path) -> None:
    files.keep([made(files, "dp1/_snapshots/1.json", b"old"), made(files, "dp1/_snapshots/2.json")])
    other = elsewhere(files, tmp_path / "other")
    other.follow(other.root / "dp1")
    files.keep([made(files, "dp1/_snapshots/1.json", b"new")])
    files.remove(files.root / "dp1/_snapshots/2.json")
    other.follow(other.root / "dp1")
    assert (other.root / "dp1/_snapshots/1.json").read_bytes() == b"new"
    assert not (other.root / "dp1/_snapshots/2.json").exists()


def test_only_a_near_copy_is_forgotten(files: Files) -> None:
    path = made(files, "dp1/parts/x")
    files.keep([path])
    files.forget(files.root / "dp1")
    assert path.exists() is not files.is_far
    assert files.need(path).read_bytes() == b"content"


def test_the_store_reads_and_writes_through_its_files(files: Files, tmp_path: Path) -> None:
    store = Store(files.root, files if files.is_far else None)
    store.write("a/b.txt", "one")
    staged = tmp_path / "staged"
    staged.write_bytes(b"two")
    store.adopt(staged, "a/c")
    other_files = elsewhere(files, tmp_path / "other")
    other = Store(other_files.root, other_files if files.is_far else None)
    assert (other.read("a/b.txt"), other.size("a/c"), other.exists("a/d")) == (b"one", 3, False)
    store.remove("a/c")
    assert [path.name for path, _ in other.files.listed(other.root)] == ["b.txt"]


# -- what only an object store has ----------------------------------------------------------------------------------------------


@pytest.fixture
def far(tmp_path: Path, bucket: str) -> BucketFiles:
    (tmp_path / "far").mkdir()
    return BucketFiles(tmp_path / "far", Bucket(f"{bucket}/{uuid4().hex}"))


def test_a_damaged_part_is_refused_by_name(far: BucketFiles) -> None:
    digest = hashlib.sha256(b"rows").hexdigest()
    uri = f"dp1/Object/parts/{digest[:2]}/{digest}.parquet"
    far.bucket.put(uri, b"rowz")
    with pytest.raises(IntegrityError, match=f"{far.place}/{uri}") as error:
        far.need(far.root / uri)
    assert error.value.details["uri"].endswith(uri)
    assert not [path for path in far.root.rglob("*") if path.is_file()]
    far.bucket.put(uri, b"rows")
    assert far.need(far.root / uri).read_bytes() == b"rows"


def test_one_file_is_fetched_once(far: BucketFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    far.bucket.put("dp1/big", bytes(9 << 20))
    fetched: list[str] = []
    fetch = Bucket.fetch

    def counted(self: Bucket, key: str, target: Path) -> bool:
        fetched.append(key)
        return fetch(self, key, target)

    monkeypatch.setattr(Bucket, "fetch", counted)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: far.need(far.root / "dp1/big").stat().st_size, range(16)))
    assert (set(sizes), fetched) == ({9 << 20}, ["dp1/big"])


def test_a_store_has_one_registry(far: BucketFiles) -> None:
    far.claim("sqlite:one")
    far.claim("sqlite:one")
    with pytest.raises(ConfigError, match="belongs to another registry"):
        far.claim("sqlite:two")
    far.claim("sqlite:two", is_taking_over=True)
    far.claim("sqlite:two")


def test_addresses() -> None:
    assert bucket_address(Path("s3://sky/a/b/")) == bucket_address("s3://sky/a/b") == "s3://sky/a/b"
    assert bucket_address("s3a://sky") == "s3://sky"
    assert is_bucket(Path("s3://sky"))
    assert not is_bucket(Path("/data/s3"))
    for address in ("s3://", "gs://sky/a", "s3://sky/a?x=1"):
        with pytest.raises(ConfigError, match="is no place for a store"):
            bucket_address(address)
    with pytest.raises(InputError, match="password"):
        bucket_address("s3://me:secret@sky/a")


@pytest.mark.slow
def test_a_store_that_does_not_answer(far: BucketFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-word")
    away = pickle.loads(pickle.dumps(far))
    for ask in (lambda: away.need(away.root / "x"), lambda: list(away.listed(away.root)), lambda: away.keep([made(away, "y")])):
        with pytest.raises(StoreUnavailableError, match=far.place) as error:
            ask()
        assert "hidden-word" not in str(error.value)
        assert "AWS_ENDPOINT_URL" in error.value.hint
    monkeypatch.undo()


def test_a_bucket_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="no such bucket"):
        Bucket("s3://nobucket/a").put("x", b"")
