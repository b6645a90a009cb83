"""Who may use which slot: the accounting of all workers' slots over all queries, in two lanes.

Queries of few tasks run in the *interactive* lane, the others in the *scan* lane. An interactive attempt never waits behind scans,
and scans are never shut out:

* with two or more slots on a worker, scans use all but one of them;
* with one slot, one interactive attempt may run beside a scan (the worker is oversubscribed for that moment);
* scans may have one more attempt wait on a worker for each slot that they use there (`ahead`), if the worker allows it: it knows of
  the lanes (`transport.turns`), so these attempts take nothing from interactive ones;
* while a scan waits, interactive attempts leave it one slot of each worker that has two or more.

Slots are counted here and not asked for: a coordinator that counts what it has started needs no round trip. A `Slot` belongs to one
incarnation of a worker, so that one given back after the worker was lost and came again is not counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from qengine.plan.physical import WorkerId


class Lane(Enum):
    """The two classes of service."""

    INTERACTIVE = "interactive"
    SCAN = "scan"


@dataclass(slots=True, eq=False)
class Slot:
    """One attempt's place on a worker."""

    worker: WorkerId
    incarnation: int
    lane: Lane


@dataclass(slots=True)
class _Slots:
    count: int
    incarnation: int
    ahead: int = 0
    taken: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))

    @property
    def most_scans(self) -> int:
        return max(1, self.count - 1)

    @property
    def has_room_ahead(self) -> bool:
        return 0 <= self.taken[Lane.SCAN] - self.most_scans < min(self.ahead, self.most_scans)

    def has_room(self, lane: Lane, *, is_scan_waiting: bool) -> bool:
        interactive, scan = self.taken[Lane.INTERACTIVE], min(self.taken[Lane.SCAN], self.most_scans)
        if lane is Lane.SCAN:
            return interactive + scan < self.count and scan < self.most_scans
        if self.count == 1:
            return interactive == 0
        return interactive + scan < self.count and interactive < self.count - is_scan_waiting


class SlotPool:
    """Slots of all living workers."""

    def __init__(self) -> None:
        self._workers: dict[WorkerId, _Slots] = {}
        self._incarnations = 0

    @property
    def count(self) -> int:
        """Slots of all living workers together."""
        return sum(slots.count for slots in self._workers.values())

    @property
    def scan_count(self) -> int:
        """How many of them scans use at once."""
        return sum(slots.most_scans for slots in self._workers.values())

    def add(self, worker: WorkerId, count: int, ahead: int = 0) -> None:
        """A worker with this many slots can be used, and nothing runs on it. It lets `ahead` more attempts wait."""
        self._incarnations += 1
        self._workers[worker] = _Slots(max(1, count), self._incarnations, ahead)

    def has(self, worker: WorkerId) -> bool:
        """True between `add` and `remove`."""
        return worker in self._workers

    def remove(self, worker: WorkerId) -> None:
        """The worker is gone, with everything that ran there."""
        self._workers.pop(worker, None)

    def free(self, lane: Lane, *, is_scan_waiting: bool) -> tuple[WorkerId, ...]:
        """Workers that can take an attempt of this lane, the least loaded first."""
        usable = [
            (sum(slots.taken.values()) / slots.count, worker)
            for worker, slots in self._workers.items()
            if slots.has_room(lane, is_scan_waiting=is_scan_waiting)
        ]
        return tuple(worker for _, worker in sorted(usable))

    def ahead(self) -> tuple[WorkerId, ...]:
        """Workers whose slots for scans are all taken, and which can have one more attempt of that lane wait; the shortest queue
        first."""
        usable = [
            (slots.taken[Lane.SCAN] / slots.most_scans, worker) for worker, slots in self._workers.items() if slots.has_room_ahead
        ]
        return tuple(worker for _, worker in sorted(usable))

    def take(self, worker: WorkerId, lane: Lane) -> Slot:
        """Count one more attempt on the worker."""
        slots = self._workers[worker]
        slots.taken[lane] += 1
        return Slot(worker, slots.incarnation, lane)

    def give_back(self, slot: Slot) -> None:
        """The attempt is over. Call it once."""
        if slots := self._current(slot):
            slots.taken[slot.lane] -= 1

    def move(self, slot: Slot, lane: Lane) -> None:
        """Count a running attempt in another lane."""
        if slots := self._current(slot):
            slots.taken[slot.lane] -= 1
            slots.taken[lane] += 1
        slot.lane = lane

    def _current(self, slot: Slot) -> _Slots | None:
        slots = self._workers.get(slot.worker)
        return slots if slots and slots.incarnation == slot.incarnation else None
