"""Do the inputs have the columns of the table? And if not quite: what is done about it.

Every input is compared, not just the first: what a load does never depends on the order of its files. A column that is missing, not
declared, of another or a narrower type, or in another unit is an error that names file and column, and the near name where it
looks renamed. A load may say what it wants instead:

* `extra_columns`: `keep` makes them columns of the table (in the order of their names, behind the others; NULL where an input
  lacks them), `drop` leaves them out.
* `missing_columns`: `null` fills them with NULL where the table allows that.

Without a declaration, the table has the columns that all inputs have; with `keep` those that any has, in the narrowest type that
holds the values of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from qengine.catalog.model import Column, Table, TableKind
from qengine.catalog.schema import column_of, fits, misfits
from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, SMALLINT, to_arrow
from qengine.errors import InputError, SchemaError
from qengine.loader.convert import Conversion
from qengine.loader.request import ExtraColumns, LoadRequest, MissingColumns
from qengine.loader.sources.source import Identity, Recipe, Source

_SHOWN = 5
_WIDER = (SMALLINT, INTEGER, BIGINT, DOUBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An input before any row is read: how messages call it, and its columns."""

    name: str
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Fitted:
    """An input as the table wants it: a source of exactly `schema`. Columns that it lacks are NULL, positions are converted.

    Other columns of the input can be asked for too: conditions on rows may need them.
    """

    inner: Source
    schema: pa.Schema
    conversion: Conversion | None = None

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def rows(self) -> int:
        return self.inner.rows

    @property
    def row_bytes(self) -> int:
        return self.inner.row_bytes

    @property
    def identity(self) -> Identity:
        return self.inner.identity

    @property
    def recipe(self) -> Recipe:
        return self.inner.recipe

    def sha256(self) -> str:
        return self.inner.sha256()

    def version(self) -> str:
        return self.inner.version()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order with just `columns`, in that order."""
        wanted = list(columns)
        read = self.conversion.needed(wanted) if self.conversion is not None else wanted
        present = frozenset(self.inner.schema.names)
        # a batch without columns has no rows, so one column is read in any case
        read = [name for name in read if name in present] or self.inner.schema.names[:1]
        for rows in self.inner.batches(read):
            arrays = [self._column(rows, name) for name in wanted]
            yield pa.record_batch(arrays, names=wanted)

    def _column(self, rows: pa.RecordBatch, name: str) -> pa.Array:
        if self.conversion is not None and (found := self.conversion.column(rows, name, self.name)) is not None:
            return found
        if rows.schema.get_field_index(name) >= 0:
            return rows.column(name)
        return pa.nulls(rows.num_rows, self.schema.field(name).type)


def check_columns(inputs: Sequence[Given]) -> None:
    """Raise `InputError` for an input that has two columns of one name, or two that differ in case only."""
    for each in inputs:
        seen: dict[str, str] = {}
        for name in each.schema.names:
            other = seen.get(name.lower())
            seen[name.lower()] = name
            if other is not None:
                raise InputError(
                    f"{each.name}: columns {other!r} and {name!r} are equal but for case", hint="rename one of them in the input"
                )


def merged(inputs: Sequence[Given], extra: ExtraColumns) -> pa.Schema:
    """Return the columns of a table that nobody has declared, from those of its inputs.

    Raise `InputError` that names file and column where the inputs differ and `extra` does not say what to do.
    """
    check_columns(inputs)
    first = inputs[0]
    common = [name for name in first.schema.names if all(name in each.schema.names for each in inputs)]
    others = sorted({name for each in inputs for name in each.schema.names} - set(common))
    if others and extra is ExtraColumns.ERROR:
        raise _different(inputs, others)
    if extra is ExtraColumns.KEEP:
        _check_case([*common, *others], inputs)
    names = [*common, *others] if extra is ExtraColumns.KEEP else common
    if not names:
        raise InputError(f"{first.name} and {inputs[-1].name} have no column in common")
    return pa.schema([_common(name, inputs, extra) for name in names])


def agreed(sources: Sequence[Source], request: LoadRequest) -> pa.Schema:
    """Return the columns of inputs that are contributed to a table together, as far as they can be compared without the table.

    Raise `InputError` where they differ and neither a schema nor the request says what to do.
    """
    inputs = [Given(name=source.name, schema=source.schema) for source in sources]
    if is_compared_later(request):
        check_columns(inputs)
        return pa.schema({field.name: field for each in reversed(inputs) for field in each.schema}.values())
    return merged(inputs, request.extra_columns)


def is_compared_later(request: LoadRequest) -> bool:
    """Say whether inputs may differ from each other, because all of them are compared with the table."""
    return request.schema is not None or request.missing_columns is not MissingColumns.ERROR


def _different(inputs: Sequence[Given], others: Sequence[str]) -> InputError:
    """Return the error about inputs whose columns are not the same: the file that differs is the one of the fewer."""
    name = others[0]
    having = [each for each in inputs if name in each.schema.names]
    lacking = [each for each in inputs if name not in each.schema.names]
    hint = "give a schema, or say --extra-columns keep or drop"
    if len(having) < len(lacking) or (len(having) == len(lacking) and inputs[0] in lacking):
        return InputError(f"{having[0].name}: column {name!r} is not in {lacking[0].name}", hint=hint)
    near = next((m.near for m in misfits(lacking[0].schema, _table_of(having[0].schema)) if m.column == name), "")
    alike = f" (it has {near})" if near else ""
    return InputError(f"{lacking[0].name}: column {name!r} is missing, which {having[0].name} has{alike}", hint=hint)


def _table_of(schema: pa.Schema) -> Table:
    columns = tuple(Column(name=name, type=BIGINT) for name in schema.names)
    return Table(schema="", name="", kind=TableKind.REPLICATED, columns=columns)


def _check_case(names: Sequence[str], inputs: Sequence[Given]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.lower(), name)
        if other != name:
            first, second = (next(each.name for each in inputs if one in each.schema.names) for one in (other, name))
            raise InputError(f"column {other!r} of {first} and {name!r} of {second} differ in case only", hint="rename one of them")


def _common(name: str, inputs: Sequence[Given], extra: ExtraColumns) -> pa.Field:
    """Return a column as a field that holds the values of all inputs that have it."""
    found = [(each, each.schema.field(name)) for each in inputs if name in each.schema.names]
    known = [(each, field) for each, field in found if not pa.types.is_null(field.type)] or found
    first, field = known[0]
    kind = field.type
    for each, other in known[1:]:
        if other.type == kind:
            continue
        wider = _wider(kind, other.type) if extra is not ExtraColumns.ERROR else None
        if wider is None:
            raise InputError(
                f"{each.name}: column {name!r} is {other.type}, but {field.type} in {first.name}",
                hint="declare its type with --schema, or convert the inputs to one type",
            )
        kind = wider
    for each, other in known[1:]:
        _check_unit(name, (first, field), (each, other))
    is_nullable = len(found) < len(inputs) or any(other.nullable for _, other in found)
    words: dict[bytes, bytes] = {}
    for _, other in reversed(known):
        words |= {key: value for key, value in (other.metadata or {}).items() if value}
    return pa.field(name, kind, nullable=is_nullable, metadata=words or None)


def _check_unit(name: str, first: tuple[Given, pa.Field], other: tuple[Given, pa.Field]) -> None:
    units = [column_of(field.with_type(pa.int8())).unit for _, field in (first, other)]
    if all(units) and not same_unit(*units):
        raise InputError(f"{other[0].name}: column {name!r} is in {units[1]}, but in {units[0]} in {first[0].name}")


def same_unit(first: str, second: str) -> bool:
    """Say whether two units are one, however they are spelled; units that nobody knows are different."""
    if first == second:
        return True
    from astropy import units

    try:
        return bool(units.Unit(first) == units.Unit(second))
    except (ValueError, TypeError):
        return False


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type that holds the values of both without a change of meaning, None if there is none."""
    try:
        kinds = [column_of(pa.field("x", each)).type for each in (first, second)]
    except SchemaError:
        return None
    for kind in (*kinds, *_WIDER):
        if all(fits(each, kind) for each in kinds):
            return to_arrow(kind)
    return None


