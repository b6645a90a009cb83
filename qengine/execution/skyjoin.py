"""Sky joins of a task: from the rows of two inputs to relations of candidate pairs that the task's SQL reads.

`SkyRelations` reads both sides into Arrow memory (a task's inputs are bounded), lets the kernel (`skykernel`) find pairs of row
numbers, takes the columns of those rows, and registers what comes out under the names that `plan.physical.SkyJoin` gives. The
kernel's pairs are a little too many, never too few; the task's SQL applies the exact test. Where the plan says that it would
compute the distance of the very columns that the kernel reads, the kernel gives it, computed as DuckDB does.

*Sides.* The side with fewer rows drives the kernel, or the one that has a radius of its own in each row. Rows are brought into
the order of their cells if they are not; cells come from the file where the position is the row's place on the line, else they
are computed. Rows without a finite position meet nobody.

*Order of pixels.* A pixel should be several radii wide, so that few rows look at neighbours, and hold a handful of rows, so that
looking is worth it; a factor of four either way costs little, but a dense field at the order of its empty surroundings costs its
square. So each run of `RUN_ROWS` along the line has its own order. Rows whose radii differ much are taken by classes of radii
within a factor of eight: a few rows with a degree do not make all others look at a degree.

*Memory.* Pairs come in batches of `PAIRS`, or of fewer where rows are wide (`BATCH_BYTES`). What fits in `HELD_BYTES` becomes a
table, and DuckDB knows its size; more becomes a stream that DuckDB pulls while it aggregates or writes, so that a radius of a
degree in a dense field costs time and not memory. How many rows a task reads is the plan's choice (`CostModel.held_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.errors import BugError, QueryCancelledError
from qengine.plan.physical import DISTANCE_COLUMN, SKY_COLUMN, SkyJoin
from qengine.sky.cells import ORDER, distinct
from qengine.sky.healpix import cells_of, neighbours_of_each

PAIRS = 1 << 18
"""Candidates of a batch."""

BATCH_BYTES = 16 << 20
"""Size of a batch of wide candidates."""

HELD_BYTES = 64 << 20
"""Candidates up to this size are held as a table."""

MAX_RADIUS_DEG = 30.0
"""A circle must fit into a pixel of order 0 and its neighbours."""

RUN_ROWS = 1 << 15
"""Neighbours on the line that share an order of pixels."""

_LEAST_PAIRS = 1 << 10
_GROUP_ROWS = 4096
_WIDTHS, _ROWS_PER_PIXEL = 6.0, 6.0
_CLASS_FACTOR = 8.0
_COMPARISONS = {"": 0, "<": 1, ">": 2, "<>": 3}
_FLIPPED = {"": "", "<": ">", ">": "<", "<>": "<>"}

Int64Array = np.ndarray[tuple[int], np.dtype[np.int64]]
Float64Array = np.ndarray[tuple[int], np.dtype[np.float64]]
BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]
Pairs = tuple[Int64Array, Int64Array, Float64Array]
"""Numbers of rows of both sides, and distances in degrees; the last is empty if nobody asked for it."""

Read = Callable[[str], pa.Table]
"""Runs a SELECT over the task's inputs."""


