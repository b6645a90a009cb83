"""Table definitions: from a Felis schema with its sidecar, or from the Arrow schema of the files themselves.

Felis (`lsst-felis`) says types, units, UCDs, descriptions and keys; `sharding.toml` beside it says how tables are sharded (see
`catalog.sidecar`). A table that no sidecar mentions has kind director and no position declared: whoever loads it has to say the
rest. Without a schema, `infer_table` takes names and types from Arrow, and unit, UCD and description from the metadata of its
fields; `to_felis` writes that down as Felis, for people to complete.

Columns that differ in case only are refused, because unquoted identifiers could not tell them apart.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from qengine.catalog.model import HIDDEN_COLUMNS, Column, ForeignKey, Table, TableKind
from qengine.catalog.sidecar import Layout, Sidecar, read_sidecar
from qengine.catalog.types import (
    BIGINT,
    BLOB,
    BOOLEAN,
    DOUBLE,
    FLOAT,
    INTEGER,
    SMALLINT,
    TIMESTAMP,
    VARCHAR,
    SqlType,
    from_arrow,
    to_arrow,
)
from qengine.errors import SchemaError

SIDECAR = "sharding.toml"

_FELIS_TYPES = {
    "boolean": BOOLEAN,
    "byte": SqlType("TINYINT"),
    "short": SMALLINT,
    "int": INTEGER,
    "long": BIGINT,
    "float": FLOAT,
    "double": DOUBLE,
    "char": VARCHAR,
    "string": VARCHAR,
    "unicode": VARCHAR,
    "text": VARCHAR,
    "binary": BLOB,
    "timestamp": TIMESTAMP,
}
_TO_FELIS = {
    "BOOLEAN": "boolean", "TINYINT": "byte", "UTINYINT": "short", "SMALLINT": "short", "USMALLINT": "int", "INTEGER": "int",
    "UINTEGER": "long", "BIGINT": "long", "FLOAT": "float", "DOUBLE": "double", "VARCHAR": "string", "UUID": "string",
    "BLOB": "binary", "DATE": "timestamp", "TIMESTAMP": "timestamp",
}  # fmt: skip
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


def read_schema(path: Path | str, *, sidecar: Path | None = None) -> tuple[Table, ...]:
    """Return the tables of a Felis file or `resource://` URI, in file order.

    The sidecar is `sharding.toml` in the directory of the file if there is one, or the given file. Raise `SchemaError` that names
    file and word if either cannot be used.
    """
    felis = _read_felis(path)
    words = _sidecar(path, sidecar)
    names = {table.name for table in felis.tables}
    for name in words.tables:
        if name not in names:
            raise SchemaError(f"{words.path}: tables.{name}: {path} has no such table", hint=f"it has {', '.join(sorted(names))}")
    columns = {column.id: (table.name, column.name) for table in felis.tables for column in table.columns}
    tables = tuple(_table(felis.name, table, columns, words) for table in felis.tables)
    for table in tables:
        check_names(table.columns, f"{path}: table {table.name}")
        if table.name in words.tables:
            _check_roles(table, tables, words)
    return tables


def read_layouts(path: Path | str, *, sidecar: Path | None = None) -> Mapping[str, Layout]:
    """Return what the sidecar of a Felis file declares, by table name: who is sharded how, rows per tile, margins."""
    return _sidecar(path, sidecar).tables


def infer_table(
    arrow: pa.Schema,
    *,
    schema: str,
    name: str,
    kind: TableKind,
    hidden: Iterable[str] = HIDDEN_COLUMNS,
) -> Table:
    """Return a table with the columns of `arrow`, and unit, UCD, utype and description where its fields have them.

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
        kind = from_arrow(field.type)
    except SchemaError as error:
        raise SchemaError(f"column {field.name}: {error.message}", hint=error.hint) from error
    return Column(
        name=field.name, type=kind, nullable=field.nullable, hidden=hidden, unit=_first(words, _UNITS), ucd=_first(words, _UCDS),
        utype=_first(words, _UTYPES), description=_first(words, _DESCRIPTIONS),
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


def differences(arrow: pa.Schema, table: Table) -> tuple[str, ...]:
    """Return what in a file's schema does not fit the table, one sentence per column; empty if the file can be loaded.

    Types may be narrower than declared as long as every value keeps its meaning (int16 for INTEGER, float32 for DOUBLE). Hidden
    columns need not be there. The order of columns does not matter.
    """
    found = []
    declared = {column.name: column for column in table.columns}
    for column in table.columns:
        position = arrow.get_field_index(column.name)
        if position < 0:
            if not column.hidden:
                close = next((name for name in arrow.names if name.lower() == column.name.lower()), "")
                found.append(f"column {column.name} is missing" + (f" (there is {close})" if close else ""))
            continue
        kind = arrow.field(position).type
        try:
            is_fitting = fits(from_arrow(kind), column.type)
        except SchemaError:
            is_fitting = False
        if not is_fitting:
            found.append(f"column {column.name} is {kind}, not {column.type}")
    found += [f"column {name} is not declared" for name in arrow.names if name not in declared]
    return tuple(found)


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
    """Return the columns as Arrow fields that carry unit, UCD, utype and description in their metadata."""
    fields = []
    for column in columns:
        words = {"unit": column.unit, "ucd": column.ucd, "utype": column.utype, "description": column.description}
        metadata = {key: value for key, value in words.items() if value} or None
        fields.append(pa.field(column.name, to_arrow(column.type), nullable=column.nullable, metadata=metadata))
    return pa.schema(fields)


def to_felis(table: Table) -> str:
    """Return the table as the YAML of a Felis schema with this one table; hidden columns are left out.

    Felis refuses units that are not VOUnits or FITS units; such a unit goes to the description. Raise `SchemaError` for types that
    Felis does not have.
    """
    from felis.datamodel import Schema

    columns = [_felis_column(column) for column in table.columns if not column.hidden]
    words: dict[str, Any] = {"name": table.name, "columns": columns, "description": table.description or None}
    if table.key:
        words["primaryKey"] = f"#{table.name}.{table.key}"
    content = {"name": table.schema, "tables": [words]}
    try:
        schema: Any = Schema.model_validate(content, context={"id_generation": True})
    except ValueError as error:
        raise SchemaError(f"{table.full_name} cannot be written as Felis: {_first_lines(error)}") from error
    text = io.StringIO()
    schema.dump_yaml(text, strip_ids=True)
    return text.getvalue()


# -- Felis --------------------------------------------------------------------------------------------------------------------


def _read_felis(path: Path | str) -> Any:
    # Importing felis takes most of a second, which only those who read a schema should pay.
    import yaml  # type: ignore[import-untyped]
    from felis.datamodel import Schema

    try:
        return Schema.from_uri(str(path), context={"id_generation": True})
    except (OSError, ValueError, ImportError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        # The latter ones come from felis' own validators when the YAML has another shape than they expect.
        raise SchemaError(f"{path}: not a Felis schema: {_first_lines(error)}", hint="`felis validate` says more") from error


def _sidecar(path: Path | str, given: Path | None) -> Sidecar:
    if given is not None:
        return read_sidecar(given)
    beside = None if "://" in str(path) else Path(path).parent / SIDECAR
    return read_sidecar(beside) if beside is not None and beside.is_file() else Sidecar()


def _table(schema: str, felis: Any, columns: Mapping[str, tuple[str, str]], words: Sidecar) -> Table:
    primary = [columns[reference][1] for reference in _list(felis.primary_key) if reference in columns]
    layout = words.tables.get(felis.name, Layout(kind=TableKind.DIRECTOR))
    key = layout.key if layout.key is not None else primary[0] if len(primary) == 1 else ""
    owner = {TableKind.DIRECTOR: felis.name, TableKind.CHILD: layout.director}.get(layout.kind, "")
    names = {c.name for c in felis.columns}
    motion = (layout.pmra, layout.pmdec) if layout.pmra else words.motion if names.issuperset(words.motion) else ("", "")
    if unknown := [name for name in motion if name and name not in names]:
        raise SchemaError(f"{words.path}: tables.{felis.name}: there is no column {unknown[0]}", hint="pmra and pmdec name columns")
    indexed = {columns[i.columns[0]][1] for i in felis.indexes if i.columns and i.columns[0] in columns} | set(primary[:1])
    return Table(
        schema=schema, name=felis.name, kind=layout.kind, columns=tuple(_column(c, c.name in indexed) for c in felis.columns),
        family=f"{schema}.{owner}" if owner else "", key=key, director=layout.director, director_key=layout.director_key,
        ra=layout.ra, dec=layout.dec, frame=layout.frame, epoch=layout.epoch, pmra=motion[0], pmdec=motion[1],
        description=felis.description or "", utype=felis.votable_utype or "", table_index=felis.tap_table_index,
        release=words.release,
        foreign_keys=tuple(_foreign_keys(felis, columns)),
    )  # fmt: skip


def _column(felis: Any, is_indexed: bool) -> Column:
    kind = _FELIS_TYPES[felis.datatype.value]
    if kind == DOUBLE and felis.votable_xtype in ("point", "circle", "polygon"):
        kind = SqlType("DOUBLE[]", felis.votable_xtype)
    elif kind.is_numeric and felis.votable_arraysize not in (None, 1, "1"):
        kind = SqlType(f"{kind.name}[]")
    return Column(
        name=felis.name, type=kind, unit=felis.ivoa_unit or felis.fits_tunit or "", ucd=felis.ivoa_ucd or "",
        utype=felis.votable_utype or "", description=felis.description or "", nullable=felis.nullable,
        principal=felis.tap_principal == 1, std=felis.tap_std == 1, indexed=is_indexed, column_index=felis.tap_column_index,
    )  # fmt: skip


def _foreign_keys(felis: Any, columns: Mapping[str, tuple[str, str]]) -> Iterable[ForeignKey]:
    for constraint in felis.constraints:
        if constraint.type == "ForeignKey":
            targets = [columns[reference] for reference in constraint.referenced_columns]
            yield ForeignKey(
                columns=tuple(columns[reference][1] for reference in constraint.columns),
                target=targets[0][0],
                target_columns=tuple(name for _, name in targets),
                description=constraint.description or "",
            )


def _check_roles(table: Table, tables: Sequence[Table], words: Sidecar) -> None:
    """Check that what the sidecar names is there and can have its role."""
    where = f"{words.path}: tables.{table.name}"
    for role in ("key", "ra", "dec", "director_key"):
        name = getattr(table, role)
        column = table.column(name)
        if name and column is None:
            raise SchemaError(f"{where}.{role}: there is no column {name}")
        if column is not None and role in ("ra", "dec") and not column.type.is_float:
            raise SchemaError(f"{where}.{role}: {name} is {column.type}, not a floating-point number")
    if table.kind is TableKind.CHILD:
        director = next((other for other in tables if other.name == table.director), None)
        if director is None or director.kind is not TableKind.DIRECTOR or director.name not in words.tables:
            raise SchemaError(f"{where}.director: {table.director} is not declared as a director")


def _felis_column(column: Column) -> dict[str, Any]:
    from felis.datamodel import Column as FelisColumn

    name, is_list = column.type.name.removesuffix("[]"), column.type.name.endswith("[]")
    if name not in _TO_FELIS:
        raise SchemaError(f"column {column.name}: Felis has no type for {column.type}", hint="convert the column or leave it out")
    words: dict[str, Any] = {"name": column.name, "datatype": _TO_FELIS[name], "nullable": column.nullable}
    if is_list:
        words["votable:arraysize"] = {"point": "2", "circle": "3"}.get(column.type.xtype, "*")
    if column.type.is_geometry:
        words["votable:xtype"] = column.type.xtype
    if _TO_FELIS[name] in ("string", "binary"):
        words["length"] = 65_535  # Felis wants a length; Arrow has none
    if column.utype:
        words["votable:utype"] = column.utype
    if column.principal:
        words["tap:principal"] = 1
    description = column.description
    for word, value in (("ivoa:unit", column.unit), ("ivoa:ucd", column.ucd)):
        if value and not _is_valid(FelisColumn, {**words, word: value}):
            description = f"{description} ({word.partition(':')[2]}: {value})".strip()
        elif value:
            words[word] = value
    return {**words, "description": description} if description else words


def _is_valid(model: Any, words: Mapping[str, Any]) -> bool:
    try:
        model.model_validate({**words, "@id": "#x", "description": "x"})
    except ValueError:
        return False
    return True


def _first(words: Mapping[str, str], names: Iterable[str]) -> str:
    return next((words[name] for name in names if words.get(name)), "")


def _first_lines(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:4])


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
