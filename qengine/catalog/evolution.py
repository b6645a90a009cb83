"""Evolution: a table whose columns change while its older parts stay as they are.

A later load may add a column, widen a type, or drop a column. Nothing is rewritten: older parts lack the new column, have the
narrower type, or still have the column that is gone.

* A *missing* column reads as NULL of the declared type.
* A *narrower* type is cast while it is read (`execution.inputs`, `storage.evolved`). So only those changes are allowed by which
  every value keeps its meaning: to a wider integer, from float to double, from integers to floating-point numbers that hold each
  of them, from dates to times.
* The name of a *dropped* column is kept in `Table.dropped`: older parts would answer for a new column of that name, so it cannot
  be used again before all parts have been rewritten.

What decides where rows lie (kind, key, position, director) never changes, nor does a unit: older rows would be in the old one.

`evolve` says what changes, or refuses it with what to do instead. `evolved_parts` gives the statistics of older parts as the new
table has them, so that COUNT, MIN and MAX are still answered by the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qengine.catalog.model import Column, ColumnStats, Parts, Table
from qengine.catalog.schema import fits
from qengine.catalog.types import SqlType
from qengine.errors import SchemaError

_ROLES = ("kind", "line", "family", "key", "ra", "dec", "director", "director_key", "time_key")
_PLACING = ("key", "ra", "dec", "director_key", "time_key")
_KEYS = ("key", "director_key", "time_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """What a load changes of a table's columns. `table` is what the table becomes."""

    table: Table
    added: tuple[str, ...] = ()
    widened: tuple[tuple[str, str, str], ...] = ()
    dropped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.widened or self.dropped)

    def to_text(self) -> str:
        """Return the changes as a sentence, empty if there are none."""
        parts = [f"adds {', '.join(self.added)}"] if self.added else []
        parts += [f"makes {name} {after} (it was {before})" for name, before, after in self.widened]
        parts += [f"drops {', '.join(self.dropped)}"] if self.dropped else []
        return ", ".join(parts)


def evolve(old: Table, new: Table) -> Evolution:
    """Return what is to be done so that `old` becomes `new`.

    Raise `SchemaError` that names the table, the column and what to do where older rows could not be read as the new table's.
    """
    for role in _ROLES:
        before, after = getattr(old, role), getattr(new, role)
        if before != after:
            was, asked = (getattr(value, "value", value) or "nothing" for value in (before, after))
            raise SchemaError(
                f"{old.full_name}: its {role} is {was}, not {asked}", hint="load into a new table: all rows would lie elsewhere"
            )
    declared = {column.name: column for column in new.columns}
    before = {column.name: column for column in old.columns}
    dropped = [column for column in old.columns if column.name not in declared and not column.hidden]
    for column in dropped:
        for role in _PLACING:
            if getattr(old, role) == column.name:
                raise SchemaError(f"{old.full_name}: {column.name} is its {role} and cannot be dropped")
    added = [column for column in new.columns if column.name not in before]
    widened = []
    for column in added:
        _check_added(old, column)
    for column in new.columns:
        if (known := before.get(column.name)) is not None:
            _check_kept(old, known, column)
            if known.type.name != column.type.name:
                widened.append((column.name, str(known.type), str(column.type)))
    gone = tuple(dict.fromkeys((*old.dropped, *(column.name for column in dropped))))
    return Evolution(
        table=replace(new, dropped=gone), added=tuple(column.name for column in added), widened=tuple(widened),
        dropped=tuple(column.name for column in dropped),
    )  # fmt: skip


def _check_added(old: Table, column: Column) -> None:
    if not column.nullable:
        raise SchemaError(
            f"{old.full_name}: the new column {column.name} may not be NULL, but it is in all rows that are there",
            hint="declare it as nullable",
        )
    if column.name.lower() in {name.lower() for name in old.dropped}:
        raise SchemaError(
            f"{old.full_name}: a column {column.name} was dropped, and older parts still have it",
            hint="choose another name, or compact the whole table first",
        )
    for other in old.columns:
        if other.name.lower() == column.name.lower():
            raise SchemaError(
                f"{old.full_name}: the new column {column.name} differs from {other.name} in case only", hint="use the old spelling"
            )


def _check_kept(old: Table, before: Column, after: Column) -> None:
    where = f"{old.full_name}: column {before.name}"
    if before.type.name != after.type.name:
        if any(getattr(old, role) == before.name for role in _KEYS):
            raise SchemaError(f"{where} is a key and stays {before.type}, not {after.type}", hint="load into a new table")
        if not is_wider(before.type, after.type):
            raise SchemaError(
                f"{where} is {before.type} and cannot become {after.type}: older values would change",
                hint="add a column of the new type under another name, or load into a new table",
            )
    if before.nullable and not after.nullable:
        raise SchemaError(f"{where} may be NULL in the rows that are there", hint="declare it as nullable")
    if before.unit and after.unit and before.unit != after.unit:
        raise SchemaError(
            f"{where} is in {before.unit}, not {after.unit}",
            hint="convert the input, or add a column of the new unit under another name",
        )


def is_wider(before: SqlType, after: SqlType) -> bool:
    """Say whether values of a plain type can be read as another one without a change of meaning."""
    return before.name != after.name and not before.name.endswith("[]") and before.name != "NULL" and fits(before, after)


def evolved_parts(parts: Parts, old: Table, new: Table) -> Parts:
    """Return parts of `old` as parts of `new`: their statistics are those of the new columns, read when they are asked for."""
    if not len(parts) or old.columns == new.columns:
        return parts
    return replace(parts, stats=_EvolvedStats(parts, old, new))


class _EvolvedStats(Mapping[str, ColumnStats]):
    """Statistics of older parts by the columns of the new table."""

    def __init__(self, parts: Parts, old: Table, new: Table) -> None:
        self._stats = parts.stats
        self._rows = parts.rows
        before = {column.name: column.type for column in old.columns}
        self._kept = {c.name: c.type for c in new.columns if c.name in before and c.name in parts.stats}
        self._added = {c.name: c.type for c in new.columns if c.name not in before and _has_bounds(c.type)}

    def __getitem__(self, name: str) -> ColumnStats:
        if (kind := self._kept.get(name)) is not None:
            return _as_type(self._stats[name], kind)
        kind = self._added[name]
        count = len(self._rows)
        filler: Any = (
            np.full(count, None, np.object_) if kind.is_text else np.zeros(count, np.float64 if kind.is_float else np.int64)
        )
        never = np.zeros(count, np.bool_)
        return ColumnStats(filler, filler, self._rows.astype(np.int64), never, never)

    def __iter__(self) -> Iterator[str]:
        return iter((*self._kept, *self._added))

    def __len__(self) -> int:
        return len(self._kept) + len(self._added)

    def __contains__(self, name: object) -> bool:
        return name in self._kept or name in self._added


def _has_bounds(kind: SqlType) -> bool:
    return kind.is_numeric or kind.is_text or kind.is_boolean or kind.name in ("DATE", "TIMESTAMP")


def _as_type(stats: ColumnStats, kind: SqlType) -> ColumnStats:
    if kind.is_float and stats.minimum.dtype == np.int64:
        # Only integers that doubles hold exactly become floating-point numbers.
        return replace(stats, minimum=stats.minimum.astype(np.float64), maximum=stats.maximum.astype(np.float64))
    return stats
