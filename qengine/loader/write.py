"""From buckets to parts: sort, cut, write; and copies for margins on the way.

Buckets are independent, so threads take them one each, or workers elsewhere (`loader.tasks_write`). A director's bucket holds whole
tiles, each of which becomes a part. A child's bucket gets its directors' positions first, and is cut into parts inside tiles. Rows
beyond the sky become orphan parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.model import HEALPIX, Int64Array, PartRole
from qengine.loader.margin import TILE, Rings, by_tile, margin_pieces
from qengine.loader.order import sorted_on_line
from qengine.loader.partition import Targets, cuts
from qengine.loader.pool import in_order
from qengine.loader.request import Progress
from qengine.loader.spill import Piece, Spill, SpillFile
from qengine.loader.stored import LOAD
from qengine.sky.cells import BEYOND_END, LINE_END
from qengine.storage.parts import PartFile, PartFormat, write_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A part of the new snapshot: what it is for, its range of the line and its file."""

    role: PartRole
    start: int
    stop: int
    file: PartFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How buckets become parts. `keys` order rows of one cell; `complete` adds columns to the sorted rows of a range (a
    child's director positions)."""

    targets: Targets
    bucket_start: Int64Array
    part_rows: int
    keys: tuple[str, ...]
    form: PartFormat
    folder: Path
    complete: Callable[[pa.Table, int, int], pa.Table]

    def bounds(self, bucket: int) -> tuple[int, int]:
        """Return the range of the line that a bucket covers."""
        stop = int(self.bucket_start[bucket + 1]) if bucket + 1 < len(self.bucket_start) else BEYOND_END
        return int(self.bucket_start[bucket]), stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to become of buckets: parts, and copies of rows in `rings`. Tiles with rings in `known` have their margins already:
    they get copies of the rows of this `load` only."""

    layout: Layout
    rings: Rings | None = None
    known: Rings | None = None
    load: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What a bucket has become: its parts, copies of its rows for margins (here, or in the file `copies`), and the number of its
    rows."""

    written: list[Written]
    margin: list[Piece] = field(default_factory=list)
    rows: int = 0
    copies: SpillFile | None = None


class Steps(Protocol):
    """The steps that are done, also by processes that are gone."""

    @property
    def known(self) -> frozenset[int]:
        """Return the buckets that were written before."""

    def step(self, bucket: int) -> Step:
        """Return what a bucket has become that was written before."""

    def add(self, bucket: int, step: Step) -> Step:
        """Note that a bucket is written, and return the step with copies for margins at hand."""


Elsewhere = Callable[[Spill, Plan, Steps], Iterator[Step]]
"""Yields what the buckets have become, in their order; those that are known as they are known. New ones are added to the steps."""


def write_buckets(
    rows: Spill, plan: Plan, pool: ThreadPoolExecutor, *, ahead: int, margin: Spill | None, progress: Progress, steps: Steps,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Written]:  # fmt: skip
    """Write all buckets of `rows`, with threads of the pool or `elsewhere`, and yield their parts; copies for margins go to
    `margin`. What `steps` knows is not done again."""

    def work(bucket: int) -> Step:
        return steps.step(bucket) if bucket in steps.known else write_bucket(rows.take(bucket), bucket, plan)

    def here() -> Iterator[Step]:
        for bucket, step in zip(buckets, in_order(pool, work, buckets, ahead=ahead), strict=True):
            yield steps.add(bucket, step)
            rows.forget(bucket)

    total = sum(rows.held_rows.values())
    done = 0
    buckets = rows.buckets()
    for bucket, result in zip(buckets, here() if elsewhere is None else elsewhere(rows, plan, steps), strict=True):
        if margin is not None:
            margin.put(result.margin)
        yield from result.written
        done += result.rows
        if bucket not in steps.known:
            progress("write", done, total)


def write_bucket(rows: pa.Table, bucket: int, plan: Plan) -> Step:
    """Write the rows of one bucket."""
    layout = plan.layout
    bounds = layout.bounds(bucket)
    table = sorted_on_line(layout.complete(rows, *bounds), layout.keys)
    written = list(_write(table, layout, bounds))
    tile_bucket = bucket_of_targets(layout)
    copies = margin_pieces(table, plan.rings, tile_bucket) if plan.rings is not None else []
    if plan.known is not None:
        copies += margin_pieces(table.filter(pc.equal(table.column(LOAD), plan.load)), plan.known, tile_bucket)
    return Step(written, copies, table.num_rows)


def _write(table: pa.Table, layout: Layout, bounds: tuple[int, int]) -> Iterator[Written]:
    cells = table.column(HEALPIX).to_numpy()
    for cut in cuts(cells, layout.targets, bounds, layout.part_rows):
        file = write_part(table.slice(cut.first, cut.last - cut.first), layout.folder, layout.form)
        role = PartRole.HOME if cut.start < LINE_END else PartRole.ORPHAN
        yield Written(role=role, start=cut.start, stop=cut.stop, file=file)


def write_margins(
    margin: Spill, layout: Layout, pool: ThreadPoolExecutor, *, ahead: int, progress: Progress,
    elsewhere: Callable[[Spill, Layout], Iterator[list[Written]]] | None = None,
) -> Iterator[Written]:  # fmt: skip
    """Write the margin part of every tile that has one, with threads of the pool or `elsewhere`, and yield them."""
    buckets = margin.buckets()

    def work(bucket: int) -> list[Written]:
        return write_margin(margin.take(bucket), layout)

    results = in_order(pool, work, buckets, ahead=ahead) if elsewhere is None else elsewhere(margin, layout)
    rows = 0
    for done, written in enumerate(results, 1):
        yield from written
        rows += sum(one.file.rows for one in written)
        progress("margin", rows, rows * len(buckets) // done)


def write_margin(copies: pa.Table, layout: Layout) -> list[Written]:
    """Write the margin parts of the tiles of one bucket."""
    found = []
    for tile, rows in by_tile(sorted_on_line(copies, layout.keys, before=TILE)):
        start, stop = int(layout.targets.start[tile]), int(layout.targets.stop[tile])
        file = write_part(rows, layout.folder, layout.form)
        found.append(Written(role=PartRole.MARGIN, start=start, stop=stop, file=file))
    return found


def bucket_of_targets(layout: Layout) -> Int64Array:
    """Return the bucket that each target lies in (begins in, if the buckets cut targets)."""
    found: Int64Array = np.searchsorted(layout.bucket_start, layout.targets.start, "right") - 1
    return found


def unchanged(rows: pa.Table, start: int, stop: int) -> pa.Table:
    """Return the rows as they are: what a director's layout completes them with."""
    del start, stop
    return rows


def count_rows(written: Sequence[Written], role: PartRole) -> int:
    """Return the rows in the parts of a role."""
    return sum(part.file.rows for part in written if part.role is role)
