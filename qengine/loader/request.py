"""What a load is asked to do, and what it says that it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from qengine.catalog.model import TableKind
from qengine.errors import ConfigError
from qengine.loader.sources.open import InputOptions

ROWS_PER_TILE = 1_000_000
MARGIN_ARCSEC = 10.0

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total); `total` is an estimate."""


class OnDuplicate(StrEnum):
    """What happens to a row whose key is in the table already: the load fails, the row is left out if it is the same in all
    columns (and the load fails if it is not), it takes the place of the old row, or it is put aside. Of rows of one load with
    the same key, the first one stays if others are put aside; otherwise the load fails."""

    ERROR = "error"
    SKIP_IDENTICAL = "skip-identical"
    REPLACE = "replace"
    QUARANTINE = "quarantine"


class ExtraColumns(StrEnum):
    """What happens to columns of an input that the table does not have: the load fails, they become columns of the table (NULL
    in rows that are there already), or they are left out."""

    ERROR = "error"
    KEEP = "keep"
    DROP = "drop"


class MissingColumns(StrEnum):
    """What happens if an input lacks a column of the table: the load fails, or the column is NULL where the table allows it."""

    ERROR = "error"
    NULL = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A load of `inputs` (files, directories, globs) into `catalog`.`table`, which is made if it is not there.

    `kind` is a director unless the schema says otherwise. `key` is a director's unique key, or a child's own; empty if there is
    none, None to ask the schema. `ra` and `dec` are columns of the position in ICRS degrees; empty to find them by UCD or name.
    A match table names its two directors by `left` and `right`, each `[CATALOG.]TABLE.COLUMN` with the column of the inputs that
    holds the director's key. `line` is what the line of a director's family is made of, sky (if empty) or hash of its key; a series
    lies by the times in `time_key`.
    `schema` is a Felis file, an address or the name of a schema (`catalog.felis_schema`), whose sidecar may say all of this. A
    director's tiles hold at most `rows_per_tile` rows, a child's parts at most four times as many. `margin_arcsec` of zero writes
    no margins. `ra_wrap` takes right ascensions outside [0, 360) modulo 360 instead of refusing them. `memory_bytes` bounds what
    the load holds at a time (0: 2 GB, or 1 GB per core), `workers` its threads (0: one per core).

    `options` say more about the inputs, such as the label of a single one. `extra_columns` and `missing_columns` say what to do
    with inputs that have other columns than the table. `convert_position` takes positions whose metadata says radians, hours or
    another frame, and keeps the originals. `on_duplicate` and `evolve` are for tables that are there: with the latter, the schema
    may declare other columns than the table has, which change then. `allow_orphans` lets children stay whose director a replaced
    input takes away. `filter` is an SQL condition on the columns of the inputs: rows for which it is not true are left out, and
    counted.
    """

    inputs: tuple[str | Path, ...] = ()
    catalog: str
    table: str
    kind: TableKind | None = None
    key: str | None = None
    ra: str = ""
    dec: str = ""
    director: str = ""
    director_key: str = ""
    left: str = ""
    right: str = ""
    line: str = ""
    time_key: str = ""
    schema: Path | str | None = None
    rows_per_tile: int | None = None
    margin_arcsec: float | None = None
    ra_wrap: bool = False
    memory_bytes: int = 0
    workers: int = 0
    options: InputOptions = field(default_factory=InputOptions)
    on_duplicate: OnDuplicate = OnDuplicate.ERROR
    extra_columns: ExtraColumns = ExtraColumns.ERROR
    missing_columns: MissingColumns = MissingColumns.ERROR
    evolve: bool = False
    convert_position: bool = False
    allow_orphans: bool = False
    filter: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what was asked for as JSON values, without the inputs: what differs from the default, by name."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _NAMES or (one.name not in _OF_INPUTS and value != one.default):
                found[one.name] = value.value if isinstance(value, TableKind) else str(value) if isinstance(value, Path) else value
        return found

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> LoadRequest:
        """Return the request of which `to_json` has written what it could."""
        found = dict(words)
        for name, kind in _KINDS.items():
            if found.get(name) is not None:
                found[name] = kind(found[name])
        return cls(**found)

    def with_words(self, other: LoadRequest) -> LoadRequest:
        """Return what both ask for. Raise `ConfigError` if they contradict each other."""
        mine, theirs = self.to_json(), other.to_json()
        for name, value in theirs.items():
            if mine.setdefault(name, value) != value:
                raise ConfigError(
                    f"{self.catalog}.{self.table}: one contribution says {name} = {mine[name]!r}, another {value!r}",
                    hint="contributions to a table must ask for the same; leave out what another has said",
                )
        return LoadRequest.from_json(mine)


_NAMES = ("catalog", "table")
_KINDS: dict[str, Callable[[Any], Any]] = {
    "kind": TableKind, "on_duplicate": OnDuplicate, "extra_columns": ExtraColumns, "missing_columns": MissingColumns
}  # fmt: skip
_OF_INPUTS = ("inputs", "options")
_SHOWN_COLUMNS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a load read, stored and found wrong. All numbers are rows unless they say otherwise.

    `orphaned` rows have no place on the sky (no position; for a child: no director with one); of a child, `without_director`
    name no row of the director. `quarantined` rows are in the file `quarantine` with their reason and not in the table. `nan`
    counts NaN per column that became NULL.
    """

    catalog: str
    table: str
    load: str
    snapshot: int
    read: int
    stored: int
    orphaned: int
    without_director: int
    quarantined: int
    quarantine: str
    wrapped: int
    nan: Mapping[str, int] = field(default_factory=dict)
    tiles: int
    parts: int
    margin_rows: int
    separation_arcsec: float = 0.0
    input_bytes: int
    bytes: int
    seconds: float
    skipped_inputs: int = 0
    replaced_inputs: int = 0
    filtered: int = 0
    skipped: int = 0
    removed: int = 0

    @classmethod
    def nothing(cls, catalog: str, table: str) -> LoadReport:
        """Return the report of a load that had nothing new for the table."""
        return cls(
            catalog=catalog, table=table, load="", snapshot=0, read=0, stored=0, orphaned=0, without_director=0, quarantined=0,
            quarantine="", wrapped=0, tiles=0, parts=0, margin_rows=0, input_bytes=0, bytes=0, seconds=0.0,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> LoadReport:
        """Return the report that `to_json` wrote."""
        return cls(**words)

    def to_text(self) -> str:
        """Return the report for people, one fact a line."""
        if self.skipped_inputs and not self.read:
            what = _inputs(self.skipped_inputs)
            return f"{self.catalog}.{self.table}: nothing new, {what} there already (snapshot {self.snapshot})"
        if not (self.input_bytes or self.parts or self.removed or self.replaced_inputs):
            return f"{self.catalog}.{self.table}: nothing to do (snapshot {self.snapshot})"
        rate = self.stored / self.seconds if self.seconds > 0 else 0.0
        lines = [
            f"{self.catalog}.{self.table}: {self.stored:,} rows in {self.tiles:,} tiles, {self.parts:,} parts, {_size(self.bytes)} "
            f"(snapshot {self.snapshot}, {self.seconds:.1f} s, {rate:,.0f} rows/s)"
        ]
        if self.skipped_inputs:
            lines.append(f"  skipped: {_inputs(self.skipped_inputs)} there already in the same version")
        if self.filtered:
            lines.append(f"  left out by the filter: {self.filtered:,} rows")
        if self.skipped:
            lines.append(f"  there already, and equal: {self.skipped:,} rows")
        if self.removed:
            lines.append(f"  taken out: {self.removed:,} rows that were there")
        if self.replaced_inputs:
            lines.append(f"  replaced: the rows of {self.replaced_inputs:,} older versions of inputs")
        if self.margin_rows:
            lines.append(f"  margins: {self.margin_rows:,} copies of rows near the edges of tiles")
        if self.orphaned:
            lines.append(f"  without a place on the sky: {self.orphaned:,} rows, found by scans and keys, never by position")
        if self.separation_arcsec:
            lines.append(f"  pairs are at most {self.separation_arcsec:.6g} arcsec apart")
        if self.without_director:
            lines.append(f"  without a director: {self.without_director:,} rows")
        if self.wrapped:
            lines.append(f"  right ascension brought into [0, 360): {self.wrapped:,} rows")
        if self.nan:
            most = sorted(self.nan.items(), key=lambda item: (-item[1], item[0]))
            columns = ", ".join(f"{name} {count:,}" for name, count in most[:_SHOWN_COLUMNS])
            more = f" and {len(most) - _SHOWN_COLUMNS:,} more columns" if len(most) > _SHOWN_COLUMNS else ""
            lines.append(f"  NaN stored as NULL: {columns}{more}")
        if self.quarantined:
            lines.append(f"  quarantined: {self.quarantined:,} rows of {self.read:,}, see {self.quarantine}")
        return "\n".join(lines)


def _inputs(count: int) -> str:
    return "one input is" if count == 1 else f"{count:,} inputs are"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
