"""What the new table is: its columns and types, its key, its position, its director.

Three voices are heard, the first that speaks wins: the request, the Felis schema (with its sidecar), and the inputs themselves
(types, and unit, UCD and description in Parquet field metadata). Whatever stays ambiguous is an error with a hint, not a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from qengine.catalog.felis_schema import read_layouts, read_schema
from qengine.catalog.model import HEALPIX, HIDDEN_COLUMNS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.schema import differences, infer_table, to_arrow_schema
from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, to_arrow
from qengine.errors import ConfigError, ConflictError, InputError, SchemaError
from qengine.loader.children import DIRECTOR_DEC, DIRECTOR_RA, find_director
from qengine.loader.keys import key_type
from qengine.loader.match import Side, laid_out, read_side
from qengine.loader.request import MARGIN_ARCSEC, ROWS_PER_TILE, LoadRequest

RESERVED = (*HIDDEN_COLUMNS, DIRECTOR_RA, DIRECTOR_DEC)
"""Names of the loader's own columns. Inputs that have them (files of another store) get new ones."""

_PLACED_BY_IT = (TableKind.CHILD, TableKind.MATCH)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RA_UCD = "pos.eq.ra;meta.main"
_DEC_UCD = "pos.eq.dec;meta.main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A table to be loaded. `columns` are what inputs give, in the types and with the metadata that parts have; `director` is
    set for a child and a match table only. `other` is the second layout of a match table."""

    table: Table
    columns: pa.Schema
    director: TableSnapshot | None
    rows_per_tile: int
    margin_arcsec: float
    other: Definition | None = None


def declared_types(request: LoadRequest) -> dict[str, pa.DataType]:
    """Return the types of columns that a schema file declares: inputs without types of their own (CSV) are read with them."""
    declared = _declared(request)
    return {column.name: to_arrow(column.type) for column in declared.columns} if declared else {}


def declared_kind(request: LoadRequest) -> TableKind:
    """Return the kind of table that a request without a kind means: what a schema file says, else a director."""
    declared = _declared(request)
    return declared.kind if declared else TableKind.DIRECTOR


def define(request: LoadRequest, source: pa.Schema, catalog: Catalog) -> Definition:
    """Return the definition of the table. `source` is the schema of the inputs, `catalog` what is published.

    Raise `ConfigError`, `ConflictError` or `SchemaError` if it cannot be loaded so.
    """
    _check_request(request)
    _check_new(request, catalog)
    given = [name for name in source.names if name not in RESERVED]
    declared = _declared(request)
    inputs = pa.schema([source.field(name) for name in given])
    if declared is None:
        kind = request.kind or TableKind.DIRECTOR
        base = infer_table(inputs, schema=request.catalog, name=request.table, kind=kind)
    else:
        base = replace(declared, schema=request.catalog, kind=request.kind or declared.kind)
        if found := differences(inputs, declared):
            raise InputError(f"the inputs do not fit {request.schema}: {'; '.join(found[:5])}")
    # A NaN becomes NULL, so that no float column can promise to have none.
    columns = tuple(replace(c, nullable=c.nullable or c.type.is_float) for c in base.columns if c.name not in RESERVED)
    table, director = _with_roles(replace(base, name=request.table, columns=columns), request, catalog)
    stored = to_arrow_schema(columns)
    if table.key:
        key_type(stored.field(table.key).type, table.key)
    rows, margin = _layout(request)
    if table.kind is not TableKind.DIRECTOR:
        margin = 0.0
    table = replace(table, columns=(*_hidden(table.kind), *columns))
    made = Definition(table=table, columns=stored, director=director, rows_per_tile=rows, margin_arcsec=margin)
    if table.kind is not TableKind.MATCH:
        return made
    left, right = _sides(table, request, catalog)
    second = replace(made, table=laid_out(table, right, left, is_second=True), director=right.director)
    return replace(made, table=laid_out(table, left, right, is_second=False), director=left.director, other=second)


def _sides(table: Table, request: LoadRequest, catalog: Catalog) -> tuple[Side, Side]:
    sides = []
    for text, option in ((request.left, "--left"), (request.right, "--right")):
        side = read_side(catalog, table.schema, text, option)
        sides.append(replace(side, column=_named(table, side.column, option)))
    if sides[0].column == sides[1].column:
        raise ConfigError(f"{table.full_name}: both sides of a pair are in column {sides[0].column}", hint="name two columns")
    return sides[0], sides[1]


def _layout(request: LoadRequest) -> tuple[int, float]:
    """Return rows per tile and width of the margin: the request's, else the sidecar's, else the defaults."""
    layout = read_layouts(request.schema).get(request.table) if request.schema is not None else None
    rows, margin = request.rows_per_tile, request.margin_arcsec
    if rows is None:
        rows = layout.rows_per_tile if layout and layout.rows_per_tile is not None else ROWS_PER_TILE
    if margin is None:
        margin = layout.margin_arcsec if layout and layout.margin_arcsec is not None else MARGIN_ARCSEC
    if rows < 1 or margin < 0:
        raise ConfigError("rows per tile must be positive, and the margin not negative")
    return rows, margin


def _with_roles(table: Table, request: LoadRequest, catalog: Catalog) -> tuple[Table, TableSnapshot | None]:
    """Return the table with key, position and director, and the director's snapshot."""
    key = _named(table, table.key if request.key is None else request.key, "--key")
    director_key = _named(table, request.director_key or table.director_key, "--director-key")
    ra, dec = _position(table, request)
    if table.kind is TableKind.DIRECTOR:
        if not ra:
            raise SchemaError(
                f"{table.full_name}: no column has the UCD {_RA_UCD} or the name 'ra' (and the same for dec)",
                hint="name the position with --ra and --dec, or load a table without one as --kind child or replicated",
            )
        family = f"{table.schema}.{table.name}"
        return replace(table, key=key, ra=ra, dec=dec, family=family, director="", director_key="", is_key_proven=bool(key)), None
    if table.kind is TableKind.REPLICATED:
        return replace(table, key=key, ra=ra, dec=dec, family="", director="", director_key="", line_column=""), None
    if table.kind is TableKind.MATCH:
        return replace(table, key=key, ra=ra, dec=dec, family="", director="", director_key=""), None
    director = find_director(catalog, table.schema, request.director or table.director)
    if not director_key:
        raise ConfigError(
            f"{table.full_name}: which column holds the key of {director.table.name}?", hint="name it with --director-key COLUMN"
        )
    family = director.table.family
    return replace(table, key=key, ra=ra, dec=dec, family=family, director=director.table.name, director_key=director_key), director


