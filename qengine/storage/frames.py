"""Files of frames: how rows of a result wait on disk.

A frame is a length (8 bytes, little endian) and a complete Arrow IPC stream of one batch, which is also how a batch travels. A file
is found by its name, `<xxh3-128 of all frames>-<random>`, in any folder of a directory.

Whoever shares the disk maps a file into its memory instead of reading it: the rows are not copied, the kernel may drop them and
read them again, and they outlive the file's name.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pyarrow as pa

from qengine.errors import IntegrityError
from qengine.storage.digest import FastDigest

NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
SUFFIX = ".frames"
HEAD_BYTES = 8
_PIECE_BYTES = 16 << 20


def find_frames(root: Path, name: str) -> Path:
    """Return the file of that name. Raise `FileNotFoundError`."""
    found = next(root.glob(f"*/{name}{SUFFIX}"), None) if NAME.fullmatch(name) else None
    if found is None:
        raise FileNotFoundError(name)
    return found


def map_frames(path: Path) -> list[pa.RecordBatch]:
    """Return the rows of a file, after a look at all of its bytes, without a copy. Raise `IntegrityError` if they are not what was
    written.

    The file is mapped in pieces, so that no page of it stays in this process before somebody reads the rows, and none after the
    last batch of its piece is gone.
    """
    name = path.name.removesuffix(SUFFIX)
    digest = FastDigest()
    batches: list[pa.RecordBatch] = []
    with path.open("rb") as file:
        for piece in _pieces(file.fileno(), name):
            batches += _read(file.fileno(), piece, digest, name)
    if digest.hexdigest() != name.split("-")[0]:
        raise IntegrityError(f"spool {name} is damaged")
    return batches


def _pieces(file: int, name: str) -> list[list[tuple[int, int]]]:
    """Return where frames begin and end without their lengths, in pieces that are mapped together."""
    size = os.fstat(file).st_size
    if not size:
        raise IntegrityError(f"spool {name} is empty")
    pieces: list[list[tuple[int, int]]] = [[]]
    at = 0
    while at < size:
        start = at + HEAD_BYTES
        at = start + int.from_bytes(os.pread(file, HEAD_BYTES, at), "little")
        if at > size:
            raise IntegrityError(f"spool {name} is cut short")
        if pieces[-1] and at - pieces[-1][0][0] > _PIECE_BYTES:
            pieces.append([])
        pieces[-1].append((start, at))
    return pieces


def _read(file: int, piece: list[tuple[int, int]], digest: FastDigest, name: str) -> list[pa.RecordBatch]:
    """Return the rows of a piece, and add its bytes to the digest."""
    origin = piece[0][0] - piece[0][0] % mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(file, piece[-1][1] - origin, access=mmap.ACCESS_READ, offset=origin)
    content = pa.py_buffer(mapped)
    batches: list[pa.RecordBatch] = []
    with memoryview(mapped) as view:
        for start, stop in piece:
            digest.update(view[start - origin : stop - origin])
            try:
                with pa.ipc.open_stream(content.slice(start - origin, stop - start)) as reader:
                    batches.extend(reader)
            except pa.ArrowException as error:
                raise IntegrityError(f"spool {name} is damaged: {error}") from error
    # Looked at, but not needed yet: pages are read again when the rows are.
    mapped.madvise(mmap.MADV_DONTNEED)
    return batches
