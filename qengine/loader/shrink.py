"""Rows that leave the parts where they are: of inputs that are replaced, with keys that come anew, or whose director has moved.

Only parts that can hold such a row are read, each by itself: without the rows that go it is written again, for the range that it
had; if none goes, it stays the file that it was. So margins, sub-ranges and the other parts of a range need no thought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.catalog.model import Int64Array, PartRole, Parts
from qengine.loader.pool import in_order
from qengine.loader.stored import INPUT, LOAD, conformed, input_codes, read_part
from qengine.loader.write import Written
from qengine.sky.cells import RangeSet, distinct
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat, write_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Which rows go: of inputs (`input_codes`), and with these keys; and the ranges of the line outside of which there are none."""

    codes: pa.Array
    keys: pa.Array | None
    ranges: RangeSet

    def __bool__(self) -> bool:
        return bool(len(self.codes)) or (self.keys is not None and bool(len(self.keys)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Touches:
    """Says whether a part has rows that go: those that leave, or those that `moves` says to move, by their `columns`."""

    leaving: Leaving
    key: str
    follows: tuple[str, ...] = ()
    moves: Callable[[pa.Table, int], bool] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns to look at."""
        key = self.key if self.leaving.keys is not None else ""
        return tuple(dict.fromkeys((LOAD, INPUT, *self.follows, *([key] if key else []))))

    def any(self, rows: pa.Table, start: int) -> bool:
        """Say whether one of the rows of a part whose range begins at `start` goes."""
        return bool(pc.any(leaves(rows, self.leaving, self.key)).as_py()) or (self.moves is not None and self.moves(rows, start))


@dataclass(frozen=True, slots=True)
class Sifted:
    """A part's rows that stay (None: all of them as they are), those that go somewhere else, and those that go for good."""

    stay: pa.Table | None
    moved: pa.Table | None = None
    gone: pa.Table | None = None


@dataclass(slots=True)
class Shrunk:
    """What is left of some parts: which stay as they are, those written again, and the columns that are asked for of the rows that
    went."""

    untouched: NDArray[np.bool_]
    written: list[Written] = field(default_factory=list)
    gone: list[pa.Table] = field(default_factory=list)
    gone_rows: int = 0


Sift = Callable[[pa.Table, int, int], Sifted]
"""Sorts out the rows of a part with the range [start, stop)."""


def sift_out(leaving: Leaving, key: str) -> Sift:
    """Return the function that lets rows go for good."""

    def sift(rows: pa.Table, start: int, stop: int) -> Sifted:
        del start, stop
        goes = leaves(rows, leaving, key)
        if not pc.any(goes).as_py():
            return Sifted(None)
        return Sifted(rows.filter(pc.invert(goes)), gone=rows.filter(goes))

    return sift


def leaves(rows: pa.Table, leaving: Leaving, key: str) -> pa.ChunkedArray:
    """Say for each row whether it goes."""
    goes = (
        pc.is_in(input_codes(rows), leaving.codes)
        if len(leaving.codes)
        else pa.chunked_array([pa.array(np.zeros(len(rows), bool))])
    )
    if leaving.keys is not None and len(leaving.keys):
        keys = pc.cast(rows.column(key), leaving.keys.type)
        goes = pc.or_(goes, pc.fill_null(pc.is_in(keys, leaving.keys), False))
    return goes


def shrink(
    parts: Parts, role: PartRole, ranges: RangeSet, sift: Sift, *, touches: Touches, store: Store, folder: Path,
    schema: pa.Schema, form: PartFormat, pool: ThreadPoolExecutor, ahead: int, gone: Sequence[str] = (), moved: Moved | None = None,
) -> Shrunk:  # fmt: skip
    """Let rows go from the parts that meet `ranges`. `schema` is what stored rows have now; of rows that go for good the columns
    `gone` are kept, and those that go somewhere else go to `moved`."""
    touched = np.flatnonzero(ranges.overlaps(parts.lowest, parts.highest + 1)) if len(parts) else np.empty(0, np.int64)

    look = pa.schema([schema.field(name) for name in touches.columns if name in schema.names])

    def work(i: int) -> tuple[int, Sifted, Written | None]:
        start, stop = int(parts.start[i]), int(parts.stop[i])
        # Most parts keep all of their rows, and a few columns are enough to see that.
        if not touches.any(conformed(read_part(store, parts.uri[i].as_py(), look.names), look), start):
            return i, Sifted(None), None
        found = sift(conformed(read_part(store, parts.uri[i].as_py()), schema), start, stop)
        if found.stay is None or not found.stay.num_rows:
            return i, found, None
        file = write_part(found.stay.combine_chunks(), folder, form)
        return i, found, Written(role=role, start=start, stop=stop, file=file)

    shrunk = Shrunk(np.ones(len(parts), np.bool_))
    for i, found, written in in_order(pool, work, touched.tolist(), ahead=ahead):
        if found.stay is None:
            continue
        shrunk.untouched[i] = False
        if written is not None:
            shrunk.written.append(written)
        if found.moved is not None and moved is not None:
            moved.put(found.moved)
        if found.gone is not None:
            shrunk.gone_rows += found.gone.num_rows
            shrunk.gone.append(found.gone.select(list(gone)))
    return shrunk


class Moved:
    """A file of rows on the way to another place, made when the first one comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: pa.NativeFile | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def put(self, rows: pa.Table) -> None:
        """Add rows."""
        if not rows.num_rows:
            return
        if self._writer is None:
            self._file = pa.OSFile(str(self.path), "wb")
            self._writer = pa.ipc.new_stream(self._file, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> Path | None:
        """Return the finished file, None if there were no rows."""
        if self._writer is None or self._file is None:
            return None
        self._writer.close()
        self._file.close()
        return self.path


def one_column(tables: Sequence[pa.Table], name: str, arrow: pa.DataType) -> pa.Array:
    """Return a column of all tables in one piece."""
    chunks = [pc.cast(chunk, arrow) for table in tables for chunk in table.column(name).chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], arrow)


def ranges_of(cells: Int64Array) -> RangeSet:
    """Return the ranges of just these cells."""
    unique = distinct(cells[cells >= 0])
    return RangeSet.from_ranges(unique, unique + 1)
