"""Reading inputs as tasks: a piece of an input gets its cells, and later its rows go to files by bucket.

A piece is some row groups of a Parquet file, some parts that are stored already, or the whole of any other input: `pieces_of` cuts
inputs so that a piece fills a worker's share of the memory for spilling. A worker opens the input again by its recipe. Pieces are
numbered in the order of the inputs, and what comes of them is put together in that order, so which worker does what, and when,
changes nothing.

`locate_piece` leaves the cells of the rows (raw int64) and their keys (Arrow batches) in files; the load joins them. `scan_piece`
maps the joined cells, and does to each batch what a thread of the load would (`distribute.Sorting`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qengine.catalog.joining import take_parts
from qengine.loader.convert import Conversion
from qengine.loader.distribute import Sorting, Tally, fewer_rows
from qengine.loader.executor import attempt_folder
from qengine.loader.filtered import Filtered
from qengine.loader.fit import Fitted
from qengine.loader.keys import KEY
from qengine.loader.locate import Locator, Piece, Rows, numbered_in, place
from qengine.loader.match import MatchLocator, Separation
from qengine.loader.sources.open import reopen
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import Recipe, Source
from qengine.loader.spill import Spill, SpillFile
from qengine.loader.stored import StoredRows
from qengine.loader.tasks import shared

_PIECES_PER_WORKER = 4
_MIN_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input as a worker opens it again: by the recipe, and as the table wants it."""

    recipe: Recipe
    schema: pa.Schema
    conversion: Conversion | None
    condition: str

    @classmethod
    def of(cls, source: Source) -> Input:
        """Return what a worker needs to open a source of a load. Raise `TypeError` for another one."""
        fitted, condition = (source.inner, source.condition) if isinstance(source, Filtered) else (source, "")
        if not isinstance(fitted, Fitted):
            raise TypeError(f"{type(fitted).__name__} is not fitted to a table")
        return cls(recipe=fitted.recipe, schema=fitted.schema, conversion=fitted.conversion, condition=condition)

    def open(self, piece: Piece) -> Rows:
        """Return the rows of a piece."""
        source = reopen(self.recipe)
        if piece.last >= 0 and isinstance(source, ParquetSource):
            source = source.piece(piece.first, piece.last)
        fitted = Fitted(source, self.schema, self.conversion)
        return Filtered(fitted, self.condition) if self.condition else fitted


def opened(found: Input | StoredRows, piece: Piece) -> Rows:
    """Return the rows of a piece of an input, or of what is stored."""
    if isinstance(found, Input):
        return found.open(piece)
    if piece.last < 0:
        return found
    parts = take_parts(found.parts, np.arange(piece.first, piece.last))
    return replace(found, parts=parts, files=found.files if piece.last == len(found.parts) else ())


def input_of(rows: Rows) -> Input | StoredRows:
    """Return what workers need to read rows of a load."""
    # statistics of parts are read from where they lie, which is not here any more
    return replace(rows, parts=replace(rows.parts, stats={})) if isinstance(rows, StoredRows) else Input.of(rows)


