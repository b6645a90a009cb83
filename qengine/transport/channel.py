"""The seam between coordinator and worker: what every channel (in process, gRPC, fault-injecting) can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from qengine.plan.physical import QueryId, Task, TaskEvent, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """Answer to a handshake or heartbeat. `slots` is how many attempts run at once, `ahead` how many more may be sent that wait for
    one; `version` is qengine's. `mark` is a file with a random name in the directory of its spools: who sees it there shares its
    disk."""

    worker: WorkerId
    protocol: int
    version: str
    slots: int
    running: tuple[str, ...]
    store: str
    ahead: int = 0
    mark: str = ""


LOCAL = "dir:"
"""What the address of a worker begins with that is found by its directory: only workers of one process exchange like that."""


class WorkerChannel(Protocol):
    """One worker as the coordinator sees it.

    `run` yields `Started` (before it, while the attempt waits for a slot, `Progress` as a sign of life), any number of `Progress`
    and `Batch`, then exactly one `Finished` or `Failed`; a lost connection or a silent worker becomes `Failed(WorkerLostError)`,
    never an exception. Closing the iterator early cancels the attempt on the worker.
    """

    @property
    def worker(self) -> WorkerId: ...

    @property
    def address(self) -> str:
        """Where other workers find its partitions: host:port, or `LOCAL` and the spool directory of a worker of this process."""
        ...

    @property
    def mapped_from_bytes(self) -> int | None:
        """Results of this size are better left in a spool, because `fetch` maps its file: the rows are not copied, and take no
        memory. None: they have to be sent."""

    def run(self, task: Task) -> AsyncIterator[TaskEvent]: ...

    def fetch(self, spool: str) -> AsyncIterator[pa.RecordBatch]:
        """Yield the rows that a finished attempt spooled, then delete them there. Raise `WorkerLostError` or `IntegrityError`."""
        ...

    async def put(self, query: QueryId, name: str, content: memoryview) -> None:
        """Give the worker a relation of the query, as the bytes of a Parquet file: tasks of the query read it as
        `plan.physical.shared_part(name, ..)` until the query is cancelled. Putting it again replaces it. Raise
        `WorkerLostError`, `ClusterError` when the bytes were damaged, or `QueryTooLargeError` when there is no room."""
        ...

    async def cancel(self, query: QueryId) -> None:
        """End all attempts of the query on this worker and drop its spools and relations; unknown queries are no error."""
        ...

    async def status(self) -> WorkerStatus:
        """Shake hands. Raise `WorkerLostError` when unreachable, `ProtocolError` when versions differ."""
        ...

    async def close(self) -> None: ...
