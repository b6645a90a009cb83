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
_LOOK_BYTES = 16 << 20


def find_frames(root: Path, name: str) -> Path:
    """Return the file of that name. Raise `FileNotFoundError`."""
    found = next(root.glob(f"*/{name}{SUFFIX}"), None) if NAME.fullmatch(name) else None
    if found is None:
        raise FileNotFoundError(name)
    return found


def map_frames(path: Path) -> list[pa.RecordBatch]:
    """Return the rows of a file, after a look at all of its bytes, without a copy. Raise `IntegrityError` if they are not what was
    written.

    No page of it stays in this process before somebody reads the rows, and all leave it with the last of the batches.
    """
    name = path.name.removesuffix(SUFFIX)
    with path.open("rb") as file:
        # An empty file cannot be mapped, and no spool is one.
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise IntegrityError(f"spool {name} is empty")
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    content, digest = pa.py_buffer(mapped), FastDigest()
    batches: list[pa.RecordBatch] = []
    at = seen = 0
    with memoryview(mapped) as view:
        while at < size:
            start = at + HEAD_BYTES
            at = start + int.from_bytes(view[at:start], "little")
            if at > size:
                raise IntegrityError(f"spool {name} is cut short")
            digest.update(view[start:at])
            try:
                with pa.ipc.open_stream(content.slice(start, at - start)) as reader:
                    batches.extend(reader)
            except pa.ArrowException as error:
                raise IntegrityError(f"spool {name} is damaged: {error}") from error
            if at - seen > _LOOK_BYTES or at == size:
                seen = _forget(mapped, seen, at)
    if digest.hexdigest() != name.split("-")[0]:
        raise IntegrityError(f"spool {name} is damaged")
    return batches


def _forget(mapped: mmap.mmap, start: int, stop: int) -> int:
    """Let go of the pages between; they are read again when they are needed. Return the first byte of those that were kept."""
    stop -= stop % mmap.PAGESIZE
    if stop > start:
        mapped.madvise(mmap.MADV_DONTNEED, start, stop - start)
    return stop
