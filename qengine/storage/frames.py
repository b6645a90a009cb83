"""Files of frames: how rows of a result wait on disk.

A frame is a length (8 bytes, little endian) and a complete Arrow IPC stream of one batch, which is also how a batch travels. A file
is found by its name, `<xxh3-128 of all frames>-<random>`, in any folder of a directory.

Whoever shares the disk maps a file into its memory instead of reading it: the rows are not copied, the kernel may drop them and
read them again, and they outlive the file's name.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from qengine.errors import IntegrityError
from qengine.storage.digest import FastDigest

NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
SUFFIX = ".frames"
HEAD_BYTES = 8


def find_frames(root: Path, name: str) -> Path:
    """Return the file of that name. Raise `FileNotFoundError`."""
    found = next(root.glob(f"*/{name}{SUFFIX}"), None) if NAME.fullmatch(name) else None
    if found is None:
        raise FileNotFoundError(name)
    return found


def map_frames(path: Path) -> list[pa.RecordBatch]:
    """Return the rows of a file, after a look at all of its bytes, without a copy. Raise `IntegrityError` if they are not what was
    written."""
    name = path.name.removesuffix(SUFFIX)
    with pa.memory_map(str(path)) as file:
        content = file.read_buffer()
    view, digest = memoryview(content), FastDigest()
    batches: list[pa.RecordBatch] = []
    at = 0
    while at < len(view):
        size = int.from_bytes(view[at : at + HEAD_BYTES], "little")
        at += HEAD_BYTES
        if at + size > len(view):
            raise IntegrityError(f"spool {name} is cut short")
        digest.update(view[at : at + size])
        try:
            with pa.ipc.open_stream(content.slice(at, size)) as reader:
                batches.extend(reader)
        except pa.ArrowException as error:
            raise IntegrityError(f"spool {name} is damaged: {error}") from error
        at += size
    if digest.hexdigest() != name.split("-")[0]:
        raise IntegrityError(f"spool {name} is damaged")
    return batches
