"""Who runs the heavy tasks of a load: processes of this machine, or (`loader.executor_dask`) the workers of a cluster.

A task is a function of a picklable frozen value. It may be run twice, by workers that may die at any moment, and one that was given
up may still be at work when the next one is: so it writes files whose names no other attempt uses (`attempt_folder`), or whose
names are the digests of their content, and what it returns says where they are. Files that nobody has told of are swept with the
folder that they are in.

`Executor.run` yields (number of the task, result) as tasks end, in any order; at most `ahead` of them are under way, so neither
tasks nor results pile up, and items are taken only as they are needed. `ordered` brings results into the order of the items. A
task whose *worker* died is run again, up to `attempts` times; an error that a task *raises* is not retried, since it would come
again: it ends the run.

Threads need none of this: they share the memory of the load, and a load without an executor works with them (`loader.pool`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from qengine.errors import PoisonTaskError

In = TypeVar("In")
Out = TypeVar("Out")


class Executor(Protocol):
    """Runs independent tasks somewhere else."""

    @property
    def workers(self) -> int:
        """Return how many tasks can run at a time."""

    def ahead(self, most: int) -> int:
        """Return how many tasks to begin where one machine has memory for `most`."""

    def run(self, work: Callable[[In], Out], items: Iterable[In], *, ahead: int) -> Iterator[tuple[int, Out]]:
        """Yield (number of the item, work(item)) as they end, with at most `ahead` begun. Raise what a task raises."""


def attempt_folder(folder: Path) -> Path:
    """Return a new folder in `folder`, which must be there, that no other attempt uses."""
    path = folder / uuid.uuid4().hex
    path.mkdir()
    return path


def ordered(results: Iterable[tuple[int, Out]]) -> Iterator[Out]:
    """Yield results in the order of their items, each as soon as those before it are there."""
    waiting: dict[int, Out] = {}
    turn = 0
    for number, result in results:
        waiting[number] = result
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def poisoned(number: int, attempts: int) -> PoisonTaskError:
    """Return the error of a task whose workers have died too often."""
    return PoisonTaskError(
        f"workers died {attempts} times while task {number} of the load was under way",
        hint="look whether they were killed for want of memory; run fewer at a time, and resume the load",
    )


class Processes:
    """Tasks run in spawned processes of this machine, which end when the process that began them does, however it ends.

    When a worker dies its pool is broken as a whole and nobody can say which task was the cause: all tasks that were under way
    are begun again in a new pool, and each is charged an attempt.
    """

    def __init__(self, workers: int, *, attempts: int = 3) -> None:
        self._workers, self._attempts = workers, attempts
        self._pool = self._new()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def workers(self) -> int:
        """Return how many tasks can run at a time."""
        return self._workers

    def ahead(self, most: int) -> int:
        """Return how many tasks to begin where one machine has memory for `most`: all workers are here."""
        return min(most, self._workers)

    def run(self, work: Callable[[In], Out], items: Iterable[In], *, ahead: int) -> Iterator[tuple[int, Out]]:
        """Yield (number of the item, work(item)) as they end, with at most `ahead` begun. Raise what a task raises."""
        pending = enumerate(items)
        tried: dict[int, int] = {}
        begun: dict[Future[Out], tuple[int, In]] = {}
        again: list[tuple[int, In]] = []
        try:
            while True:
                is_broken = self._begin(work, pending, again, begun, tried, ahead)
                if not begun and not is_broken:
                    return
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    task = begun.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        is_broken = True
                        again.append(task)
                        continue
                    tried.pop(task[0])
                    yield task[0], result
                if is_broken:
                    again += begun.values()  # results that came before the end are made again
                    begun.clear()
                    self._renew(again, tried)
        finally:
            for future in begun:
                future.cancel()

    def _begin(
        self, work: Callable[[In], Out], pending: Iterator[tuple[int, In]], again: list[tuple[int, In]],
        begun: dict[Future[Out], tuple[int, In]], tried: dict[int, int], ahead: int,
    ) -> bool:  # fmt: skip
        """Begin tasks until `ahead` are under way, and return whether the pool is broken."""
        while len(begun) < ahead:
            task = again.pop() if again else next(pending, None)
            if task is None:
                return False
            try:
                future = self._pool.submit(work, task[1])
            except BrokenProcessPool:
                again.append(task)
                return True
            tried[task[0]] = tried.get(task[0], 0) + 1
            begun[future] = task
        return False

    def _renew(self, lost: list[tuple[int, In]], tried: dict[int, int]) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._new()
        for number, _ in lost:
            if tried.get(number, 0) >= self._attempts:
                raise poisoned(number, self._attempts)

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, multiprocessing.get_context("spawn"), initializer=_follow_parent)


def _follow_parent() -> None:
    """Let this worker end when its parent is gone: nobody else would tell it. What Ctrl-C means, its parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait_for([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
