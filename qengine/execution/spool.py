"""What a worker keeps on its disk for queries: results that are too large to send at once, and relations that it was given.

A spool is one file of frames (`storage.frames`), each of which is sent as it is by a `Fetch`. By its name whoever pulls it can
check what arrived, and two attempts with equal rows do not share a file. A relation is a Parquet file that the coordinator has put
here, to be read by tasks of its query. A partition is a Parquet file with some rows of a task's result, written here or fetched
from another worker, and named like a spool. Files lie in a folder per query, so that ending a query removes all that was kept for
it.
"""

from __future__ import annotations

import mmap
import os
import secrets
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from qengine.errors import (
    ClusterError,
    IntegrityError,
    PartitionLostError,
    QueryCancelledError,
    QueryTooLargeError,
    RelationMissingError,
)
from qengine.plan.physical import QueryId
from qengine.storage.digest import FastDigest
from qengine.storage.frames import HEAD_BYTES, NAME, SUFFIX, find_frames, map_frames
from qengine.storage.ipc import stream_pieces

_PIECE_BYTES = 4 << 20


class Spool:
    """The spool directory of one worker; several processes may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def writer(self, query: QueryId) -> SpoolWriter:
        """Start a new spool."""
        folder = self._folder(query)
        folder.mkdir(parents=True, exist_ok=True)
        return SpoolWriter(folder)

    def frames(self, name: str, *, skip: int = 0) -> Iterator[bytes]:
        """Yield the frames of a spool after the first `skip`. Raise `IntegrityError` if it does not exist or is cut short."""
        try:
            file = self._path(name).open("rb")
        except FileNotFoundError as error:
            raise IntegrityError(f"spool {name} is not here any more") from error
        with file:
            while head := file.read(HEAD_BYTES):
                size = int.from_bytes(head, "little")
                if skip > 0:
                    skip -= 1
                    file.seek(size, os.SEEK_CUR)
                    continue
                frame = file.read(size)
                if len(head) != HEAD_BYTES or len(frame) != size:
                    raise IntegrityError(f"spool {name} is cut short")
                yield frame

    def batches(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a spool. Raise `IntegrityError` before any if they are not what was written."""
        try:
            yield from map_frames(self._path(name))
        except FileNotFoundError as error:
            raise IntegrityError(f"spool {name} is not here any more") from error

    def mark(self) -> Path:
        """Make a file with a random name and return it: whoever sees it has this directory."""
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / f"{secrets.token_hex(16)}.mark"
        path.touch()
        return path

    @property
    def root(self) -> Path:
        """The directory below which everything lies."""
        return self._root

    def put(self, query: QueryId, name: str, content: memoryview) -> None:
        """Keep a relation of a query: the bytes of a Parquet file."""
        writer = self.relation_writer(query, name)
        try:
            writer.write(content)
            writer.finish("")
        finally:
            writer.abort()

    def relation_writer(self, query: QueryId, name: str) -> FileWriter:
        """Start to write a relation of a query; one of the same name is replaced when the new one is complete."""
        return FileWriter(self._relation(query, name))

    def relation(self, query: QueryId, name: str) -> Path:
        """Return the file of a relation. Raise `RelationMissingError` if it was not put, or before a restart."""
        path = self._relation(query, name)
        if not path.is_file():
            raise RelationMissingError(f"relation {name} is not on this worker", details={"relation": name})
        return path

    def partition_file(self, query: QueryId) -> PartitionFile:
        """Start a new partition of a result."""
        folder = self._folder(query)
        folder.mkdir(parents=True, exist_ok=True)
        return PartitionFile(folder)

    def has_partition(self, query: QueryId, name: str) -> bool:
        return _is_name(name) and self._partition(query, name).is_file()

    def partition(self, query: QueryId, name: str) -> Path:
        """Return the file of a partition that was written or fetched here, after a look at its bytes.

        Raise `PartitionLostError` if it is not here or not what was written; a damaged file is deleted, not looked at again.
        """
        path = self._partition(query, name)
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                digest = FastDigest()
                digest.update(memoryview(content))
        except (OSError, ValueError) as error:
            raise lost_partition(name, "is not on this worker") from error
        if digest.hexdigest() != name.split("-")[0]:
            path.unlink(missing_ok=True)
            raise lost_partition(name, "is damaged")
        return path

    def partition_bytes(self, query: QueryId, name: str) -> Iterator[bytes]:
        """Yield the file of a partition in pieces, unchecked: whoever fetches it compares. Raise `PartitionLostError`."""
        try:
            file = self._partition(query, name).open("rb")
        except OSError as error:
            raise lost_partition(name, "is not on this worker") from error
        with file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def partition_writer(self, query: QueryId, name: str) -> FileWriter:
        """Start to write a partition that is fetched; give its digest to `FileWriter.finish`."""
        return FileWriter(self._partition(query, name))

    def adopt(self, query: QueryId, name: str, neighbour: Path) -> None:
        """Take a partition from the spool directory of a neighbour on this machine. Raise `PartitionLostError`."""
        path = self._partition(query, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(Spool(neighbour)._partition(query, name), path)
        except FileExistsError:
            return
        except OSError as error:
            raise lost_partition(name, f"cannot be taken from {neighbour}: {error.strerror}") from error

    def drop(self, name: str) -> None:
        """Delete a spool; one that does not exist is no error."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            return

    def drop_query(self, query: QueryId) -> None:
        """Delete all spools of a query."""
        shutil.rmtree(self._folder(query), ignore_errors=True)

    def clear(self) -> None:
        """Delete everything; what an earlier incarnation of the worker left behind has no reader any more."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _folder(self, query: QueryId) -> Path:
        # The id comes over the network: it never becomes a path as it is.
        return self._root / blake2b(query.encode(), digest_size=12).hexdigest()

    def _relation(self, query: QueryId, name: str) -> Path:
        return self._folder(query) / f"{blake2b(name.encode(), digest_size=12).hexdigest()}.parquet"

    def _partition(self, query: QueryId, name: str) -> Path:
        if not _is_name(name):
            raise lost_partition(name, "is no name of a partition")
        return self._folder(query) / f"{name}.parquet"

    def _path(self, name: str) -> Path:
        return find_frames(self._root, name)


class FileWriter:
    """A file being written: it appears under its name when it is complete and its bytes are the announced ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f"{secrets.token_hex(8)}.tmp")
        self._digest = FastDigest()
        self._file = self._temporary.open("wb")

    def write(self, chunk: bytes | memoryview) -> None:
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise QueryTooLargeError(f"the worker has no room for a relation of the query: {error.strerror}") from error

    def finish(self, digest: str) -> None:
        """Complete the file. Raise `ClusterError` if `digest` is given and the bytes are others."""
        if digest and self._digest.hexdigest() != digest:
            raise ClusterError("the bytes of a relation were damaged on the way to the worker")
        try:
            self._file.close()
            self._temporary.rename(self._path)
        except FileNotFoundError as error:
            raise QueryCancelledError("the query was cancelled while it was given a relation") from error
        except OSError as error:
            raise QueryTooLargeError(f"the worker has no room for a relation of the query: {error.strerror}") from error

    def abort(self) -> None:
        """Forget the file unless it is complete."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class PartitionFile:
    """A partition being written: somebody writes a Parquet file to `path`, and `finish` gives it its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = secrets.token_hex(8)
        self.path = folder / f"{self._token}.tmp"

    def finish(self) -> tuple[str, int]:
        """Return the name and the size of the complete file."""
        digest = FastDigest()
        size = 0
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
        name = f"{digest.hexdigest()}-{self._token}"
        self.path.rename(self._folder / f"{name}.parquet")
        return name, size

    def abort(self) -> None:
        self.path.unlink(missing_ok=True)


class SpoolWriter:
    """One spool being written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._temporary = folder / f"{self._token}.tmp"
        self._digest = FastDigest()
        self._file = self._temporary.open("wb")

    def write(self, batch: pa.RecordBatch) -> None:
        pieces = stream_pieces(batch)
        size = sum(memoryview(piece).nbytes for piece in pieces)
        try:
            self._file.write(size.to_bytes(HEAD_BYTES, "little"))
            for piece in pieces:
                self._digest.update(piece)
                self._file.write(piece)
        except OSError as error:
            raise QueryTooLargeError(f"the worker cannot spool the result: {error.strerror}") from error

    def finish(self) -> str:
        """Complete the spool and return its name."""
        try:
            self._file.close()
        except OSError as error:
            raise QueryTooLargeError(f"the worker cannot spool the result: {error.strerror}") from error
        name = f"{self._digest.hexdigest()}-{self._token}"
        self._temporary.rename(self._folder / f"{name}{SUFFIX}")
        return name

    def abort(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def lost_partition(name: str, why: str) -> PartitionLostError:
    """Return the error that says which partition must be made again."""
    return PartitionLostError(f"partition {name} {why}", details={"partitions": [name]})


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None
