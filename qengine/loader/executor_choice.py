"""Which executor a load is done by, as a command line says it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from qengine.errors import ConfigError
from qengine.loader.executor import Executor, Processes
from qengine.loader.executor_dask import DaskCluster

THREADS, PROCESSES = "threads", "processes"


@dataclass(frozen=True, slots=True)
class Choice:
    """Threads of this process, processes of this machine, or the Dask cluster whose scheduler is at the address `dask`."""

    kind: str = THREADS
    dask: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (THREADS, PROCESSES):
            raise ConfigError(f"there is no executor {self.kind}", hint=f"say {THREADS} or {PROCESSES}, or --dask ADDRESS")
        if self.dask and self.kind != THREADS:
            raise ConfigError(f"--executor {self.kind} and --dask {self.dask} contradict each other", hint="say one of them")

    @property
    def is_plain(self) -> bool:
        """Return whether threads do it all."""
        return self.kind == THREADS and not self.dask

    def open(self) -> AbstractContextManager[Executor | None]:
        """Return the executor, to be closed after the load; None for threads. Raise `ClusterError` if there is no scheduler."""
        if self.dask:
            return DaskCluster(self.dask)
        return Processes(os.cpu_count() or 1) if self.kind == PROCESSES else nullcontext()
