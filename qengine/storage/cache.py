"""Parts of an object store on a worker's disk: a bounded cache of whole files, shared by the slots of a worker.

*Hold.* A task holds its parts while it runs: those that are not there are fetched, several at once, each by one process while
others wait for it (`storage.bucket`), checked against the sha256 that is their name, and renamed into place. Holding is a shared
lock on the open file, so it ends with the process whatever becomes of it. Then DuckDB and the verifier see ordinary files.

*Room.* Before something is fetched, files that nobody holds are removed, those first whose last use is longest ago, until there is
room for it within `bytes`. What running tasks hold is never removed: their parts together may exceed the bound. Removing takes the
lock of a file alone, and a holder looks whether the file it has locked still has its name, so a part is there or it is fetched
again, and never vanishes under a reader.

A part that the store does not have, or has damaged, gives `IntegrityError` with its address. One that was damaged on this disk is
found by the verifier, as any part is, and dropped; the task that is tried again fetches it.
"""

from __future__ import annotations

import fcntl
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qengine.catalog import durable
from qengine.errors import IntegrityError
from qengine.storage.bucket import Bucket, BucketFiles, is_same

_FETCHES = 4
_OPEN_FILES = 1 << 16
_USED_EVERY_S = 60.0
_DEAD_S = 3600.0
_SPARE = 0.05
"""Share of the cache that is freed beyond what is needed, so that not every fetch has to look for room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How many bytes of the worker's disk parts of an object store may take."""

    bytes: int = 64 << 30


class PartCache:
    """The near copies of a bucket's parts below `root`. One per process; processes share the directory. Thread-safe."""

    def __init__(self, root: Path, address: str, settings: CacheSettings) -> None:
        self.root = root.resolve()
        self._settings = settings
        self._files = BucketFiles(self.root, Bucket(address))
        self._lock = threading.Lock()
        self._free = -1
        self.root.mkdir(parents=True, exist_ok=True)
        _allow_open_files()

    @contextmanager
    def hold(self, parts: Iterable[tuple[str, int]], *, must_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Have these parts (URI and bytes) on the disk until the block ends.

        Raise `IntegrityError` for one that is missing or damaged, `StoreUnavailableError` if the store does not answer; end early,
        without all parts, when told to stop.
        """
        with ExitStack() as stack:
            missing = []
            for uri, size in dict(parts).items():
                if not self._take(self.root / uri, stack):
                    missing.append((uri, size))
            if missing:
                self._fetch(missing, stack, must_stop)
            yield

    def drop_damaged(self, uris: Iterable[str]) -> None:
        """Remove those copies whose bytes are not what their names promise: the next task fetches them again."""
        for uri in uris:
            path = self.root / uri
            with suppress(FileNotFoundError):
                if durable.sha256(path) != path.stem:
                    path.unlink()

    def _fetch(self, missing: list[tuple[str, int]], stack: ExitStack, must_stop: Callable[[], bool]) -> None:
        self._make_room(sum(size for _, size in missing))

        def fetch(uri: str) -> None:
            path = self.root / uri
            while not must_stop():
                # it may have been removed already where there is very little room
                if not self._files.need(path).is_file() and not self._files.exists(path):
                    address = self._files.bucket.uri(uri)
                    raise IntegrityError(
                        f"part {address} is missing from the store", hint="run a repair, or load the table again",
                        details={"uri": address},
                    )  # fmt: skip
                with self._lock:
                    if self._take(path, stack):
                        return

        with ThreadPoolExecutor(min(_FETCHES, len(missing)), "fetch") as pool:
            for _ in pool.map(fetch, (uri for uri, _ in missing)):
                pass

    def _take(self, path: Path, stack: ExitStack) -> bool:
        """Hold the file and say whether it is there."""
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            is_there = is_same(file, path)
            if is_there and time.time() - (held := os.fstat(file)).st_atime > _USED_EVERY_S:
                # the time of change names a verified file, and stays
                os.utime(file, ns=(time.time_ns(), held.st_mtime_ns))
        except BaseException:
            os.close(file)
            raise
        if not is_there:
            os.close(file)
            return False
        stack.callback(os.close, file)
        return True

    def _make_room(self, size: int) -> None:
        with self._lock, (self.root / ".room").open("a") as alone:
            if size <= self._free:
                self._free -= size
                return
            fcntl.flock(alone, fcntl.LOCK_EX)
            files = sorted(_parts_below(self.root))
            used = sum(one[1] for one in files)
            allowed = self._settings.bytes
            limit = allowed - size - (int(allowed * _SPARE) if used + size > allowed else 0)
            for _, bytes_, path in files:
                if used <= limit:
                    break
                if _remove_idle(path):
                    used -= bytes_
            # Others fetch too: what may be fetched before the next look is a small share of what is free.
            self._free = max(0, min(allowed - used - size, int(allowed * _SPARE)))


def _parts_below(root: Path) -> Iterator[tuple[float, int, Path]]:
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                found = os.stat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if name.endswith(".tmp") and time.time() - found.st_mtime > _DEAD_S:
                Path(folder, name).unlink(missing_ok=True)  # of a process that died while it fetched
            elif not name.startswith("."):
                yield found.st_atime, found.st_size, Path(folder, name)


def _remove_idle(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_same(file, path):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _allow_open_files() -> None:
    """Let the process hold many parts at once: a task of small tiles has thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
