"""The stages of the work on a table whose tasks are done elsewhere: by the executor of the load.

Each does what its counterpart in `locate`, `distribute` and `write` does with threads, and leaves the same behind, so the log of
stages is the same too, and a load may be resumed with another executor or with none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.loader import tasks_write
from qengine.loader.desk import Desk
from qengine.loader.distribute import Sorting, Tally
from qengine.loader.executor import Executor, ordered
from qengine.loader.filtered import Filtered
from qengine.loader.keys import KeySample
from qengine.loader.locate import CELLS, KEYS, Locator, Placement, Rows, placed_in
from qengine.loader.match import Separation
from qengine.loader.quarantine import Quarantine
from qengine.loader.spill import Spill, SpillFile
from qengine.loader.stages import Stages
from qengine.loader.steps import WRITE
from qengine.loader.tasks import share
from qengine.loader.tasks_scan import LocatedPiece, LocatePlan, ScanTask, SortPlan, input_of, locate_piece, pieces_of, scan_piece
from qengine.loader.write import Layout, Plan, Step, Steps, Written


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The work on one table, as tasks of the executor."""

    executor: Executor
    desk: Desk
    stages: Stages

    @property
    def ahead(self) -> int:
        """Return how many tasks may be under way."""
        return self.executor.ahead(self.desk.limits.workers)

    @property
    def _piece_bytes(self) -> int:
        """Return what a task may hold before it spills."""
        return self.desk.limits.spill_bytes // self.desk.limits.workers

    def locate(self, sources: Sequence[Rows], locator: Locator, folder: Path, separation: Separation) -> Placement:
        """Return where all rows go; cells and keys are kept in `folder`."""
        pieces = pieces_of(sources, workers=self.executor.workers, budget_bytes=self._piece_bytes)
        scratch = self.stages.begin("pieces")
        plan = share(LocatePlan(inputs=tuple(map(input_of, sources)), locator=locator), scratch / "plan")
        tasks = (ScanTask(piece=piece, plan=plan, folder=scratch) for piece in pieces)
        expected = sum(source.rows for source in sources)
        sample = KeySample()
        found: list[LocatedPiece] = []
        done = 0
        with ExitStack() as stack:
            cells = stack.enter_context((folder / CELLS).open("wb"))
            writer: pa.RecordBatchStreamWriter | None = None
            for _, one in zip(pieces, ordered(self.executor.run(locate_piece, tasks, ahead=self.ahead)), strict=True):
                with one.cells.open("rb") as file:
                    shutil.copyfileobj(file, cells, 8 << 20)
                for keys in _batches(one.keys):
                    sample.add(keys.column(0))
                    if writer is None:
                        out = stack.enter_context(pa.OSFile(str(folder / KEYS), "wb"))
                        writer = stack.enter_context(pa.ipc.new_stream(out, keys.schema))
                    writer.write_batch(keys)
                shutil.rmtree(one.cells.parent)
                separation.merge(one.separation)
                found.append(one)
                done += one.piece.rows
                self.desk.progress("locate", done, max(done, expected))
        shutil.rmtree(scratch)
        for number, source in enumerate(sources):
            if isinstance(source, Filtered):
                source.left_out = sum(one.left_out for one in found if one.piece.source == number)
        return placed_in(
            folder, key_borders=sample.borders(done), wrapped=sum(one.wrapped for one in found),
            unknown=sum(one.unknown for one in found), pieces=tuple(one.piece for one in found),
        )  # fmt: skip

    def distribute(
        self, sources: Sequence[Rows], placement: Placement, sorting: Sorting, folder: Path
    ) -> tuple[list[SpillFile], Tally]:
        """Put all rows into files by bucket, and return these and what was counted."""
        cells = folder / "cells"
        np.asarray(placement.cells).tofile(cells)  # with those that were put aside since they were located
        inputs = tuple(map(input_of, sources))
        plan = share(SortPlan(inputs=inputs, sorting=sorting, cells=cells, spill_bytes=self._piece_bytes), folder / "plan")
        firsts = accumulate((piece.rows for piece in placement.pieces), initial=0)
        tasks = (
            ScanTask(piece=piece, plan=plan, folder=folder, first=first)
            for piece, first in zip(placement.pieces, firsts, strict=False)
        )
        tally, files = Tally(), list[SpillFile]()
        with Quarantine(self.desk.quarantine) as aside:
            results = ordered(self.executor.run(scan_piece, tasks, ahead=self.ahead))
            for _, one in zip(placement.pieces, results, strict=True):
                tally.merge(one.tally)
                files += one.files
                for rows in _batches(one.aside):
                    aside.put(rows)
                self.desk.progress("read", tally.read + tally.kept, placement.rows)
        cells.unlink()
        return files, tally

    def buckets(self, rows: Spill, plan: Plan, steps: Steps) -> Iterator[Step]:
        """Yield what the buckets of a sealed spill have become, in their order."""
        return tasks_write.buckets(self.executor, rows, plan, steps, ahead=self.ahead, folder=self.stages.folder(WRITE))

    def margins(self, copies: Spill, layout: Layout) -> Iterator[list[Written]]:
        """Yield the margin parts of all buckets, in their order."""
        return tasks_write.margins(self.executor, copies, layout, ahead=self.ahead, folder=self.stages.folder("margins"))


def _batches(path: Path | None) -> Iterator[pa.RecordBatch]:
    """Yield what is in a file of batches."""
    if path is not None:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader
