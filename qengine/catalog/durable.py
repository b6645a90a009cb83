"""Files that are whole or absent, and named or checked by what is in them.

A reader of another process, or a machine that lost power, must never meet half a manifest, part or pointer. So bytes go to a
temporary file in the same directory, reach the disk (fsync), and only then take their name (`os.replace`, then fsync of the
directory). Temporary names begin with a dot and end in `.tmp`, so that no reader of a tree takes them for data.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes `path` when the block ends, and vanishes when the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def forget_unfinished(path: Path) -> None:
    """Remove what writers of `path` that died have left; nobody may be writing it."""
    for dead in path.parent.glob(f".{path.name}.*.tmp"):
        dead.unlink(missing_ok=True)


def place(source: Path, target: Path) -> None:
    """Give the finished file `source` the name `target` on the same file system, durably; an existing `target` is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sync_file(source)
    os.replace(source, target)
    sync_directory(target.parent)


def sync_file(path: Path) -> None:
    """Wait until the bytes of `path` are on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the names in `path` are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
