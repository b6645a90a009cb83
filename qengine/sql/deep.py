"""Room for recursion: sqlglot and our own walks recurse on the tree, and Python's default stack ends at some 45 nested levels.

The work runs in a thread with a large stack while the interpreter's recursion limit is raised; the limit goes back when the
last such call ends. The threads are kept: a call costs two switches between threads, and not a new thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_STACK_BYTES = 256 * 2**20
_DEPTH = 20_000
_THREADS = 32
"""Planning is work for the processor, so that more would only wait for each other."""


class _Room:
    """The threads, and how many calls need the raised limit. `threading.stack_size` is process-wide too: one lock guards both."""

    def __init__(self) -> None:
        self._inside = threading.local()
        self._normal = 0
        self.renew()

    def renew(self) -> None:
        """Begin without threads, as a forked process does."""
        self._lock = threading.Lock()
        self._users = 0
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="qengine-sql")

    @property
    def is_inside(self) -> bool:
        """Whether the calling thread is one of these."""
        return getattr(self._inside, "deep", False)

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Have a thread do the work."""
        with self._lock:
            before = threading.stack_size(_STACK_BYTES)
            try:
                return self._pool.submit(self._deep, work)
            finally:
                threading.stack_size(before)

    def _deep(self, work: Callable[[], T]) -> T:
        self._inside.deep = True
        with self._lock:
            if self._users == 0:
                self._normal = sys.getrecursionlimit()
                sys.setrecursionlimit(max(_DEPTH, self._normal))
            self._users += 1
        try:
            return work()
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    sys.setrecursionlimit(self._normal)


_ROOM = _Room()
os.register_at_fork(after_in_child=_ROOM.renew)


def run_deep(work: Callable[[], T]) -> T:
    """Run `work` with room for deep recursion and return its result; its exception is raised here. Nested calls run in place."""
    return work() if _ROOM.is_inside else _ROOM.start(work).result()


def start_deep(work: Callable[[], T]) -> Future[T]:
    """Begin `work` with room for deep recursion, for callers who do not wait."""
    return _ROOM.start(work)
