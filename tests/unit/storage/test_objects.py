"""Files are whole or absent, and stay under the root."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import xxhash

from qengine.errors import InputError
from qengine.storage.objects import Store, sha256_file, xxh3_file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> list[str]:
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())


def test_paths_and_uris(store: Store, tmp_path: Path) -> None:
    assert store.path("a/b.parquet") == store.root / "a/b.parquet"
    assert store.path("/data/x.parquet") == Path("/data/x.parquet")
    assert store.path("file:///data/a%20b.parquet") == Path("/data/a b.parquet")
    assert store.uri(store.root / "a" / "b") == "a/b"
    assert store.uri(tmp_path / "other") == str(tmp_path / "other")
    assert store.path(store.uri(tmp_path / "other")) == tmp_path / "other"
    for uri in ("", "../x", "a/../../x", "s3://bucket/x", "https://x.org/y"):
        with pytest.raises(InputError):
            store.path(uri)


def test_relative_roots_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("here"))
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "here"


def test_written_files_are_whole(store: Store) -> None:
    store.write("a/b.txt", "héllo")
    assert store.read("a/b.txt") == "héllo".encode()
    store.write("a/b.txt", b"new")
    assert (store.read("a/b.txt"), store.size("a/b.txt")) == (b"new", 3)
    assert files(store) == ["a/b.txt"]


def test_failure_while_writing_keeps_the_old_file(store: Store) -> None:
    store.write("a", b"old")
    with pytest.raises(RuntimeError), store.writing("a") as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert store.read("a") == b"old"
    assert files(store) == ["a"]


def test_nothing_is_seen_before_the_end(store: Store) -> None:
    with store.writing("d/a.parquet") as temporary:
        temporary.write_bytes(b"x")
        assert not store.exists("d/a.parquet")
        assert temporary.name.startswith(".")
    assert store.exists("d/a.parquet")


def test_adopted_files_keep_their_first_copy(store: Store, tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        source = tmp_path / "draft"
        source.write_bytes(content)
        store.adopt(source, "p/x")
        assert not source.exists()
    assert store.read("p/x") == b"one"
    store.remove("p/x")
    store.remove("p/x")
    assert files(store) == []


def test_digests(store: Store) -> None:
    content = bytes(range(256)) * 20_000
    path = store.write("big", content)
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    assert xxh3_file(path) == xxhash.xxh3_128(content).hexdigest()
    assert store.part_uri("dp1", "Object", "abcd") == "dp1/Object/parts/ab/abcd.parquet"
