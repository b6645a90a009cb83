"""Seeded bugs: a `WorkerChannel` that lies in the ways in which a sharded engine can be wrong.

Each `Sabotage` changes the tasks that a worker gets, or the events that come back, as a fault in planning, placement or merging would.
`test_seeded_bugs` shows that the equivalence suite sees every one of them. The wrapper knows where each part lies on the line (from
the snapshots), because a task only names parts and ranges.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qengine.catalog.model import Catalog
from qengine.plan.physical import Batch, Finished, Task, TaskEvent, TaskInput
from qengine.sky.cells import RangeSet
from qengine.transport.channel import WorkerChannel
from tests.support.wrapped_channel import WrappedChannel

PartRanges = Mapping[str, tuple[int, int]]
"""uri -> the range of the line that the part belongs to; replicated parts are left out."""


def part_ranges(catalog: Catalog) -> PartRanges:
    """Return where every part of every sharded table lies."""
    found = {}
    for table in catalog:
        if table.table.is_sharded:
            for parts in (table.home, table.orphan):
                for uri, start, stop in zip(parts.uri.to_pylist(), parts.start.tolist(), parts.stop.tolist(), strict=True):
                    found[uri] = (start, stop)
    return found


def reach(found: TaskInput, where: PartRanges) -> RangeSet:
    """Return the cells whose rows the input holds."""
    starts, stops = zip(*(where[part.uri] for part in found.parts if part.uri in where), strict=True)
    cells = RangeSet.from_ranges(np.array(starts, np.int64), np.array(stops, np.int64))
    if found.ranges:
        low, high = zip(*found.ranges, strict=True)
        cells = cells & RangeSet.from_ranges(np.array(low, np.int64), np.array(high, np.int64))
    return cells


def sharded(task: Task, where: PartRanges) -> list[tuple[int, RangeSet]]:
    """(number, cells) of the inputs that are not read whole, the narrowest first: the first is read at home."""
    found = [(n, reach(i, where)) for n, i in enumerate(task.inputs) if any(part.uri in where for part in i.parts)]
    return sorted(found, key=lambda pair: pair[1].cells)


def _with_input(task: Task, number: int, changed: TaskInput) -> Task:
    return replace(task, inputs=(*task.inputs[:number], changed, *task.inputs[number + 1 :]))


def keep_task(task: Task, where: PartRanges) -> Task:
    """No fault."""
    return task


def drop_margins(task: Task, where: PartRanges) -> Task:
    """Neighbours in other tiles are not read: every input holds the cells of the narrowest one only."""
    found = sharded(task, where)
    if len(found) < 2:
        return task
    home = found[0][1]
    for number, cells in found[1:]:
        if bool(cells - home):
            task = _with_input(
                task, number, replace(task.inputs[number], ranges=(cells & home).pairs() or ((0, 1),), margin_parts=())
            )
    return task


def widen_owner(task: Task, where: PartRanges) -> Task:
    """The owner is read with its margin, so that rows near a border are made by two tasks."""
    found = sharded(task, where)
    for number, cells in found:
        for other, wider in found:
            one, two = task.inputs[number], task.inputs[other]
            if bool(wider - cells) and {p.uri for p in one.parts} <= {p.uri for p in two.parts}:
                task = _with_input(task, number, replace(one, parts=two.parts, ranges=two.ranges))
    return task


def lose_part(task: Task, where: PartRanges) -> Task:
    """The first part of every sharded input of more than one part is not read."""
    for number, found in enumerate(task.inputs):
        if len(found.parts) > 1 and any(part.uri in where for part in found.parts):
            task = _with_input(task, number, replace(found, parts=found.parts[1:]))
    return task


def lose_orphans(task: Task, where: PartRanges) -> Task:
    """Rows without a place on the sky are not read."""
    end = int(RangeSet.sky().stops[-1])
    for number, found in enumerate(task.inputs):
        on_sky = tuple(part for part in found.parts if where.get(part.uri, (0, 0))[0] < end)
        if len(on_sky) < len(found.parts):
            task = _with_input(task, number, replace(found, parts=on_sky))
    return task


def shift_ranges(task: Task, where: PartRanges) -> Task:
    """Ranges begin one cell later than they should: off by one at the borders of tasks."""
    for number, found in enumerate(task.inputs):
        if found.ranges:
            moved = tuple((start + 1 if start else 0, stop) for start, stop in found.ranges)
            task = _with_input(task, number, replace(found, ranges=moved))
    return task


def same_events(task: Task, event: TaskEvent) -> Iterator[TaskEvent]:
    """No fault."""
    yield event


def merge_twice(task: Task, event: TaskEvent) -> Iterator[TaskEvent]:
    """Every batch of the query's first task counts twice, as if two attempts had been merged."""
    yield event
    if isinstance(event, Batch) and task.id.number == 0:
        yield event


def lose_task(task: Task, event: TaskEvent) -> Iterator[TaskEvent]:
    """The rows of every third task never arrive."""
    if not (isinstance(event, Batch) and task.id.number % 3 == 2):
        yield event


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One seeded bug. `sources` and `shapes` weigh the queries that can show it."""

    name: str
    task: Callable[[Task, PartRanges], Task] = keep_task
    events: Callable[[Task, TaskEvent], Iterator[TaskEvent]] = same_events
    sources: Mapping[str, float] | None = None
    shapes: Mapping[str, float] | None = None


class SabotagedChannel(WrappedChannel):
    """A `WorkerChannel` with a seeded bug."""

    def __init__(self, inner: WorkerChannel, sabotage: Sabotage, where: PartRanges) -> None:
        super().__init__(inner)
        self._sabotage = sabotage
        self._where = where

    async def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        events = self._inner.run(self._sabotage.task(task, self._where))
        rows = size = 0
        try:
            async for event in events:
                for changed in self._sabotage.events(task, event):
                    if isinstance(changed, Batch):
                        rows, size = rows + changed.rows.num_rows, size + changed.rows.nbytes
                    if isinstance(changed, Finished) and not changed.stats.spool:
                        # The lie is consistent: the coordinator's own count of rows must not give it away.
                        changed = replace(changed, stats=replace(changed.stats, rows=rows, result_bytes=size))
                    yield changed
        finally:
            await events.aclose()  # type: ignore[attr-defined]
