"""Table definitions from a Felis schema and its sidecar, and back to Felis.

Felis (`lsst-felis`) says types, units, UCDs, descriptions and keys; `sharding.toml` says how tables are sharded (see
`catalog.sidecar`). A schema is named by the path of its Felis file or of its sidecar, by the folder that has one of them, by an
address (`resource://lsst.sdm.schemas/dp1.yaml`), or by the name of one that ships with qengine (`dp1`). A sidecar that ships
is taken for its address, too. A table that no sidecar mentions has kind director and no position declared: whoever loads it has to
say the rest. Virtual columns and views are taken as they are written; who binds statements checks them (`sql.views`).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from qengine.catalog.model import SKY_LINE, Column, ForeignKey, Table, TableKind
from qengine.catalog.schema import check_names
from qengine.catalog.sidecar import Layout, Sidecar, View, read_sidecar
from qengine.catalog.types import (
    BIGINT,
    BLOB,
    BOOLEAN,
    DOUBLE,
    FLOAT,
    INTEGER,
    NULL,
    SMALLINT,
    TIMESTAMP,
    VARCHAR,
    SqlType,
)
from qengine.errors import SchemaError

SIDECAR = "sharding.toml"
FELIS = "schema.yaml"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A schema: its name, its tables in file order, and what the sidecar says beyond `Table`."""

    name: str
    tables: tuple[Table, ...]
    sidecar: Sidecar = field(default_factory=Sidecar)
    source: str = ""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """What the sidecar says, by table name."""
        return self.sidecar.tables

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(self.sidecar.views.values())

    def table(self, name: str) -> Table:
        """Return the table of this name without regard to case. Raise `SchemaError` if there is none."""
        for table in self.tables:
            if table.name.lower() == name.lower():
                return table
        known = ", ".join(table.name for table in self.tables)
        raise SchemaError(f"{self.source} declares no table {name}", hint=f"it declares {known}")


def declared(schema: Path | str, *, sidecar: Path | None = None) -> Declared:
    """Return the schema of this name, path or address. `sidecar` replaces the one that lies beside it.

    Raise `SchemaError` that names file and word if Felis file or sidecar cannot be used, or if nobody has confirmed the sidecar.
    """
    address, found = _locate(str(schema))
    beside = sidecar or found
    words = read_sidecar(beside) if beside is not None else Sidecar()
    if not words.is_confirmed:
        hint = "read it, correct it, and then write confirmed = true"
        raise SchemaError(f"{words.path}: confirmed: nobody has confirmed what was proposed", hint=hint)
    address = address or _address(words)
    felis = read_felis(address)
    names = {table.name for table in felis.tables}
    for name in words.tables:
        if name not in names:
            hint = f"it has {', '.join(sorted(names))}"
            raise SchemaError(f"{words.path}: tables.{name}: {address} has no such table", hint=hint)
    columns = {column.id: (table.name, column.name) for table in felis.tables for column in table.columns}
    tables = tuple(_table(felis.name, table, columns, words) for table in felis.tables)
    for table in tables:
        check_names(table.columns, f"{address}: table {table.name}")
        check_names(table.shown, f"{words.path}: tables.{table.name}.virtual")
        if table.name in words.tables:
            _check_roles(table, tables, words)
    for name in words.views:
        if name.lower() in {other.lower() for other in names}:
            raise SchemaError(f"{words.path}: views.{name}: a table has this name", hint="choose another name")
    return Declared(name=felis.name, tables=tables, sidecar=words, source=str(schema))


def read_schema(schema: Path | str, *, sidecar: Path | None = None) -> tuple[Table, ...]:
    """Return the tables of a schema, in file order; see `declared`."""
    return declared(schema, sidecar=sidecar).tables


def read_layouts(schema: Path | str, *, sidecar: Path | None = None) -> Mapping[str, Layout]:
    """Return what the sidecar of a schema declares, by table name: who is sharded how, rows per tile, margins."""
    _, found = _locate(str(schema))
    beside = sidecar or found
    return read_sidecar(beside).tables if beside is not None else {}


def address_of(schema: Path | str) -> str:
    """Return the path or address of the Felis file of a schema; the sidecar need not be there, or confirmed."""
    address, found = _locate(str(schema))
    return address or _address(read_sidecar(found) if found is not None else Sidecar())


def tables_of(address: str) -> tuple[Table, ...]:
    """Return the tables of a Felis file without any sidecar."""
    felis = read_felis(address)
    columns = {column.id: (table.name, column.name) for table in felis.tables for column in table.columns}
    return tuple(_table(felis.name, table, columns, Sidecar()) for table in felis.tables)


def shipped() -> Mapping[str, Path]:
    """Return the sidecars that ship with qengine, by name."""
    folder = next((each for each in _folders() if each.is_dir()), None)
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{SIDECAR}"))} if folder is not None else {}


def read_felis(address: str) -> Any:
    """Return the Felis schema at a path or address, as felis has it. It is read again only when its file has changed."""
    path = Path(address).expanduser()
    stamp = path.stat().st_mtime_ns if "://" not in address and path.is_file() else 0
    return _read_felis(address, stamp)


