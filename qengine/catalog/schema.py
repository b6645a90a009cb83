"""Types, names and roles of columns: what Arrow fields say, and whether files fit a table.

Without a schema, `infer_table` takes names and types from Arrow, and unit, UCD and description from the metadata of its fields.
`differences` says what in a file does not fit a table, `fits` whether values of a type are values of another one.

Columns that differ in case only are refused, because unquoted identifiers could not tell them apart.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from qengine.catalog.model import HIDDEN_COLUMNS, Column, Table, TableKind
from qengine.catalog.systems import checked
from qengine.catalog.types import TIMESTAMP, SqlType, from_arrow, from_field, to_arrow
from qengine.errors import SchemaError

_UNITS = ("unit", "ivoa:unit", "fits:tunit", "units")
_UCDS = ("ucd", "ivoa:ucd")
_UTYPES = ("utype", "votable:utype")
_DESCRIPTIONS = ("description", "doc", "comment")
_RANK = {
    "TINYINT": 1, "UTINYINT": 1, "SMALLINT": 2, "USMALLINT": 2, "INTEGER": 3, "UINTEGER": 3, "BIGINT": 4, "UBIGINT": 4,
    "HUGEINT": 5,
}  # fmt: skip
_EXACT_IN = {"FLOAT": 2, "DOUBLE": 3}
"""Largest rank of integers that a floating type holds exactly."""


def infer_table(
    arrow: pa.Schema,
    *,
    schema: str,
    name: str,
    kind: TableKind,
    hidden: Iterable[str] = HIDDEN_COLUMNS,
) -> Table:
    """Return a table with the columns of `arrow`, and unit, UCD, utype, xtype and description where its fields have them.

    Columns named in `hidden` become hidden. Raise `SchemaError` for types that queries cannot use, and for names that
    differ in case only.
    """
    left_out = frozenset(hidden)
    columns = tuple(column_of(field, hidden=field.name in left_out) for field in arrow)
    check_names(columns, f"table {name}")
    return Table(schema=schema, name=name, kind=kind, columns=columns)


def column_of(field: pa.Field, *, hidden: bool = False) -> Column:
    """Return an Arrow field as a column. Raise `SchemaError` that names it if queries cannot use its type."""
    words = {key.decode(errors="replace").lower(): value.decode(errors="replace") for key, value in (field.metadata or {}).items()}
    try:
        kind = from_field(field)
    except SchemaError as error:
        raise SchemaError(f"column {field.name}: {error.message}", hint=error.hint) from error
    return Column(
        name=field.name, type=kind, nullable=field.nullable, hidden=hidden, unit=_first(words, _UNITS), ucd=_first(words, _UCDS),
        utype=_first(words, _UTYPES), description=_first(words, _DESCRIPTIONS), system=checked(words.get("system", "")),
    )  # fmt: skip


def check_names(columns: Sequence[Column], where: str) -> None:
    """Raise `SchemaError` if two columns have the same name without regard to case, or one has none."""
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.get(column.name.lower())
        seen[column.name.lower()] = column.name
        if other is not None:
            what = "twice" if other == column.name else f"beside {other}, which differs in case only"
            raise SchemaError(f"{where} has a column {column.name} {what}", hint="rename one of them")
        if not column.name:
            raise SchemaError(f"{where} has a column without a name")


@dataclass(frozen=True, slots=True)
class Misfit:
    """One column in which a file differs from a table: "missing", "extra" or "type". `near` is the name of the column that it may
    have been renamed to or from; `type` what the file has."""

    column: str
    what: str
    declared: str = ""
    type: str = ""
    near: str = ""

    def __str__(self) -> str:
        if self.what == "missing":
            return f"column {self.column} is missing" + (f" (there is {self.near})" if self.near else "")
        if self.what == "extra":
            return f"column {self.column} is not declared" + (f" (is it {self.near}?)" if self.near else "")
        return f"column {self.column} is {self.type}, not {self.declared}"


def misfits(arrow: pa.Schema, table: Table) -> tuple[Misfit, ...]:
    """Return every column in which a file's schema does not fit the table; empty if the file can be loaded.

    Types may be narrower than declared as long as every value keeps its meaning (int16 for INTEGER, float32 for DOUBLE). Hidden
    columns need not be there. The order of columns does not matter.
    """
    declared = {column.name for column in table.columns}
    given = frozenset(arrow.names)
    missing = [column.name for column in table.columns if column.name not in given and not column.hidden]
    extra = [name for name in arrow.names if name not in declared]
    found = [Misfit(name, "missing", near=_near(name, extra)) for name in missing]
    for column in table.columns:
        if column.name not in given:
            continue
        kind = arrow.field(column.name).type
        try:
            is_fitting = fits(from_arrow(kind), column.type)
        except SchemaError:
            is_fitting = False
        if not is_fitting:
            found.append(Misfit(column.name, "type", str(column.type), str(kind)))
    return (*found, *(Misfit(name, "extra", near=_near(name, missing)) for name in extra))


def differences(arrow: pa.Schema, table: Table) -> tuple[str, ...]:
    """Return what in a file's schema does not fit the table, one sentence per column; see `misfits`."""
    return tuple(str(misfit) for misfit in misfits(arrow, table))


def _near(name: str, others: Sequence[str]) -> str:
    """Return which of the names this one may have become, empty if none is like it."""
    folded = {other.lower(): other for other in reversed(others)}
    found = difflib.get_close_matches(name.lower(), folded, 1, 0.75)
    return folded[found[0]] if found else ""


def fits(given: SqlType, declared: SqlType) -> bool:
    """Return whether every value of type `given` is a value of type `declared` with the same meaning."""
    if given.name == declared.name or given.name == "NULL":
        return True
    if given.name.endswith("[]") and declared.name.endswith("[]"):
        return fits(SqlType(given.name[:-2]), SqlType(declared.name[:-2]))
    if given.is_integer and declared.is_integer:
        if given.name.startswith("U") == declared.name.startswith("U"):
            return _RANK[given.name] <= _RANK[declared.name]
        return given.name.startswith("U") and _RANK[given.name] < _RANK[declared.name]
    if given.is_integer and declared.is_float:
        return _RANK[given.name] <= _EXACT_IN[declared.name]
    return (given.name, declared.name) in (("FLOAT", "DOUBLE"), ("DATE", "TIMESTAMP"))


def to_arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the columns as Arrow fields that carry unit, UCD, utype, description, system and xtype in their metadata."""
    fields = []
    for column in columns:
        words = {name: getattr(column, name) for name in ("unit", "ucd", "utype", "description", "system")}
        if column.type != TIMESTAMP:
            words["xtype"] = column.type.xtype
        metadata = {key: value for key, value in words.items() if value} or None
        fields.append(pa.field(column.name, to_arrow(column.type), nullable=column.nullable, metadata=metadata))
    return pa.schema(fields)


def _first(words: Mapping[str, str], names: Iterable[str]) -> str:
    return next((words[name] for name in names if words.get(name)), "")
