"""Tasks of a load on the workers of a Dask cluster (extra `[dask]`).

Workers need this package in the same version, and the store and the inputs at the same paths (a network file system): tasks and
results are small and travel through the scheduler, rows never do. What a worker that died was doing, and what it alone knew, is
done again by Dask; a task whose workers die again and again (`distributed.scheduler.allowed-failures`) ends the run. An error
that a task raises is not retried.

A task holds what a thread of a load on one machine may hold: about a gigabyte, if the load is not told otherwise. Workers with one
thread each waste nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from qengine.errors import ClusterError, ConfigError
from qengine.loader.executor import poisoned

In = TypeVar("In")
Out = TypeVar("Out")

_QUEUED = 2
"""Tasks that are begun for each thread of the cluster: while one is at work, the next waits there."""


class DaskCluster:
    """The cluster of the scheduler at `address`, such as tcp://host:8786."""

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        try:
            import distributed
        except ImportError as error:
            raise ConfigError("Dask is not installed", hint='pip install "qengine[dask]"') from error
        self._library: Any = distributed  # it has hardly any types
        try:
            self._client: Any = self._library.Client(address, set_as_default=False, timeout=timeout_s)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"there is no Dask scheduler at {address}: {error}", hint="start one with dask scheduler, and dask worker ADDRESS"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    @property
    def workers(self) -> int:
        """Return how many tasks can run at a time, at the moment."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def ahead(self, most: int) -> int:
        """Return how many tasks to begin: what one machine has memory for does not count for several."""
        del most
        return _QUEUED * self.workers

    def run(self, work: Callable[[In], Out], items: Iterable[In], *, ahead: int) -> Iterator[tuple[int, Out]]:
        """Yield (number of the item, work(item)) as they end, with at most `ahead` begun. Raise what a task raises."""
        pending = enumerate(items)
        begun: dict[Any, int] = {}
        ended = self._library.as_completed(loop=self._client.loop)

        def begin() -> None:
            while len(begun) < ahead and (task := next(pending, None)) is not None:
                # the same task of another attempt is another one
                future = self._client.submit(work, task[1], pure=False)
                begun[future] = task[0]
                ended.add(future)

        try:
            begin()
            while begun:
                future = next(ended)
                try:
                    result: Out = future.result()
                except self._library.KilledWorker as error:
                    raise poisoned(begun[future], error.allowed_failures + 1) from error
                number = begun.pop(future)
                begin()
                yield number, result
        finally:
            if begun:
                self._client.cancel(list(begun))
