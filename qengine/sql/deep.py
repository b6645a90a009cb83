"""Room for recursion: sqlglot and our own walks recurse on the tree, and Python's default stack ends at some 45 nested levels.

The work runs in a thread with a large stack while the interpreter's recursion limit is raised; the limit goes back when the
last such call ends.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STACK_BYTES = 256 * 2**20
_DEPTH = 20_000


class _Room:
    """Counts the calls that need the raised limit; `threading.stack_size` is process-wide too, so both sit behind one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.normal = 0
        self.inside = threading.local()

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.normal = sys.getrecursionlimit()
                sys.setrecursionlimit(max(_DEPTH, self.normal))
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                sys.setrecursionlimit(self.normal)

    def start(self, target: Callable[[], None]) -> threading.Thread:
        with self.lock:
            before = threading.stack_size(_STACK_BYTES)
            try:
                thread = threading.Thread(target=target, name="qengine-sql", daemon=True)
                thread.start()
            finally:
                threading.stack_size(before)
        return thread


_ROOM = _Room()


def run_deep(work: Callable[[], T]) -> T:
    """Run `work` with room for deep recursion and return its result; its exception is raised here. Nested calls run in place."""
    if getattr(_ROOM.inside, "deep", False):
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        _ROOM.inside.deep = True
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    _ROOM.enter()
    try:
        _ROOM.start(body).join()
    finally:
        _ROOM.leave()
    if errors:
        raise errors[0]
    return results[0]
