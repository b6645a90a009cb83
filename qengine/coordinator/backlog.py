"""The tasks of one query that have not been started yet, and which of them a free worker should take.

Each task waits at its home, the first living worker of its ranking. A free worker takes the first task of its own queue; when
that is empty, the first task of the longest queue (all workers read the same store, so running elsewhere costs a cold cache and
nothing else). "First" is the largest, or the lowest number where the order is given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import heapify, heappop

import numpy as np
import numpy.typing as npt

from qengine.plan.physical import WorkerId

Entry = tuple[float, int]
"""(priority, task number); the lowest goes first."""


class Backlog:
    """Queues of waiting tasks, one per living worker.

    Parameters
    ----------
    priorities
        One number per task; the lowest goes first.
    rankings
        Array (tasks, workers) of indexes into `workers`, best first.
    workers
        All workers that the rankings speak of, living or not.
    """

    def __init__(self, priorities: Sequence[float], rankings: npt.NDArray[np.int32], workers: Sequence[WorkerId]) -> None:
        self._rankings = rankings
        self._workers = tuple(workers)
        self._entries: list[Entry] = [(priority, number) for number, priority in enumerate(priorities)]
        self._homes: dict[WorkerId, list[Entry]] = {}
        self._count = len(self._entries)

    def __len__(self) -> int:
        return self._count

    def candidates(self, task: int) -> tuple[WorkerId, ...]:
        """The workers of a task in order of preference."""
        return tuple(self._workers[i] for i in self._rankings[task].tolist())

    def settle(self, alive: Collection[WorkerId]) -> None:
        """Give every waiting task a home among `alive`; call it whenever that set changes."""
        entries = [*self._entries, *(entry for queue in self._homes.values() for entry in queue)]
        self._entries = []
        self._homes = {worker: [] for worker in alive}
        if not self._homes:
            self._entries = entries
            return
        known = [worker in self._homes for worker in self._workers]
        fallback = next(iter(self._homes))
        for entry in entries:
            home = next((self._workers[i] for i in self._rankings[entry[1]].tolist() if known[i]), fallback)
            self._homes[home].append(entry)
        for queue in self._homes.values():
            heapify(queue)

    def take(self, free: Sequence[WorkerId]) -> tuple[int, WorkerId] | None:
        """Remove the task that should start next on one of the `free` workers; `None` when nothing waits."""
        own = [(queue[0], worker) for worker in free if (queue := self._homes.get(worker))]
        if own:
            (_, task), worker = min(own)
            heappop(self._homes[worker])
        else:
            queue = max(self._homes.values(), key=len, default=[])
            if not queue or not free:
                return None
            task = heappop(queue)[1]
            worker = next((w for w in self.candidates(task) if w in free), free[0])
        self._count -= 1
        return task, worker
