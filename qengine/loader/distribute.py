"""The second pass: every row, cleaned and completed, into the bucket of its range of the line.

A batch is cast to the table's types, NaN becomes NULL, right ascensions are wrapped if the load says so, the hidden columns are
put in front, and the rows are grouped by bucket; rows for quarantine go to their own file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.model import HEALPIX, Int64Array
from qengine.errors import InputError
from qengine.loader.locate import Numbered, Placement, Rows, numbered
from qengine.loader.pool import in_order
from qengine.loader.quality import nan_to_null, wrap
from qengine.loader.quarantine import Quarantine, put_aside
from qengine.loader.request import Progress
from qengine.loader.spill import Piece, Spill, scatter
from qengine.loader.stored import INPUT, LOAD, StoredRows

Skip = Callable[[pa.RecordBatch, str], pa.Array]
"""Says of which rows of an input (with a name for messages) the same are there already."""

Refuse = Callable[[pa.RecordBatch, Int64Array], Int64Array]
"""Returns the cells of rows, those of rows that are put aside replaced by minus the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How rows look: `columns` are what inputs give, with the types that they are stored in. `load` and the number of the
    input go into hidden columns. `wrapped` is the column of right ascensions to wrap, or empty."""

    columns: pa.Schema
    load: int
    wrapped: str = ""

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of stored rows."""
        hidden = [pa.field(HEALPIX, pa.int64(), nullable=False), pa.field(LOAD, pa.int32(), nullable=False)]
        return pa.schema([*hidden, pa.field(INPUT, pa.int32(), nullable=False), *self.columns])