def pieces_of(sources: Sequence[Rows], *, workers: int, budget_bytes: int) -> list[Piece]:
    """Return all pieces in order, of at most about `budget_bytes` each, and enough of them for all workers."""
    total = sum(source.rows * _row_bytes(source) for source in sources)
    size = max(_MIN_PIECE_BYTES, min(budget_bytes, total // (_PIECES_PER_WORKER * workers)))
    return [piece for number, source in enumerate(sources) for piece in _cut(number, source, size)]


def _cut(number: int, source: Rows, size: int) -> Iterator[Piece]:
    counts = _counts(source)
    if not counts:
        yield Piece(source=number)
        return
    wanted = max(1, size // _row_bytes(source))
    first = place = rows = 0
    for at, count in enumerate(counts, 1):
        rows += count
        if rows >= wanted or at == len(counts):
            yield Piece(source=number, first=first, last=at, place=place)
            first, place, rows = at, place + rows, 0


def _counts(source: Rows) -> list[int]:
    """Return the rows of what a source can be cut into; nothing if it cannot be."""
    inner: Any = source
    while isinstance(inner, Filtered | Fitted):
        inner = inner.inner
    if isinstance(inner, ParquetSource):
        return list(inner.group_rows)
    return inner.parts.rows.tolist() if isinstance(inner, StoredRows) else []


def _row_bytes(source: Rows) -> int:
    if isinstance(source, StoredRows):
        return max(1, int(source.parts.bytes.sum()) // max(1, source.rows))
    return max(1, source.row_bytes)


# -- the first pass -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatePlan:
    """What all tasks of the first pass share. `separation` is filled by a match table's locator."""

    inputs: tuple[Input | StoredRows, ...]
    locator: Locator


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTask:
    """A piece to read; `plan` is a shared value, `first` the number of its first row in the load where that is known."""

    piece: Piece
    plan: Path
    folder: Path
    first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedPiece:
    """What a piece has come to: its cells and its keys in files, and what was counted."""

    piece: Piece
    cells: Path
    keys: Path | None
    wrapped: int
    unknown: int
    left_out: int
    separation: dict[str, Any]


def locate_piece(task: ScanTask) -> LocatedPiece:
    """Find the cells of the rows of a piece."""
    plan: LocatePlan = shared(task.plan)
    source = opened(plan.inputs[task.piece.source], task.piece)
    separation = Separation()
    locator = replace(plan.locator, separation=separation) if isinstance(plan.locator, MatchLocator) else plan.locator
    folder = attempt_folder(task.folder)
    cells, keys = folder / "cells", folder / "keys"
    rows = wrapped = unknown = 0
    has_keys = False
    with ExitStack() as stack:
        file = stack.enter_context(cells.open("wb"))
        writer: pa.RecordBatchStreamWriter | None = None
        for batch in numbered_in(source, locator.columns, task.piece, 0):
            placed = place(batch, source, locator)
            placed.cells.tofile(file)
            rows += len(placed.cells)
            wrapped += placed.wrapped
            unknown += placed.unknown
            if placed.keys is not None:
                if writer is None:
                    out = stack.enter_context(pa.OSFile(str(keys), "wb"))
                    writer = stack.enter_context(pa.ipc.new_stream(out, pa.schema([pa.field(KEY, placed.keys.type)])))
                    has_keys = True
                writer.write_batch(pa.record_batch([placed.keys], [KEY]))
    return LocatedPiece(
        piece=replace(task.piece, rows=rows), cells=cells, keys=keys if has_keys else None, wrapped=wrapped, unknown=unknown,
        left_out=source.left_out if isinstance(source, Filtered) else 0, separation=separation.words(),
    )  # fmt: skip


# -- the second pass ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SortPlan:
    """What all tasks of the second pass share; `cells` is the file with the cells of all rows."""

    inputs: tuple[Input | StoredRows, ...]
    sorting: Sorting
    cells: Path
    spill_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedPiece:
    """What a piece has come to: files by bucket, rows that are put aside in a file of batches, and what was counted."""

    files: list[SpillFile]
    aside: Path | None
    tally: Tally


def scan_piece(task: ScanTask) -> ScannedPiece:
    """Put the rows of a piece into files by bucket."""
    plan: SortPlan = shared(task.plan)
    found = plan.inputs[task.piece.source]
    source = opened(found, task.piece)
    sorting, tally = plan.sorting, Tally()
    cells = _cells(plan.cells)[task.first : task.first + task.piece.rows]
    folder = attempt_folder(task.folder)
    aside = folder / "aside.arrow"
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1, "spill"))
        spill = Spill(folder, sorting.shape.schema, pool, budget_bytes=plan.spill_bytes)
        writer: pa.RecordBatchStreamWriter | None = None
        for batch in numbered_in(source, sorting.shape.columns.names, task.piece, 0):
            own = np.asarray(cells[batch.first : batch.first + batch.rows.num_rows])
            done = sorting.prepare(batch, own, source.name, is_stored=isinstance(source, StoredRows))
            spill.put(done.pieces)
            tally.add(done)
            if done.refused is not None:
                if writer is None:
                    out = stack.enter_context(pa.OSFile(str(aside), "wb"))
                    writer = stack.enter_context(pa.ipc.new_stream(out, done.refused.schema))
                writer.write_batch(done.refused)
        files = spill.seal()
    if tally.read + tally.kept != task.piece.rows:
        raise fewer_rows()
    return ScannedPiece(files=files, aside=aside if tally.quarantined else None, tally=tally)


@lru_cache(maxsize=2)
def _cells(path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    if not path.stat().st_size:
        return np.empty(0, np.int64)
    return np.memmap(path, np.int64, "r")
