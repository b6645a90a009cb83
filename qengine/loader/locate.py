"""The first pass: where on the line every row goes, from the few columns that decide it.

A locator maps a batch to cells: a director's by position, a child's by the cell of its director. Rows without a place get a cell
beyond the sky, by the director's key, so that they still lie with their kin; rows for quarantine get minus their reason. The
cells of all rows, in input order, are kept in one raw file that the second pass maps, and their keys in another: nothing is
computed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from qengine.catalog.model import HEALPIX, Int64Array
from qengine.loader.filtered import Filtered
from qengine.loader.key_cells import KeyCells
from qengine.loader.keys import KEY, KeySample, to_keys
from qengine.loader.pool import in_order
from qengine.loader.quality import Place, check_positions
from qengine.loader.request import Progress
from qengine.loader.sources.source import Source
from qengine.loader.stored import StoredRows
from qengine.sky.cells import LINE_END, beyond_cell
from qengine.sky.healpix import cells_of

CELLS, KEYS = "cells", "keys"
"""Files of a placement."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The cells of a batch (negative: quarantine), its keys for the sample, and what was counted on the way."""

    cells: Int64Array
    keys: pa.Array | None
    wrapped: int = 0
    unknown: int = 0


class Locator(Protocol):
    """Decides where rows go."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that decide."""

    def place(self, rows: pa.RecordBatch, place: Place) -> Placed:
        """Return the cells of `rows`, which have just `columns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorLocator:
    """Places rows by their own position; those without one by their key, or without a key by their row number."""

    ra: str
    dec: str
    key: str
    is_wrapping: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.ra, self.dec, *([self.key] if self.key else []))))

    def place(self, rows: pa.RecordBatch, place: Place) -> Placed:
        keys = to_keys(rows.column(self.key), self.key) if self.key else None
        found = check_positions(
            rows.column(self.ra), rows.column(self.dec), names=(self.ra, self.dec), place=place, is_wrapping=self.is_wrapping
        )
        cells = np.empty(rows.num_rows, np.int64)
        cells[found.is_placed] = cells_of(found.ra[found.is_placed], found.dec[found.is_placed])
        is_lost = ~found.is_placed & (found.reason == 0)
        if is_lost.any():
            at = np.flatnonzero(is_lost)
            kin = keys.take(pa.array(at)) if keys is not None else pa.array(place.rows[at])
            cells[is_lost] = beyond_cell(kin)
        cells[found.reason > 0] = -found.reason[found.reason > 0].astype(np.int64)
        return Placed(cells, keys, wrapped=found.wrapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLocator:
    """Places rows in the cell of their director; those whose director is NULL or unknown beyond the sky by its key."""

    director_key: str
    directors: KeyCells

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.director_key,)

    def place(self, rows: pa.RecordBatch, place: Place) -> Placed:
        keys = to_keys(rows.column(self.director_key), self.director_key)
        cells, is_known = self.directors.cells(keys)
        if not is_known.all():
            cells = cells.copy()
            cells[~is_known] = beyond_cell(keys.filter(pa.array(~is_known)))
        return Placed(cells, None, unknown=int((~is_known).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of an input that is read on its own: the number of the source, its row groups or parts [first, last) (all if `last` is
    negative), the place of its first row in the input, and how many rows it gave."""

    source: int
    first: int = 0
    last: int = -1
    place: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where all rows go: `cells` in input order. Where there are keys, `keys` is a file of Arrow batches with those of all rows in
    the same order, and `key_borders` are first keys of key buckets of about equal size. `pieces` are all rows in the same order."""

    cells: Int64Array
    key_borders: pa.Array
    wrapped: int
    unknown: int
    keys: Path | None = None
    pieces: tuple[Piece, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.cells)

    @property
    def orphaned(self) -> int:
        """Return how many rows go beyond the sky."""
        return sum(int((self.cells[i : i + (1 << 22)] >= LINE_END).sum()) for i in range(0, self.rows, 1 << 22))


@dataclass(frozen=True, slots=True)
class Numbered:
    """A batch, the number of its input, the places of its rows there (from 0), and the number of its first row in the load."""

    rows: pa.RecordBatch
    source: int
    places: Int64Array
    first: int


Rows = Source | StoredRows
"""Where a load takes rows from: inputs, and what is stored already."""


def numbered(sources: Sequence[Rows], columns: Sequence[str]) -> Iterator[Numbered]:
    """Yield all rows of all sources in order."""
    first = 0
    for number, source in enumerate(sources):
        for batch in numbered_in(source, columns, Piece(source=number), first):
            yield batch
            first = batch.first + batch.rows.num_rows


def numbered_in(source: Rows, columns: Sequence[str], piece: Piece, first: int) -> Iterator[Numbered]:
    """Yield the rows of a piece, which `source` gives, in order; `first` is the number of its first row in the load."""
    for rows, places in source.placed(columns) if isinstance(source, Filtered) else _in_a_row(source.batches(columns)):
        yield Numbered(rows, piece.source, places + piece.place, first)
        first += rows.num_rows


def _in_a_row(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, Int64Array]]:
    """Yield batches with the places of their rows where no row is left out."""
    place = 0
    for rows in batches:
        yield rows, np.arange(place, place + rows.num_rows)
        place += rows.num_rows


def locate(
    sources: Sequence[Rows], locator: Locator, pool: ThreadPoolExecutor, *, folder: Path, ahead: int, progress: Progress
) -> Placement:
    """Read the deciding columns of all rows and return where they go; cells and keys are kept in `folder`."""
    expected = sum(source.rows for source in sources)
    sample = KeySample()
    wrapped = unknown = done = 0
    rows_of = [0] * len(sources)

    def work(batch: Numbered) -> tuple[int, Placed]:
        return batch.source, place(batch, sources[batch.source], locator)

    with ExitStack() as stack:
        file = stack.enter_context((folder / CELLS).open("wb"))
        writer: pa.RecordBatchStreamWriter | None = None
        for source, placed in in_order(pool, work, numbered(sources, locator.columns), ahead=ahead):
            rows_of[source] += len(placed.cells)
            placed.cells.tofile(file)
            wrapped += placed.wrapped
            unknown += placed.unknown
            if placed.keys is not None:
                sample.add(placed.keys)
                if writer is None:
                    schema = pa.schema([pa.field(KEY, placed.keys.type)])
                    out = stack.enter_context(pa.OSFile(str(folder / KEYS), "wb"))
                    writer = stack.enter_context(pa.ipc.new_stream(out, schema))
                writer.write_batch(pa.record_batch([placed.keys], [KEY]))
            done += len(placed.cells)
            progress("locate", done, max(done, expected))
    pieces = tuple(Piece(source=number, rows=count) for number, count in enumerate(rows_of))
    return placed_in(folder, key_borders=sample.borders(done), wrapped=wrapped, unknown=unknown, pieces=pieces)


def place(batch: Numbered, source: Rows, locator: Locator) -> Placed:
    """Find the cells of a batch."""
    if isinstance(source, StoredRows) and source.is_placed:
        return Placed(batch.rows.column(HEALPIX).to_numpy(), None)
    return locator.place(batch.rows, Place(source.name, batch.places))


def placed_in(folder: Path, *, key_borders: pa.Array, wrapped: int, unknown: int, pieces: tuple[Piece, ...]) -> Placement:
    """Return the placement whose cells and keys are in a folder."""
    path = folder / CELLS
    # Rows that are put aside later get another cell, in memory only.
    cells = np.memmap(path, np.int64, "c") if path.stat().st_size else np.empty(0, np.int64)
    keys = folder / KEYS
    return Placement(
        cells=cells, key_borders=key_borders, wrapped=wrapped, unknown=unknown, keys=keys if keys.exists() else None, pieces=pieces
    )  # fmt: skip