def fitted_columns(
    inputs: Sequence[Given], table: Table, *, extra: ExtraColumns, missing: MissingColumns, source: str
) -> tuple[Column, ...]:
    """Return the columns of a declared table, with those that are kept though they are not declared.

    `source` is what declares it. Raise `InputError` naming file and column for all that does not fit.
    """
    check_columns(inputs)
    problems: list[str] = []
    kept: dict[str, None] = {}
    nullable = {column.name for column in table.columns if column.nullable}
    for each in inputs:
        found = misfits(each.schema, table)
        for misfit in found:
            if misfit.what == "extra" and extra is not ExtraColumns.ERROR:
                if extra is ExtraColumns.KEEP:
                    kept[misfit.column] = None
                continue
            if misfit.what == "missing" and missing is MissingColumns.NULL and misfit.column in nullable:
                continue
            problems.append(f"{each.name}: {misfit}")
        problems += _unit_problems(each, table)
    if problems:
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        hint = "--extra-columns keep or drop and --missing-columns null say what to do with columns that differ"
        raise InputError(f"the inputs do not fit {source}: {'; '.join(problems[:_SHOWN])}{more}", hint=hint)
    having = [replace(each, schema=_only(each.schema, kept)) for each in inputs]
    _check_case([*(c.name for c in table.columns), *sorted(kept)], [Given(name=source, schema=_names(table)), *having])
    extras = [column_of(_common(name, having, ExtraColumns.KEEP)) for name in sorted(kept)]
    return (*table.columns, *(replace(column, nullable=True) for column in extras))


def _unit_problems(given: Given, table: Table) -> list[str]:
    problems = []
    fields = {field.name: field for field in given.schema if field.metadata}
    for column in table.columns:
        if column.unit and (field := fields.get(column.name)) is not None:
            unit = column_of(field.with_type(pa.int8())).unit
            if unit and not same_unit(unit, column.unit):
                problems.append(f"{given.name}: column {column.name} is in {unit}, not {column.unit}")
    return problems


def _only(schema: pa.Schema, names: Mapping[str, Any]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name in names])


def _names(table: Table) -> pa.Schema:
    return pa.schema([pa.field(column.name, pa.null()) for column in table.columns])