class Relations(Protocol):
    """Where relations get names (`execution.duck.DuckEngine`)."""

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader, /) -> object: ...

    def unregister(self, name: str, /) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Rows with a position, sorted by cell. `rows` are their numbers in the side's table. All arrays have shape (n,), but
    `radii_deg` has one value for all rows unless the side `has_radii` of its own. `asked` are lon and lat as the side gives them;
    `lon` and `lat` are the same directions in the usual intervals."""

    rows: Int64Array
    cells: Int64Array
    lon: Float64Array
    lat: Float64Array
    asked: tuple[Float64Array, Float64Array]
    keys: Int64Array
    radii_deg: Float64Array
    has_radii: bool

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, selected: Int64Array | slice) -> Places:
        """Return some of the rows."""
        lon, lat = self.lon[selected], self.lat[selected]
        is_same = self.asked[0] is self.lon and self.asked[1] is self.lat
        return Places(
            rows=self.rows[selected], cells=self.cells[selected], lon=lon, lat=lat,
            asked=(lon, lat) if is_same else (self.asked[0][selected], self.asked[1][selected]), keys=self.keys[selected],
            radii_deg=self.radii_deg[selected] if self.has_radii else self.radii_deg, has_radii=self.has_radii,
        )  # fmt: skip


@dataclass(slots=True)
class SkyRelations:
    """The relations of a task's sky joins in an engine, until `close`. `must_stop` says that the attempt is to end."""

    engine: Relations
    read: Read
    must_stop: Callable[[], bool]
    _names: list[str] = field(default_factory=list)

    def add(self, join: SkyJoin) -> None:
        """Make the relations of one join."""
        # In one piece at once: later there would be both.
        first, second = self.read(join.first).combine_chunks(), self.read(join.second).combine_chunks()
        sides = places(first, join.radius_deg), places(second, join.radius_deg)
        payloads = _payload(first), _payload(second)
        if not join.is_wide:
            rows = payloads[0].append_column("qe row", pa.array(np.arange(first.num_rows, dtype=np.int64)))
            self._register(join.rows_name, rows)
            payloads = rows.select(["qe row"]), payloads[1]
        capacity = min(max(BATCH_BYTES // max(sum(map(_row_bytes, payloads)), 1), _LEAST_PAIRS), PAIRS)
        near = index_pairs(*sides, join.comparison, capacity=capacity, has_distances=join.has_distance)
        self._register(join.name, _held(self._batches(payloads, near, join)))

    def close(self) -> None:
        """Forget the relations."""
        for name in self._names:
            self.engine.unregister(name)
        self._names.clear()

    def _register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        self.engine.register(name, rows)
        self._names.append(name)

    def _batches(self, payloads: tuple[pa.Table, pa.Table], near: Iterator[Pairs], join: SkyJoin) -> pa.RecordBatchReader:
        names = [f"{number} {name}" if join.is_wide else name for number, p in enumerate(payloads) for name in p.column_names]
        types = [t for p in payloads for t in p.schema.types]
        if join.has_distance:
            names.append(DISTANCE_COLUMN)
            types.append(pa.float64())
        schema = pa.schema(list(zip(names, types, strict=True)))
        columns = [[column.combine_chunks() for column in p.columns] for p in payloads]

        def batches() -> Iterator[pa.RecordBatch]:
            for *pair, distances in near:
                if self.must_stop():
                    raise QueryCancelledError("the attempt was stopped")
                chosen = [pa.array(rows) for rows in pair]
                arrays = [_flat(pc.take(c, rows)) for side, rows in zip(columns, chosen, strict=True) for c in side]
                if join.has_distance:
                    arrays.append(pa.array(distances))
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _payload(rows: pa.Table) -> pa.Table:
    names = [name for name in rows.column_names if not name.startswith(SKY_COLUMN)]
    # A relation needs a column, also where the SQL only counts its rows.
    return rows.select(names) if names else pa.table({"one": pa.nulls(rows.num_rows, pa.int8())})


def _row_bytes(rows: pa.Table) -> int:
    return int(rows.nbytes // max(rows.num_rows, 1))


def _held(reader: pa.RecordBatchReader) -> pa.Table | pa.RecordBatchReader:
    """Return a table if the batches are few, else a reader that begins with those already read."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in reader:
        held.append(batch)
        size += batch.nbytes
        if size > HELD_BYTES:
            return pa.RecordBatchReader.from_batches(reader.schema, _chained(held, reader))
    return pa.Table.from_batches(held, schema=reader.schema)


def _chained(held: list[pa.RecordBatch], reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while held:
        yield held.pop(0)
    yield from reader


# -- positions ---------------------------------------------------------------------------------------------------------------------


def places(rows: pa.Table, radius_deg: float) -> Places:
    """Read the kernel's columns of a side and sort them by cell. A radius that is NULL or negative meets nobody."""
    lon, lat = (_floats(rows, f"{SKY_COLUMN}{name}") for name in ("lon", "lat"))
    is_placed = np.isfinite(lon) & np.isfinite(lat)
    has_radii = "qe radius" in rows.column_names
    radii = _floats(rows, "qe radius") if has_radii else np.array([radius_deg])
    if has_radii:
        is_placed &= radii >= 0
    keys = np.zeros(rows.num_rows, np.int64)
    if "qe key" in rows.column_names:
        # A comparison with NULL is not true.
        is_placed &= rows["qe key"].is_valid().to_numpy()
        keys = _integers(rows["qe key"].fill_null(0))
    found = Places(
        rows=np.arange(rows.num_rows), cells=_cells(rows, lon, lat, is_placed), lon=lon, lat=lat, asked=(lon, lat), keys=keys,
        radii_deg=radii, has_radii=has_radii,
    )  # fmt: skip
    if not is_placed.all():
        found = found.of(np.flatnonzero(is_placed))
    lon, lat = _folded(found.lon, found.lat)
    found = replace(found, lon=lon, lat=lat)
    if len(found) and (np.diff(found.cells) < 0).any():
        found = found.of(np.argsort(found.cells, kind="stable"))
    return found


def _cells(rows: pa.Table, lon: Float64Array, lat: Float64Array, is_placed: BoolArray) -> Int64Array:
    if "qe line" in rows.column_names:
        return _integers(rows["qe line"])
    cells = np.zeros(len(lon), np.int64)
    folded, across = _folded(lon[is_placed], lat[is_placed])
    cells[is_placed] = cells_of(folded, across)
    return cells


def _folded(lon: Float64Array, lat: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the same directions with lon in [0, 360) and |lat| <= 90: distances take any angle, so the kernel must."""
    if len(lat) and not np.abs(lat).max() <= 90.0:
        lat = (lat + 180.0) % 360.0 - 180.0
        lon = np.where(np.abs(lat) > 90.0, lon + 180.0, lon)
        lat = np.where(lat > 90.0, 180.0 - lat, np.where(lat < -90.0, -180.0 - lat, lat))
    if len(lon) and not (lon.min() >= 0.0 and lon.max() < 360.0):
        lon = lon % 360.0
        lon = np.where(lon >= 360.0, 0.0, lon)
    return lon, lat


def _floats(rows: pa.Table, name: str) -> Float64Array:
    column = rows[name]
    if column.null_count:
        column = pc.fill_null(column, float("nan"))
    return np.ascontiguousarray(column.to_numpy(), np.float64)


def _integers(column: pa.ChunkedArray) -> Int64Array:
    return np.ascontiguousarray(column.to_numpy(), np.int64)


# -- pairs -------------------------------------------------------------------------------------------------------------------------


def index_pairs(
    first: Places,
    second: Places,
    comparison: str = "",
    *,
    capacity: int = PAIRS,
    has_distances: bool = False,
    run_rows: int = RUN_ROWS,
) -> Iterator[Pairs]:
    """Yield batches of pairs: row numbers of both sides and, if wanted, their distances. All pairs within the radius, each once,
    and a few more.

    `comparison` is between the keys of first and second.
    """
    if not len(first) or not len(second):
        return
    if first.has_radii and second.has_radii:
        raise BugError("a sky join has a radius on both sides")
    is_turned = first.has_radii or (not second.has_radii and len(first) < len(second))
    still, driving = (second, first) if is_turned else (first, second)
    code = _COMPARISONS[_FLIPPED[comparison] if is_turned else comparison]
    for part in (run for same in _classes(driving) for run in _runs(same, run_rows)):
        for found, found_driving, distances in _driven(still, part, code, capacity, has_distances=has_distances):
            rows = still.rows[found], part.rows[found_driving]
            yield (rows[1], rows[0], distances) if is_turned else (*rows, distances)


def warm_up() -> None:
    """Load the kernel, or compile it where it never was, so that the first join need not."""
    one = places(pa.table({f"{SKY_COLUMN}lon": [0.0], f"{SKY_COLUMN}lat": [0.0]}), 0.001)
    for _ in index_pairs(one, one, has_distances=True):
        pass


def _classes(driving: Places) -> Sequence[Places]:
    """Split rows whose radii differ by more than `_CLASS_FACTOR`."""
    if not driving.has_radii:
        return (driving,)
    number = np.floor(np.log(np.maximum(driving.radii_deg, 1e-6)) / np.log(_CLASS_FACTOR)).astype(np.int64)
    return [driving.of(np.flatnonzero(number == n)) for n in distinct(number)]


def _runs(driving: Places, rows: int) -> Iterator[Places]:
    for start in range(0, len(driving), rows):
        yield driving.of(slice(start, start + rows))


def _driven(still: Places, driving: Places, code: int, capacity: int, *, has_distances: bool) -> Iterator[Pairs]:
    # Compiling or loading the kernel takes a moment; a worker that never joins on distance never does.
    from qengine.execution import skykernel

    widest = float(driving.radii_deg.max())
    if widest > MAX_RADIUS_DEG:
        # A radius from a column may be as wide as the sky; then most pairs are near ones, and the SQL tests them.
        if has_distances:
            raise BugError("distances of a radius beyond the kernel's")
        yield from _all_pairs(len(still), len(driving), capacity)
        return
    first, last = np.searchsorted(still.cells, driving.cells[[0, -1]])
    order = pixel_order(driving.cells, still.cells[first:last], widest)
    half_shift = ORDER - order
    rim = skykernel.rim_pixels(driving.cells, driving.radii_deg, half_shift)
    around = _around(order, rim)
    group_rows, start = _GROUP_ROWS, 0
    while start < len(driving):
        found, found_driving = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        found_deg = np.empty(capacity if has_distances else 0)
        count, following = skykernel.pairs(
            still.cells, still.lon, still.lat, still.keys, driving.cells, driving.lon, driving.lat, driving.keys,
            (*still.asked, *driving.asked), driving.radii_deg, half_shift, rim, around, code, start, group_rows, found,
            found_driving, found_deg,
        )  # fmt: skip
        if following == start:
            group_rows, capacity = (group_rows // 8, capacity) if group_rows >= 8 else (1, 4 * capacity)
            continue
        start, group_rows = following, min(4 * group_rows, _GROUP_ROWS)
        if count:
            yield found[:count], found_driving[:count], found_deg[:count]


def _all_pairs(still: int, driving: int, capacity: int) -> Iterator[Pairs]:
    step = max(capacity // still, 1)
    for start in range(0, driving, step):
        rows = np.arange(start, min(start + step, driving), dtype=np.int64)
        yield np.tile(np.arange(still, dtype=np.int64), len(rows)), np.repeat(rows, still), np.empty(0)


def _around(order: int, rim: Int64Array) -> Int64Array:
    """Return the eight neighbours of each pixel, each different one once and never itself (at order 0 they may be equal), else
    -1."""
    if not len(rim):
        return np.zeros((0, 8), np.int64)
    around = np.ascontiguousarray(neighbours_of_each(order, rim))
    around[around == rim[:, None]] = -1
    around.sort(axis=1)
    around[:, 1:][around[:, 1:] == around[:, :-1]] = -1
    return around


def pixel_order(driving: Int64Array, still: Int64Array, radius_deg: float) -> int:
    """Return the order at which a pixel is `_WIDTHS` radii wide, or coarser if it would hold fewer than `_ROWS_PER_PIXEL` rows."""
    from qengine.execution.skykernel import STRETCH

    reach = STRETCH * np.radians(max(radius_deg, 1e-7))
    order = int(np.clip(np.floor(-np.log2(_WIDTHS * reach)), 0, 20))
    if _WIDTHS * reach >= 1:
        return 0
    while order > 4 and max(_rows_per_pixel(driving, order), _rows_per_pixel(still, order)) < _ROWS_PER_PIXEL:
        order -= 1
    return order


def _rows_per_pixel(cells: Int64Array, order: int) -> float:
    middle = len(cells) // 2
    cells = cells[max(middle - RUN_ROWS, 0) : middle + RUN_ROWS]
    return len(cells) / (1 + int(np.count_nonzero(np.diff(cells >> 2 * (ORDER - order)))))
