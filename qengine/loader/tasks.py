"""What tasks have in common, by file: every task of a stage reads the same values, and workers share nothing but files.

`share` writes a value with pickle, and its large arrays (of numpy and Arrow) behind it as they are; `shared` maps the file, so that
arrays lie in memory once per machine, however many workers look at them, and come in as they are looked at. A worker keeps the
values that it has read last: the tasks of a stage follow each other.

The file is written by the load and read by its own workers only, in the load's scratch folder; it is no format to keep.
"""

from __future__ import annotations

import mmap
import pickle
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any

from qengine.errors import ClusterError

_ALIGNED = 64
_COUNT = 8


def share(value: object, path: Path) -> Path:
    """Write a value for `shared` and return `path`."""
    buffers: list[pickle.PickleBuffer] = []
    words = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    head = pickle.dumps([len(words), *(len(view) for view in views)])
    with path.open("wb") as file:
        file.write(len(head).to_bytes(_COUNT, "little"))
        pieces: list[bytes | memoryview] = [head, words, *views]
        for piece in pieces:
            file.write(bytes(-file.tell() % _ALIGNED))
            file.write(piece)
    return path


@lru_cache(maxsize=4)
def shared(path: Path) -> Any:
    """Return the value that `share` wrote; its arrays cannot be written to. Raise `ClusterError` if it is not to be seen here."""
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise ClusterError(
            f"a worker on {socket.gethostname()} does not see {path}",
            hint="workers need the store and the inputs at the same paths",
        ) from error
    at = _next(_COUNT)
    size = int.from_bytes(mapped[:_COUNT], "little")
    sizes = pickle.loads(mapped[at : at + size])
    pieces = []
    end = at + size
    for length in sizes:
        at = _next(end)
        end = at + length
        pieces.append(mapped[at:end])
    return pickle.loads(pieces[0], buffers=pieces[1:])


def _next(at: int) -> int:
    return at + -at % _ALIGNED
