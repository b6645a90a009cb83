"""What a catalogue is: tables, columns, families, and snapshots as sorted arrays on the line.

All values are frozen. A `Catalog` is everything that planning knows: the tables that a query may name, each with the
snapshot that it will read. Tests build catalogues of a million imaginary tiles from these classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qengine.catalog.types import SqlType
from qengine.sky.cells import RangeSet

if TYPE_CHECKING:
    from qengine.catalog.system_tables import ReadFacts

Int64Array = NDArray[np.int64]

HEALPIX = "_healpix_29"
"""Name of the hidden column that holds a row's place on the line."""

HIDDEN_COLUMNS = (HEALPIX, "_load", "_input")
"""Columns that the loader adds; left out of `*`, TAP_SCHEMA and formats unless named."""


class TableKind(Enum):
    """How rows find their place (architecture, section 4)."""

    DIRECTOR = "director"
    CHILD = "child"
    MATCH = "match"
    REPLICATED = "replicated"
    SERIES = "series"


SKY_LINE = "sky"
LINES = (SKY_LINE, "hash", "time")
"""What the line of a family is made of: positions, hashes of keys, or times (architecture, section 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column and its metadata. `unit` is a VOUnit string; empty strings mean that nothing was declared. A virtual column is not
    stored: `expression` is ADQL over the other columns of its table. `system` is what `catalog.systems` writes."""

    name: str
    type: SqlType
    unit: str = ""
    ucd: str = ""
    utype: str = ""
    description: str = ""
    nullable: bool = True
    principal: bool = False
    std: bool = False
    indexed: bool = False
    column_index: int | None = None
    hidden: bool = False
    expression: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """`columns` of this table name the row of `target` (a table of the same catalogue) whose `target_columns` are equal."""

    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a result must say about where its rows come from."""

    title: str = ""
    doi: str = ""
    citation: str = ""
    acknowledgement: str = ""
    licence: str = ""
    contact: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A statement worth showing about a table: `name` is unique among those of the table, `title` is for people, `query` is ADQL in
    which `{catalog}` stands for the name of the catalogue."""

    name: str
    title: str
    query: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What leads from a row of a table to other rows: ADQL in which `{catalog}` stands for the name of the catalogue, `{key}` for
    the value of the table's key. `name` is unique among those of the table."""

    name: str
    title: str
    query: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSystem:
    """How the times in a column count. `scale` is that of VOTable's TIMESYS, in upper case (TAI, UTC, TDB ..), `origin` the Julian
    date of zero (None: the values are dates), `form` says how they are written: mjd, jd, jyear, unix, iso; empty if unsaid."""

    column: str
    scale: str
    origin: float | None = None
    form: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What a load must keep to: `measure` (of `column`, or of the table if that is empty) against `limit`. One that is broken fails
    the load if it `is_fatal`, else it is a warning."""

    measure: str
    limit: float
    column: str = ""
    is_fatal: bool = True


LAYOUT = "@right"
"""What the name of a match table's second layout ends with; no other table has such a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a layout of a match table knows of the other side of its pairs.

    The table itself says which director it lies by (`family`, `director`, `director_key`). The rows of the other side are of
    `family`, and `key` is the column that holds their key. Wherever both directors have a position they are at most
    `separation_deg` apart. `strays` counts the pairs of two known directors of which one has no position, `orphans` the
    pairs whose own director is NULL or unknown while the other is known: their cells say nothing of where the other is.
    `layout_of` is the name of the table that this is the second layout of, empty for the first. `own_places` and `places` name
    what the places of the layout's own director and of the other one were, if these are in other catalogues (`catalog.pairs`).
    """

    family: str
    key: str
    separation_deg: float = 0.0
    strays: int = 0
    orphans: int = 0
    layout_of: str = ""
    own_places: str = ""
    places: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as users see it, and how it is sharded.

    `schema` is the catalogue's name. `family` names the set of tables whose rows are co-located (the director's name, with the
    catalogue's in front: `dp1.Object`); empty for replicated tables. `key` is the unique key of a director, or a child's own key
    if it has one. A child has `director` (table name in the same catalogue) and `director_key` (its own column that holds the
    director's key); so has a match table, by its layout, and `match` names the other side. `ra` and `dec` are the columns of the
    *own* position in ICRS degrees, empty if there is none; for a director they determine the place on the line. `epoch` is the
    Julian year of the positions, `pmra` and `pmdec` the columns of their proper motions (the former times cos dec), empty if there
    are none. `is_key_proven` says that keys are unique and live in one cell (checked at publish); without it there is no key
    locality. `has_nan` says that floats in the files may be NaN, which must be read as NULL. `line_column` is the files' column of
    order-29 cells; empty if an attached catalogue has none. Such a table cannot be read in part: a task that reads one of its parts
    takes the whole range of the part and gives no ranges to the reader (`TaskInput.ranges` empty), so tasks are cut only where
    parts meet, and margins (`margin`, rings of cells) cannot be used.

    `line` is what the line of its family is made of; `time_key` the column that places rows on a line of times. `virtual` are
    columns that are computed when a statement names them. A table with a `view` (a SELECT in ADQL) has no parts: a statement that
    names it reads the SELECT. `dropped` names columns that are gone, but that older parts still have. `statistics` names the
    columns whose bounds the manifest keeps (empty: all that can have them), `indexes` those with an index table. `rows_per_tile`
    and `bytes_per_tile` of zero mean the loader's own.
    """

    schema: str
    name: str
    kind: TableKind
    columns: tuple[Column, ...]
    family: str = ""
    key: str = ""
    director: str = ""
    director_key: str = ""
    ra: str = ""
    dec: str = ""
    frame: str = "icrs"
    epoch: float | None = None
    pmra: str = ""
    pmdec: str = ""
    is_key_proven: bool = True
    has_nan: bool = False
    line_column: str = HEALPIX
    description: str = ""
    utype: str = ""
    table_index: int | None = None
    foreign_keys: tuple[ForeignKey, ...] = ()
    release: Release = Release()
    match: Match | None = None
    line: str = SKY_LINE
    time_key: str = ""
    virtual: tuple[Column, ...] = ()
    view: str = ""
    times: tuple[TimeSystem, ...] = ()
    dropped: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    quality: tuple[Threshold, ...] = ()
    examples: tuple[Example, ...] = ()
    links: tuple[Link, ...] = ()
    rows_per_tile: int = 0
    bytes_per_tile: int = 0

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def is_sharded(self) -> bool:
        return self.kind is not TableKind.REPLICATED

    @property
    def locality_key(self) -> str:
        """Column whose equality means the same cell within the family; empty if there is none or it is unproven."""
        if not self.is_key_proven:
            return ""
        if self.kind is TableKind.DIRECTOR:
            return self.key
        return self.director_key if self.kind in (TableKind.CHILD, TableKind.MATCH) else ""

    def column(self, name: str) -> Column | None:
        """Return the stored column with exactly this name, hidden ones included."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def bounded(self) -> tuple[str, ...]:
        """Columns whose bounds the manifest keeps: those that are declared, what places rows, and hidden ones; all if none is
        declared."""
        if not self.statistics:
            return tuple(column.name for column in self.columns)
        roles = {self.key, self.director_key, self.ra, self.dec, self.time_key, self.line_column}
        kept = roles.union(self.statistics)
        return tuple(column.name for column in self.columns if column.hidden or column.name in kept)

    @property
    def shown(self) -> tuple[Column, ...]:
        """All columns that a statement may name: stored ones, then virtual ones."""
        return (*self.columns, *self.virtual)


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Smallest and largest value and number of NULLs (-1: not known) of one column, per part.

    `minimum` and `maximum` are int64 (integers, booleans as 0 and 1, times and dates as microseconds), float64 (also decimals,
    rounded outwards) or objects (text). They bound the values where `is_known`, and are values of the column where `is_exact`
    (None: nowhere). All arrays have shape (parts,).
    """

    minimum: NDArray[np.generic]
    maximum: NDArray[np.generic]
    nulls: Int64Array
    is_known: NDArray[np.bool_]
    is_exact: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Row groups of all parts, in file order. Shape (row groups,), but `offset` (parts + 1,): part i has groups
    offset[i]:offset[i+1]. `lowest` and `highest` are the smallest and largest cell, both inclusive."""

    offset: Int64Array
    lowest: Int64Array
    highest: Int64Array
    rows: Int64Array
    bytes: Int64Array


@dataclass(frozen=True, slots=True)
class Parts:
    """Parquet files as columns, sorted by `start`, then `digest`. Arrays have shape (parts,). The ranges of two parts are disjoint
    or equal.

    [start, stop) is the range of the line that the part belongs to (its tile or a sub-range of it); `lowest` and `highest`
    the smallest and largest cell really in it (inclusive; lowest > highest when empty). In margin parts [start, stop) is the
    tile that the margin surrounds. `uri` is relative to the store, or absolute for attached files. `digest` is the sha256 in
    hexadecimal; empty for attached files that were not scrubbed.
    """

    digest: pa.StringArray
    uri: pa.StringArray
    rows: Int64Array
    bytes: Int64Array
    start: Int64Array
    stop: Int64Array
    lowest: Int64Array
    highest: Int64Array
    row_groups: RowGroups
    stats: Mapping[str, ColumnStats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def meeting(self, ranges: RangeSet) -> Int64Array:
        """Return the indexes of the parts whose ranges share a cell with `ranges`; cheap when these are few."""
        if 4 * len(ranges) > len(self):
            return np.flatnonzero(ranges.overlaps(self.start, self.stop))
        first = np.searchsorted(self.stop, ranges.starts, side="right")
        last = np.searchsorted(self.start, ranges.stops, side="left")
        count = np.maximum(last - first, 0)
        found = np.repeat(first - np.r_[0, np.cumsum(count)[:-1]], count) + np.arange(int(count.sum()))
        # Several ranges may meet one part, and several parts may have one range: neighbours in `found` need not be the equal ones.
        # (Sorting takes 6 ms for a million; numpy's unique hashes integers and takes half a second.)
        found.sort()
        return found[np.r_[True, found[1:] != found[:-1]]] if len(found) else found


class PartRole(IntEnum):
    """What a part is for; the value is what the manifest stores."""

    HOME = 0
    ORPHAN = 1
    MARGIN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyIndex:
    """key -> cell: Parquet files (columns `key`, `_healpix_29`) sorted by key; `lowest`/`highest` key per file."""

    uri: tuple[str, ...]
    digest: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSnapshot:
    """One table at one snapshot: what a query of it reads.

    `number` is the snapshot of the catalogue. `home` holds every row on the sky exactly once; `orphan` those beyond the sky;
    `margin` the copies of rows within `margin_arcsec` around each tile. Replicated tables keep all rows in `home` with
    start = 0, stop = the end of the line. `inline` is the data of a small table that lives in the coordinator (TAP_SCHEMA);
    such a table has no parts. Of a system table `inline` has no rows before `system_tables.with_rows` has asked `facts` for
    them, once for each statement; of a step that has not run yet, there may be `expected_rows`. A match table has the same pairs
    once more in `other`, laid out by their other side.
    """

    table: Table
    number: int
    home: Parts
    orphan: Parts
    margin: Parts
    margin_arcsec: float = 0.0
    key_index: KeyIndex | None = None
    inline: pa.Table | None = None
    other: TableSnapshot | None = None
    facts: ReadFacts | None = field(default=None, compare=False, repr=False)
    expected_rows: int = field(default=0, compare=False)

    @property
    def rows(self) -> int:
        return self.inline.num_rows if self.inline is not None else int(self.home.rows.sum() + self.orphan.rows.sum())


def with_layouts(tables: Sequence[TableSnapshot]) -> tuple[TableSnapshot, ...]:
    """Return the tables with the second layouts of match tables put into their first."""
    second = {(t.table.schema, t.table.match.layout_of): t for t in tables if t.table.match is not None and t.table.match.layout_of}
    first = [t for t in tables if t.table.match is None or not t.table.match.layout_of]
    return tuple(replace(t, other=second.get((t.table.schema, t.table.name))) if t.table.match else t for t in first)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that a query may name. Schema and table names are unique without regard to case."""

    tables: tuple[TableSnapshot, ...]
    _by_name: Mapping[tuple[str, str], TableSnapshot] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = {(t.table.schema.lower(), t.table.name.lower()): t for t in self.tables}
        object.__setattr__(self, "_by_name", names)

    def __iter__(self) -> Iterator[TableSnapshot]:
        return iter(self.tables)

    def find(self, schema: str, name: str) -> TableSnapshot | None:
        """Return the table of this name without regard to case, or None."""
        return self._by_name.get((schema.lower(), name.lower()))

    def find_unqualified(self, name: str) -> tuple[TableSnapshot, ...]:
        """Return the tables of this name in all schemas; more than one means that the name is ambiguous. Those of catalogues come
        before system tables."""
        found = tuple(t for t in self.tables if t.table.name.lower() == name.lower())
        return tuple(t for t in found if t.facts is None) or found


_NONE = np.empty(0, np.int64)

NO_PARTS = Parts(
    digest=pa.array([], pa.string()), uri=pa.array([], pa.string()), rows=_NONE, bytes=_NONE, start=_NONE, stop=_NONE,
    lowest=_NONE, highest=_NONE, row_groups=RowGroups(np.zeros(1, np.int64), _NONE, _NONE, _NONE, _NONE),
)  # fmt: skip
