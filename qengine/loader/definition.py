"""What a table is to become: its columns and types, its key, its position, its director.

Four voices are heard, the first that speaks wins: the request, the schema (Felis with its sidecar), the table itself if it is
there, and the inputs (types, and unit, UCD and description in the metadata of their fields). Whatever stays ambiguous is an error
with a hint, not a guess.

`define_for` compares all inputs with the columns (`loader.fit`) and their positions with ICRS degrees (`loader.convert`). If the
table is there, `Definition.evolution` says what changes of its columns (`catalog.evolution`); nothing changes unless the request
asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from qengine.catalog.evolution import Evolution, evolve
from qengine.catalog.felis_schema import Declared
from qengine.catalog.felis_schema import declared as read_declared
from qengine.catalog.model import (
    HEALPIX,
    HIDDEN_COLUMNS,
    NO_PARTS,
    SKY_LINE,
    Catalog,
    Column,
    Table,
    TableKind,
    TableSnapshot,
)
from qengine.catalog.schema import infer_table, to_arrow_schema
from qengine.catalog.sidecar import Layout
from qengine.catalog.systems import with_systems
from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, to_arrow
from qengine.errors import ConfigError, ConflictError, SchemaError
from qengine.loader.children import DIRECTOR_DEC, DIRECTOR_RA, find_director
from qengine.loader.convert import Conversion
from qengine.loader.fit import Fitted, Given, check_columns, fitted_columns, merged
from qengine.loader.keys import key_type
from qengine.loader.lines import HASH_LINE, TIME_LINE, has_neighbours
from qengine.loader.match import Side, laid_out, read_side
from qengine.loader.positions import RA_UCD, conversion_of, converted, named_column, own_position
from qengine.loader.request import MARGIN_ARCSEC, ROWS_PER_TILE, LoadRequest
from qengine.loader.sources.source import Source
from qengine.sql.computed import view_tables, with_types

RESERVED = (*HIDDEN_COLUMNS, DIRECTOR_RA, DIRECTOR_DEC)
"""Names of the loader's own columns. Inputs that have them (files of another store) get new ones."""