@dataclass(slots=True)
class InputTally:
    """What was counted of one input: rows that were read, put aside with a reason, and left out because they are there already."""

    read: int = 0
    quarantined: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Tally:
    """What the second pass counted; `kept` are rows that were stored already and go to another place."""

    read: int = 0
    kept: int = 0
    quarantined: int = 0
    skipped: int = 0
    of_input: dict[int, InputTally] = field(default_factory=dict)
    nan: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        of_input = {number: asdict(one) for number, one in self.of_input.items()}
        counts = {name: getattr(self, name) for name in ("read", "kept", "quarantined", "skipped")}
        return {**counts, "of_input": of_input, "nan": dict(self.nan)}

    def add(self, done: Prepared) -> None:
        """Count the rows of a batch."""
        self.nan.update(done.nan)
        if done.is_stored:
            self.kept += done.rows
            return
        refused = done.refused.num_rows if done.refused is not None else 0
        one = self.of_input.setdefault(done.source, InputTally())
        for each in (self, one):
            each.read += done.rows
            each.skipped += done.skipped
            each.quarantined += refused

    def merge(self, other: Tally) -> None:
        """Count what another one has counted."""
        self.nan.update(other.nan)
        for name in ("read", "kept", "quarantined", "skipped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for number, theirs in other.of_input.items():
            one = self.of_input.setdefault(number, InputTally())
            one.read += theirs.read
            one.quarantined += theirs.quarantined
            one.skipped += theirs.skipped

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> Tally:
        """Return the counts that `to_json` gave."""
        of_input = {int(number): InputTally(**one) for number, one in words["of_input"].items()}
        return cls(**{**words, "of_input": of_input, "nan": Counter(words["nan"])})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch on its way: its rows by bucket, those that are put aside, and what was counted."""

    pieces: list[Piece]
    refused: pa.RecordBatch | None
    nan: Mapping[str, int]
    rows: int
    source: int
    is_stored: bool = False
    skipped: int = 0


def conform(rows: pa.RecordBatch, shape: Shape, source: str) -> tuple[pa.RecordBatch, dict[str, int]]:
    """Return the rows in their stored types with NaN as NULL, and the number of NaN per column that had any."""
    columns, found = [], {}
    for wanted in shape.columns:
        values = rows.column(wanted.name)
        if values.type != wanted.type:
            values = _cast(values, wanted, source)
        values, count = nan_to_null(values)
        if count:
            found[wanted.name] = count
        if wanted.name == shape.wrapped:
            values = _wrapped(values)
        if values.null_count and not wanted.nullable:
            raise InputError(f"{source}: column {wanted.name!r} has NULL, which the schema rules out")
        columns.append(values)
    return pa.record_batch(columns, schema=shape.columns), found


def with_hidden(rows: pa.RecordBatch, cells: Int64Array, shape: Shape, source: int) -> pa.RecordBatch:
    """Return the rows with the hidden columns in front."""
    count = rows.num_rows
    hidden = [
        pa.array(np.ascontiguousarray(cells)),
        pa.array(np.full(count, shape.load, np.int32)),
        pa.array(np.full(count, source, np.int32)),
    ]
    return pa.record_batch([*hidden, *rows.columns], schema=shape.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorting:
    """How batches go to buckets. `skip` says which rows are left out because the same are there already; `refuse` gives other cells
    to rows that are put aside for what is there."""

    shape: Shape
    bucket_start: Int64Array
    skip: Skip | None = None
    refuse: Refuse | None = None

    def prepare(self, batch: Numbered, cells: Int64Array, name: str, *, is_stored: bool) -> Prepared:
        """Clean the rows of a batch and group them by bucket. `name` is what messages call the input."""
        shape = self.shape
        if len(cells) != batch.rows.num_rows:
            raise InputError(f"{name} has more rows than when the load began", hint="load files that nobody writes to")
        if is_stored:
            moved = pa.Table.from_batches([batch.rows]).select(shape.schema.names).combine_chunks().to_batches()
            arrays = [pa.array(np.ascontiguousarray(cells)), *moved[0].columns[1:]]
            whole = pa.record_batch(arrays, schema=shape.schema)
            return Prepared(scatter(whole, self._bucket(cells)), None, {}, len(cells), batch.source, is_stored=True)
        stored, nan = conform(batch.rows, shape, name)
        refused = None
        skipped = 0
        places = batch.places
        if self.skip is not None:
            is_there = self.skip(stored, name)
            skipped = int(pc.sum(is_there).as_py() or 0)
            if skipped:
                stays = pc.invert(is_there)
                stored = stored.filter(stays)
                at = stays.to_numpy(zero_copy_only=False)
                cells, places = cells[at], places[at]
        if self.refuse is not None:
            cells = self.refuse(stored, cells)
        if (cells < 0).any():
            refused = put_aside(stored, cells, name, places)
            stored = stored.filter(pa.array(cells >= 0))
            cells = cells[cells >= 0]
        pieces = scatter(with_hidden(stored, cells, shape, batch.source), self._bucket(cells))
        return Prepared(pieces, refused, nan, batch.rows.num_rows, batch.source, skipped=skipped)

    def _bucket(self, cells: Int64Array) -> Int64Array:
        found: Int64Array = np.searchsorted(self.bucket_start, cells, "right") - 1
        return found


def distribute(
    sources: Sequence[Rows], placement: Placement, sorting: Sorting, pool: ThreadPoolExecutor, *, rows: Spill, quarantine: Path,
    ahead: int, progress: Progress,
) -> Tally:  # fmt: skip
    """Read all rows, put them into `rows` by bucket, and return what was counted.

    Raise `InputError` if an input has changed since the first pass.
    """
    tally = Tally()

    def work(batch: Numbered) -> Prepared:
        source = sources[batch.source]
        cells = np.asarray(placement.cells[batch.first : batch.first + batch.rows.num_rows])
        return sorting.prepare(batch, cells, source.name, is_stored=isinstance(source, StoredRows))

    with Quarantine(quarantine) as aside:
        for done in in_order(pool, work, numbered(sources, sorting.shape.columns.names), ahead=ahead):
            rows.put(done.pieces)
            if done.refused is not None:
                aside.put(done.refused)
            tally.add(done)
            progress("read", tally.read + tally.kept, placement.rows)
    if tally.read + tally.kept != placement.rows:
        raise fewer_rows()
    return tally


def fewer_rows() -> InputError:
    """Return the error about inputs that have become smaller."""
    return InputError("the inputs have fewer rows than when the load began", hint="load files that nobody writes to")


def _wrapped(values: pa.Array) -> pa.Array:
    degrees = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wrapped = pa.array(wrap(degrees), from_pandas=True)
    return pc.cast(wrapped, values.type, safe=False)


def _cast(values: pa.Array, wanted: pa.Field, source: str) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    is_time = pa.types.is_timestamp(values.type) or pa.types.is_date64(values.type)
    try:
        # Times lose what is finer than a microsecond; every other loss is an error.
        return pc.cast(values, options=pc.CastOptions(wanted.type, allow_time_truncate=is_time))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{source}: column {wanted.name!r} cannot be stored as {wanted.type}: {error}") from error