def _position(table: Table, request: LoadRequest) -> tuple[str, str]:
    if bool(request.ra) != bool(request.dec):
        raise ConfigError("a position needs both --ra and --dec")
    if request.ra:
        return _named(table, request.ra, "--ra"), _named(table, request.dec, "--dec")
    if table.ra and table.dec:
        return table.ra, table.dec
    found = []
    for ucd, name in ((_RA_UCD, "ra"), (_DEC_UCD, "dec")):
        by_ucd = [column.name for column in table.columns if column.ucd == ucd]
        if len(by_ucd) > 1:
            raise SchemaError(
                f"{table.full_name}: columns {', '.join(by_ucd)} all have the UCD {ucd}", hint="name one with --ra and --dec"
            )
        found.append(by_ucd[0] if by_ucd else name if table.column(name) else "")
    return (found[0], found[1]) if all(found) else ("", "")


def _named(table: Table, name: str, option: str) -> str:
    if name and table.column(name) is None:
        alike = [column.name for column in table.columns if column.name.lower() == name.lower()]
        known = alike or [column.name for column in table.columns][:12]
        raise ConfigError(f"{option} {name}: {table.full_name} has no such column", hint=f"columns: {', '.join(known)}")
    return name


def _check_request(request: LoadRequest) -> None:
    for what, name in (("catalogue", request.catalog), ("table", request.table)):
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a {what}", hint="letters, digits and _, beginning with a letter")


def _check_new(request: LoadRequest, catalog: Catalog) -> None:
    found = catalog.find(request.catalog, request.table)
    if found is None:
        return
    kin = [t.table.name for t in catalog if t.table.family == found.table.family and t.table.kind in _PLACED_BY_IT]
    if found.table.kind is TableKind.DIRECTOR and kin:
        raise ConflictError(
            f"{found.table.full_name} is loaded already, and {', '.join(kin)} lie where its rows lie",
            hint="a new version of a director needs its children with it: load all of them into a new catalogue",
        )
    raise ConflictError(f"{found.table.full_name} is loaded already", hint="load into a new table or catalogue")


def _declared(request: LoadRequest) -> Table | None:
    if request.schema is None:
        return None
    tables = read_schema(request.schema)
    for table in tables:
        if table.name.lower() == request.table.lower():
            return table
    known = ", ".join(table.name for table in tables)
    raise SchemaError(f"{request.schema} declares no table {request.table}", hint=f"it declares {known}")


def _hidden(kind: TableKind) -> tuple[Column, ...]:
    line = (Column(name=HEALPIX, type=BIGINT, nullable=False, hidden=True, description="cell of HEALPix order 29, NESTED"),)
    origin = (
        Column(name="_load", type=INTEGER, nullable=False, hidden=True, description="number of the load that brought the row"),
        Column(name="_input", type=INTEGER, nullable=False, hidden=True, description="number of the load's input, from 0"),
    )
    position = (
        Column(name=DIRECTOR_RA, type=DOUBLE, unit="deg", hidden=True, description="right ascension of the director"),
        Column(name=DIRECTOR_DEC, type=DOUBLE, unit="deg", hidden=True, description="declination of the director"),
    )
    if kind is TableKind.REPLICATED:
        return origin
    return (*line, *origin) if kind is TableKind.DIRECTOR else (*line, *origin, *position)