@lru_cache(maxsize=8)
def _read_felis(address: str, stamp: int) -> Any:
    # Importing felis takes most of a second, which only those who read a schema should pay; so does reading a large one, and a load
    # needs it several times.
    del stamp
    import yaml  # type: ignore[import-untyped]
    from felis.datamodel import Schema

    try:
        return Schema.from_uri(address, context={"id_generation": True})
    except ModuleNotFoundError as error:
        hint = 'pip install lsst-sdm-schemas (it belongs to the extra "rubin")'
        raise SchemaError(f"{address}: {error}", hint=hint) from error
    except (OSError, ValueError, ImportError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        # The latter ones come from felis' own validators when the YAML has another shape than they expect.
        raise SchemaError(f"{address}: not a Felis schema: {_first_lines(error)}", hint="`felis validate` says more") from error


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


# -- where schemas are ----------------------------------------------------------------------------------------------------------


def _locate(schema: str) -> tuple[str, Path | None]:
    """Return the address of the Felis file (empty if the sidecar says it) and the sidecar (None if there is none)."""
    if "://" in schema:
        return schema, next((path for path in shipped().values() if f'"{schema}"' in path.read_text(encoding="utf-8")), None)
    path = Path(schema).expanduser()
    if path.is_dir():
        beside = path / SIDECAR
        return ("", beside) if beside.is_file() else (str(path / FELIS), None)
    if path.suffix == ".toml":
        return "", path
    if not path.exists() and (found := shipped().get(schema)) is not None:
        return "", found
    if not path.exists() and path.name == schema and not path.suffix:
        hint = f"give the path of a Felis file, or one of {', '.join(shipped())}"
        raise SchemaError(f"there is no schema {schema}", hint=hint)
    beside = path.parent / SIDECAR
    return schema, beside if beside.is_file() else None


def _address(words: Sidecar) -> str:
    assert words.path is not None
    if not words.schema:
        return str(words.path.parent / FELIS)
    return words.schema if "://" in words.schema else str(words.path.parent / words.schema)


def _folders() -> tuple[Path, ...]:
    """Where shipped sidecars may be: in the source tree, or where an installation puts them."""
    return Path(__file__).resolve().parents[2] / "catalogs", Path(sys.prefix) / "share" / "qengine" / "catalogs"


# -- from Felis -----------------------------------------------------------------------------------------------------------------


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
    virtual = tuple(
        Column(
            name=v.name, type=NULL, unit=v.unit, ucd=v.ucd, utype=v.utype, description=v.description, expression=v.expression
        )
        for v in layout.virtual
    )  # fmt: skip
    return Table(
        schema=schema, name=felis.name, kind=layout.kind, columns=tuple(_column(c, c.name in indexed) for c in felis.columns),
        family=f"{schema}.{owner}" if owner else "", key=key, director=layout.director, director_key=layout.director_key,
        ra=layout.ra, dec=layout.dec, epoch=layout.epoch, pmra=motion[0], pmdec=motion[1],
        description=felis.description or "", utype=felis.votable_utype or "", table_index=felis.tap_table_index,
        release=words.release, foreign_keys=tuple(_foreign_keys(felis, columns)), line=layout.line, time_key=layout.time_key,
        virtual=virtual, times=layout.times, statistics=layout.statistics, indexes=layout.index, quality=layout.quality,
        examples=layout.examples, links=layout.links,
        rows_per_tile=layout.rows_per_tile or 0, bytes_per_tile=layout.bytes_per_tile or 0,
    )  # fmt: skip


_NOT_OF_SCALARS = ("point", "circle", "polygon", "interval", TIMESTAMP.xtype)


def _column(felis: Any, is_indexed: bool) -> Column:
    kind = _FELIS_TYPES[felis.datatype.value]
    if kind == DOUBLE and felis.votable_xtype in ("point", "circle", "polygon"):
        kind = SqlType("DOUBLE[]", felis.votable_xtype)
    elif kind.is_numeric and felis.votable_arraysize not in (None, 1, "1"):
        kind = SqlType(f"{kind.name}[]")
    elif not kind.xtype and felis.votable_xtype and felis.votable_xtype not in _NOT_OF_SCALARS:
        kind = SqlType(kind.name, felis.votable_xtype)
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
    layout = words.tables[table.name]
    roles = [(role, getattr(table, role)) for role in ("key", "ra", "dec", "director_key", "time_key")]
    roles += [(role, getattr(layout, role).rpartition(".")[2]) for role in ("left", "right")]
    roles += [(role, name) for role in ("statistics", "index") for name in getattr(layout, role)]
    roles += [("time", each.column) for each in table.times] + [("quality", each.column) for each in table.quality]
    for role, name in roles:
        column = table.column(name)
        if name and column is None:
            raise SchemaError(f"{where}.{role}: there is no column {name}")
        if column is not None and role in ("ra", "dec") and not column.type.is_float:
            raise SchemaError(f"{where}.{role}: {name} is {column.type}, not a floating-point number")
    if table.kind is TableKind.CHILD:
        director = next((other for other in tables if other.name == table.director), None)
        if director is None or director.kind is not TableKind.DIRECTOR or director.name not in words.tables:
            raise SchemaError(f"{where}.director: {table.director} is not declared as a director")
        if director.line != table.line:
            raise SchemaError(f"{where}.line: {table.director} lies on the line {director.line or SKY_LINE}, not {table.line}")


# -- to Felis -------------------------------------------------------------------------------------------------------------------


def _felis_column(column: Column) -> dict[str, Any]:
    from felis.datamodel import Column as FelisColumn

    name, is_list = column.type.name.removesuffix("[]"), column.type.name.endswith("[]")
    if name not in _TO_FELIS:
        raise SchemaError(f"column {column.name}: Felis has no type for {column.type}", hint="convert the column or leave it out")
    words: dict[str, Any] = {"name": column.name, "datatype": _TO_FELIS[name], "nullable": column.nullable}
    if is_list:
        words["votable:arraysize"] = {"point": "2", "circle": "3"}.get(column.type.xtype, "*")
    if column.type.xtype and column.type != TIMESTAMP:
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


def _first_lines(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:4])


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