_PLACED_BY_IT = (TableKind.CHILD, TableKind.MATCH)
_LINES_OF = {HASH_LINE: "hashes of keys", TIME_LINE: "times"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FROM_TABLE = ("kind", "key", "ra", "dec", "director", "director_key", "time_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A table to be loaded. `columns` are what inputs give, in the types and with the metadata that parts have; `director` is
    set for a child and a match table only. `other` is the second layout of a match table. `previous` is the table as it is now,
    None if there is none, and `evolution` what changes of it. `views` are the views of the schema that can be published with it,
    `conversion` says how positions become ICRS degrees, None if they are.
    """

    table: Table
    columns: pa.Schema
    director: TableSnapshot | None
    rows_per_tile: int
    margin_arcsec: float
    other: Definition | None = None
    previous: TableSnapshot | None = None
    evolution: Evolution | None = None
    views: tuple[Table, ...] = ()
    conversion: Conversion | None = None

    def fit(self, source: Source) -> Fitted:
        """Return an input as a source of exactly `columns`."""
        given = source.schema if self.conversion is None else self.conversion.schema(source.schema)
        known = {each.name: each for each in given}
        fields = [known.get(each.name, each) for each in self.columns]
        return Fitted(source, pa.schema(fields), self.conversion)


def without_parts(table: Table) -> TableSnapshot:
    """Return a table that has no rows of its own, such as a view, as it is published."""
    return TableSnapshot(table=table, number=0, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declaration:
    """What is declared before the inputs speak: the schema, its table, and what the sidecar says of that."""

    schema: Declared
    table: Table
    layout: Layout | None
    where: str = field(default="")


def declared_types(request: LoadRequest) -> dict[str, pa.DataType]:
    """Return the types of columns that a schema file declares: inputs without types of their own (CSV) are read with them."""
    found = _declaration(request)
    return {column.name: to_arrow(column.type) for column in found.table.columns} if found else {}


def declared_kind(request: LoadRequest) -> TableKind:
    """Return the kind of table that a request without a kind means: what a schema file says, else a director."""
    found = _declaration(request)
    return found.table.kind if found else TableKind.DIRECTOR


def define(request: LoadRequest, source: pa.Schema, catalog: Catalog) -> Definition:
    """Return the definition of a new table. `source` is the schema of the inputs, `catalog` what is published.

    Raise `ConfigError`, `ConflictError` or `SchemaError` if it cannot be loaded so.
    """
    check_new(request, catalog)
    return _define(request, [Given(name="the inputs", schema=source)], catalog)


def define_for(request: LoadRequest, sources: Sequence[Source], catalog: Catalog) -> Definition:
    """Return the definition of a table that is new or there already, after a look at the columns of every input.

    Raise `InputError` for inputs that do not fit; `ConfigError`, `ConflictError` or `SchemaError` if the table cannot be loaded so.
    """
    given = [Given(name=source.name, schema=source.schema) for source in sources]
    if not given and (previous := catalog.find(request.catalog, request.table)) is not None:
        # Its rows only go or move.
        own = tuple(column for column in previous.table.columns if column.name not in RESERVED)
        given = [Given(name=previous.table.full_name, schema=to_arrow_schema(own))]
    return _define(request, given, catalog)


def _define(request: LoadRequest, inputs: Sequence[Given], catalog: Catalog) -> Definition:
    _check_request(request)
    declaration = _declaration(request)
    previous = catalog.find(request.catalog, request.table)
    if previous is not None:
        request = _as_it_is(request, previous)
    check_columns(inputs)
    given = [Given(name=each.name, schema=_without_ours(each.schema)) for each in inputs]
    known = declaration.table if declaration else previous.table if previous else None
    conversion = conversion_of(request, given, known, declaration.layout if declaration else None)
    if conversion is not None:
        given = [replace(each, schema=conversion.schema(each.schema)) for each in given]
        request = replace(request, ra=conversion.ra, dec=conversion.dec)
        known = converted(known, conversion, given[0].schema) if known is not None else None
    base, kept = _base(request, given, known, declaration)
    # A NaN becomes NULL, so that no float column can promise to have none.
    columns = tuple(replace(c, nullable=c.nullable or c.type.is_float) for c in base.columns if c.name not in RESERVED)
    rows, margin = _layout(request, declaration.layout if declaration else None, previous)
    base = replace(base, name=request.table, columns=columns, rows_per_tile=rows)
    table, director = _with_roles(base, request, catalog)
    stored = to_arrow_schema(columns)
    if table.key:
        key_type(stored.field(table.key).type, table.key)
    table = with_systems(replace(table, columns=(*_hidden(table, director), *columns)))
    table = with_types(table, declaration.where if declaration else f"{table.full_name}")
    made = Definition(
        table=table, columns=stored, director=director, rows_per_tile=rows,
        margin_arcsec=margin if table.kind is TableKind.DIRECTOR and has_neighbours(table) else 0.0, previous=previous,
        conversion=conversion,
    )  # fmt: skip
    if previous is not None:
        made = _evolved(made, previous, request, kept)
    if declaration is not None and declaration.schema.views:
        made = replace(made, views=_views(made.table, declaration, catalog, request.catalog))
    if table.kind is not TableKind.MATCH:
        return made
    left, right = _sides(table, request, declaration.layout if declaration else None, catalog)
    second = replace(
        made, table=laid_out(made.table, right, left, is_second=True), director=right.director,
        previous=previous.other if previous is not None else None,
    )  # fmt: skip
    return replace(made, table=laid_out(made.table, left, right, is_second=False), director=left.director, other=second)


def _as_it_is(request: LoadRequest, previous: TableSnapshot) -> LoadRequest:
    """Return the request with what it leaves open as the table has it."""
    table = previous.table
    if table.view:
        raise ConflictError(f"{table.full_name} is a view", hint="load into another table")
    if any(uri.startswith("/") for uri in previous.home.uri.to_pylist()):
        raise ConflictError(f"{table.full_name} is attached, not loaded", hint="load into another table")
    open_words = {name: getattr(table, name) for name in _FROM_TABLE if getattr(request, name) in (None, "")}
    if request.schema is not None:
        open_words = {}
    elif table.match is not None and not request.left and not request.right:
        open_words |= {"left": f"{table.family}.{table.director_key}", "right": f"{table.match.family}.{table.match.key}"}
    if request.kind is not None and request.kind is not table.kind:
        raise ConflictError(f"{table.full_name} is a {table.kind.value}, not a {request.kind.value}", hint="load into a new table")
    return replace(request, **open_words)


def _without_ours(schema: pa.Schema) -> pa.Schema:
    return pa.schema([each for each in schema if each.name not in RESERVED])


def _base(
    request: LoadRequest, given: Sequence[Given], known: Table | None, declaration: _Declaration | None
) -> tuple[Table, frozenset[str]]:
    """Return the table with the columns that it has after the load, and which of them are kept though nobody declared them."""
    if known is None:
        kind = request.kind or TableKind.DIRECTOR
        found = infer_table(merged(given, request.extra_columns), schema=request.catalog, name=request.table, kind=kind)
        return found, frozenset()
    known = replace(known, columns=tuple(c for c in known.columns if c.name not in RESERVED))
    source = str(request.schema) if declaration else known.full_name
    columns = fitted_columns(given, known, extra=request.extra_columns, missing=request.missing_columns, source=source)
    kept = frozenset(column.name for column in columns) - {column.name for column in known.columns}
    return replace(known, columns=columns, schema=request.catalog, kind=request.kind or known.kind), kept


def _evolved(made: Definition, previous: TableSnapshot, request: LoadRequest, kept: frozenset[str]) -> Definition:
    """Return the definition with what changes of the table. Raise `SchemaError` for changes that nobody asked for."""
    table = replace(made.table, match=previous.table.match, family=previous.table.family)
    if table.kind is TableKind.MATCH:
        table = replace(table, director=previous.table.director, director_key=previous.table.director_key)
    evolution = evolve(previous.table, table)
    asked = evolution.widened or evolution.dropped or set(evolution.added) - kept
    if asked and not request.evolve:
        near = [] if not (evolution.added and evolution.dropped) else ["a column that is renamed would lose its old values"]
        raise SchemaError(
            f"{table.full_name}: the load {evolution.to_text()}", hint="; ".join(["say --evolve if that is meant", *near])
        )
    return replace(made, table=evolution.table, evolution=evolution)


def _views(table: Table, declaration: _Declaration, catalog: Catalog, schema: str) -> tuple[Table, ...]:
    new = without_parts(table)
    others = (one for one in catalog if one.table.full_name.lower() != table.full_name.lower())
    tables = [with_types(one, declaration.where) for one in declaration.schema.tables if one.name != declaration.table.name]
    return view_tables(
        declaration.schema.views, tables, Catalog((*others, new)), schema=schema, release=table.release, where=declaration.where
    )


# -- roles --------------------------------------------------------------------------------------------------------------------


def _sides(table: Table, request: LoadRequest, layout: Layout | None, catalog: Catalog) -> tuple[Side, Side]:
    sides = []
    declared = (layout.left, layout.right) if layout else ("", "")
    for text, option in ((request.left or declared[0], "--left"), (request.right or declared[1], "--right")):
        side = read_side(catalog, table.schema, text, option)
        sides.append(replace(side, column=named_column(table, side.column, option)))
    if sides[0].column == sides[1].column:
        raise ConfigError(f"{table.full_name}: both sides of a pair are in column {sides[0].column}", hint="name two columns")
    return sides[0], sides[1]


def _layout(request: LoadRequest, layout: Layout | None, previous: TableSnapshot | None) -> tuple[int, float]:
    """Return rows per tile and width of the margin: the request's, else those of the table, else the sidecar's, else the
    defaults."""
    rows, margin = request.rows_per_tile, request.margin_arcsec
    if previous is not None:
        if margin is not None and margin != previous.margin_arcsec and previous.table.kind is TableKind.DIRECTOR:
            raise ConflictError(
                f"{previous.table.full_name} has margins of {previous.margin_arcsec:g} arcsec, not {margin:g}",
                hint="load into a new table",
            )
        rows, margin = rows or previous.table.rows_per_tile or None, previous.margin_arcsec
    if rows is None:
        rows = layout.rows_per_tile if layout and layout.rows_per_tile is not None else ROWS_PER_TILE
    if margin is None:
        margin = layout.margin_arcsec if layout and layout.margin_arcsec is not None else MARGIN_ARCSEC
    if rows < 1 or margin < 0:
        raise ConfigError("rows per tile must be positive, and the margin not negative")
    return rows, margin


def _with_roles(table: Table, request: LoadRequest, catalog: Catalog) -> tuple[Table, TableSnapshot | None]:
    """Return the table with key, position and director, and the director's snapshot."""
    key = named_column(table, table.key if request.key is None else request.key, "--key")
    director_key = named_column(table, request.director_key or table.director_key, "--director-key")
    ra, dec = own_position(table, request)
    family = f"{table.schema}.{table.name}"
    if table.kind is TableKind.SERIES:
        return _series(replace(table, key=key, ra=ra, dec=dec, family=family, director="", director_key=""), request), None
    line = request.line or table.line
    if line == TIME_LINE or request.time_key:
        raise ConfigError(
            f"{table.full_name} is a {table.kind.value}: only a series lies on the line of times", hint="--kind series"
        )
    if table.kind is TableKind.DIRECTOR and line == HASH_LINE:
        if not key:
            raise ConfigError(f"{table.full_name}: the line of hashes is made of keys", hint="name the key with --key COLUMN")
        # Positions, if there are any, say nothing of where rows lie.
        return replace(table, key=key, ra="", dec="", line=line, family=family, director="", director_key=""), None
    if request.line and table.kind is not TableKind.DIRECTOR:
        raise ConfigError(f"{table.full_name} is a {table.kind.value}: it has the line of its director", hint="leave --line out")
    if table.kind is TableKind.DIRECTOR:
        if not ra:
            raise SchemaError(
                f"{table.full_name}: no column has the UCD {RA_UCD} or the name 'ra' (and the same for dec)",
                hint="name the position with --ra and --dec, or load a table without one as --kind child or replicated, with"
                " --line hash, or as --kind series",
            )
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
    found = replace(
        table, key=key, ra=ra, dec=dec, family=director.table.family, line=director.table.line, director=director.table.name,
        director_key=director_key,
    )  # fmt: skip
    return found, director


def _series(table: Table, request: LoadRequest) -> Table:
    """Return the series with its time. Raise `ConfigError` if none is named."""
    time_key = named_column(table, request.time_key or table.time_key, "--time-key")
    if not time_key:
        raise ConfigError(f"{table.full_name}: which column holds the times?", hint="name it with --time-key COLUMN")
    if request.line not in ("", TIME_LINE):
        raise ConfigError(f"{table.full_name}: a series lies on the line of times, not on that of {request.line}")
    return replace(table, line=TIME_LINE, time_key=time_key, is_key_proven=bool(table.key))


def _check_request(request: LoadRequest) -> None:
    for what, name in (("catalogue", request.catalog), ("table", request.table)):
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a {what}", hint="letters, digits and _, beginning with a letter")


def check_new(request: LoadRequest, catalog: Catalog) -> None:
    """Raise `ConflictError` if the table is there already."""
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


def _declaration(request: LoadRequest) -> _Declaration | None:
    if request.schema is None:
        return None
    found = read_declared(request.schema)
    table = found.table(request.table)
    where = str(found.sidecar.path or request.schema)
    return _Declaration(schema=found, table=table, layout=found.layouts.get(table.name), where=where)


def _hidden(table: Table, director: TableSnapshot | None) -> tuple[Column, ...]:
    what = "cell of HEALPix order 29, NESTED" if table.line == SKY_LINE else f"place on the line of {_LINES_OF[table.line]}"
    line = (Column(name=HEALPIX, type=BIGINT, nullable=False, hidden=True, description=what),)
    origin = (
        Column(name="_load", type=INTEGER, nullable=False, hidden=True, description="number of the load that brought the row"),
        Column(name="_input", type=INTEGER, nullable=False, hidden=True, description="number of the load's input, from 0"),
    )
    position = (
        Column(name=DIRECTOR_RA, type=DOUBLE, unit="deg", hidden=True, description="right ascension of the director"),
        Column(name=DIRECTOR_DEC, type=DOUBLE, unit="deg", hidden=True, description="declination of the director"),
    )
    if table.kind is TableKind.REPLICATED:
        return origin
    has_position = table.kind is TableKind.MATCH or (director is not None and bool(director.table.ra))
    return (*line, *origin, *position) if has_position else (*line, *origin)
