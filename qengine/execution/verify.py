"""Are a part's bytes the bytes that were published?

DuckDB reads a flipped bit in Parquet without noticing, so parts are checked here, twice:

* *At once*, the first time this process opens a file: it exists, its size is the published one, and its footer has the
  published number of rows; its columns are kept. This costs about 0.2 ms a file.
* *By digest*, the first time anybody on this worker opens it: sha256 of all bytes. That is 0.7 s per GB, so it runs on a thread
  beside the query that reads the part; the query's rows are not released before the digest is known to be right.

What was verified is remembered by (digest, device, inode, size, modification time): in memory, and in an append-only file shared by
the slots of a worker, so that a restarted slot hashes nothing again. A file that is replaced or changed is a new key.
Bit rot of a file that stays open-able and keeps its times is found by the scrub, not here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.errors import IntegrityError
from qengine.plan.physical import PartRef

_CHUNK_BYTES = 4 << 20

_Key = tuple[str, int, int, int, int]


class Verify(Enum):
    """When digests are compared. Size and row count are always compared."""

    OPEN = "open"
    NEVER = "never"


class PartVerifier:
    """Remembers which files are good. One per slot process; one for all threads of the in-process channel. Thread-safe."""

    def __init__(self, *, when: Verify = Verify.OPEN, stamps: Path | None = None) -> None:
        self._when = when
        self._stamps = stamps
        self._opened: dict[_Key, pa.Schema] = {}
        self._schemas: dict[pa.Schema, pa.Schema] = {}
        self._verified: set[_Key] = _read_stamps(stamps)
        self._stamps_bytes = _size(stamps)
        self._running: dict[_Key, Future[None]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qengine-verify")
        self._closed = Event()

    def open(self, parts: Iterable[tuple[PartRef, Path]]) -> list[Future[None]]:
        """Check size and rows of parts now, raise `IntegrityError` if they are wrong, and return the digests being computed.

        A future raises `IntegrityError` when its digest is wrong. An empty list means that everything is known to be good.
        """
        waiting = []
        for part, path in parts:
            key = self._look(part, path)
            if self._when is Verify.NEVER or not part.digest or key in self._verified:
                continue
            waiting.append((key, path))
        if waiting and self._has_new_stamps():
            self._verified |= _read_stamps(self._stamps)
        return [self._hash(key, path) for key, path in waiting if key not in self._verified]

    def schema(self, part: PartRef, path: Path) -> pa.Schema:
        """Return the columns that the part's footer has; equal ones are one object."""
        return self._opened[self._look(part, path)]

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _look(self, part: PartRef, path: Path) -> _Key:
        try:
            stat = path.stat()
        except OSError as error:
            raise IntegrityError(
                f"part {part.uri} cannot be opened: {error.strerror}",
                hint="run a repair, or load the table again",
                details={"uri": part.uri},
            ) from error
        key = (part.digest, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key in self._opened:
            return key
        if part.bytes > 0 and stat.st_size != part.bytes:
            raise _wrong(part.uri, f"it has {stat.st_size} bytes instead of {part.bytes}")
        try:
            footer = pq.read_metadata(path)
            rows, schema = footer.num_rows, footer.schema.to_arrow_schema().remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise _wrong(part.uri, f"its footer cannot be read: {error}") from error
        if part.rows >= 0 and rows != part.rows:
            raise _wrong(part.uri, f"its footer says {rows} rows instead of {part.rows}")
        self._opened[key] = self._schemas.setdefault(schema, schema)
        return key

    def _hash(self, key: _Key, path: Path) -> Future[None]:
        # Two threads that meet here at once hash the same file twice, which is only a waste.
        future = self._running.get(key)
        if future is None:
            future = self._running[key] = self._pool.submit(self._compare, key, path)
        return future

    def _compare(self, key: _Key, path: Path) -> None:
        try:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    if self._closed.is_set():
                        raise IntegrityError("the worker stops before the part was verified")
                    digest.update(chunk)
            if digest.hexdigest() != key[0]:
                raise _wrong(str(path), f"its sha256 is {digest.hexdigest()} instead of {key[0]}")
            self._verified.add(key)
            self._stamp(key)
        finally:
            self._running.pop(key, None)

    def _stamp(self, key: _Key) -> None:
        if self._stamps is None:
            return
        # One write of a short line in append mode is atomic among the slots that share the file.
        descriptor = os.open(self._stamps, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, (" ".join(map(str, key)) + "\n").encode())
        finally:
            os.close(descriptor)

    def _has_new_stamps(self) -> bool:
        size = _size(self._stamps)
        is_new = size != self._stamps_bytes
        self._stamps_bytes = size
        return is_new


def _wrong(uri: str, what: str) -> IntegrityError:
    return IntegrityError(f"part {uri} is damaged: {what}", hint="run a repair, or load the table again", details={"uri": uri})


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except FileNotFoundError:
        return 0


def _read_stamps(path: Path | None) -> set[_Key]:
    keys: set[_Key] = set()
    if _size(path) == 0 or path is None:
        return keys
    for line in path.read_text().splitlines():
        words = line.split(" ")
        if len(words) == 5 and all(word.isdigit() for word in words[1:]):
            keys.add((words[0], int(words[1]), int(words[2]), int(words[3]), int(words[4])))
    return keys
