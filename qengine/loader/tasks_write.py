"""Writing buckets as tasks: files of a spill become parts, wherever a worker sees the store and the scratch folder of the load.

All tasks of a stage share one plan (`tasks.share`). A task reads the files of its bucket, writes parts, which are named by their
digests, and copies of rows for margins into a file whose name no other attempt uses; both are told in its result. What ends is
noted in the log of the stage at once, in whatever order, and given on in the order of the buckets.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from qengine.loader.executor import Executor, attempt_folder, ordered
from qengine.loader.spill import Spill, SpillFile, read_files, write_file
from qengine.loader.tasks import share, shared
from qengine.loader.write import Layout, Plan, Step, Steps, Written, write_bucket, write_margin

COPIES = "copies.arrow"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTask:
    """A bucket to write: its files, the `plan` of the stage (a shared value), and where to put copies for margins."""

    bucket: int
    files: tuple[SpillFile, ...]
    plan: Path
    folder: Path


def write_one(task: BucketTask) -> Step:
    """Write a bucket; copies of its rows for margins are in a file."""
    plan: Plan = shared(task.plan)
    step = write_bucket(pa.Table.from_batches(read_files(task.files)), task.bucket, plan)
    copies = None
    if step.margin:
        rows = pa.Table.from_batches([rows for _, rows in step.margin])
        copies = write_file(task.bucket, attempt_folder(task.folder) / COPIES, rows)
    return Step(step.written, [], step.rows, copies)


def write_margin_of(task: BucketTask) -> list[Written]:
    """Write the margin parts of the tiles of a bucket."""
    plan: Plan = shared(task.plan)
    return write_margin(pa.Table.from_batches(read_files(task.files)), plan.layout)


def buckets(executor: Executor, rows: Spill, plan: Plan, steps: Steps, *, ahead: int, folder: Path) -> Iterator[Step]:
    """Yield what the buckets of a sealed spill have become, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    plan_file = share(plan, folder / f"{uuid.uuid4().hex}.plan")
    todo = [bucket for bucket in rows.buckets() if bucket not in steps.known]

    def noted(results: Iterable[tuple[int, Step]]) -> Iterator[tuple[int, Step]]:
        for number, step in results:
            added = steps.add(todo[number], step)
            rows.forget(todo[number])
            yield number, added

    tasks = (BucketTask(bucket=bucket, files=rows.files(bucket), plan=plan_file, folder=folder) for bucket in todo)
    done = ordered(noted(executor.run(write_one, tasks, ahead=ahead)))
    for bucket in rows.buckets():
        yield steps.step(bucket) if bucket in steps.known else next(done)


def margins(executor: Executor, copies: Spill, layout: Layout, *, ahead: int, folder: Path) -> Iterator[list[Written]]:
    """Yield the margin parts of all buckets, in their order."""
    copies.seal()
    plan = share(Plan(layout=layout), folder / f"{uuid.uuid4().hex}.plan")
    tasks = (BucketTask(bucket=one, files=copies.files(one), plan=plan, folder=folder) for one in copies.buckets())
    for _, written in zip(copies.buckets(), ordered(executor.run(write_margin_of, tasks, ahead=ahead)), strict=True):
        yield written
