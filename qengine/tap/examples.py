"""/examples: statements that show what can be asked here, as XHTML with RDFa (DALI 1.1, section 2.3; TAP 1.1, section 2.4.4).

Where they come from:

1. the sidecars of the catalogues (`Table.examples`), first, since people thought of them;
2. the tables themselves: a cone for a director on the sky, all rows of one object for a child (a light curve, if the child has
   times), a cross-match of two directors with margins, a count for the largest table, and some rows of what has neither.

Positions and keys in the latter are taken from the manifest, so that every example finds rows and reads little. Nothing is read
from the store. They are ADQL 2.0 as well as 2.1 (so with the frames of positions, without expressions after ORDER BY), because the
clients of today, TOPCAT among them, underline what is 2.1 only. An example is shown if it can be bound to the catalogue at hand,
which holds what the asker may read.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qengine.catalog.model import HIDDEN_COLUMNS, SKY_LINE, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.names import quoted
from qengine.errors import QEngineError
from qengine.sky.cells import LINE_END, ORDER
from qengine.sky.healpix import centers
from qengine.sql.bind import bind
from qengine.sql.parse import parse, table_names
from qengine.tap.formats.votable import attribute, text
from qengine.tap.parameters import Parameters
from qengine.tap.service import TapSettings

MEDIA_TYPE = "application/xhtml+xml"
_log = logging.getLogger(__name__)
_VOCABULARY = "http://www.ivoa.net/rdf/examples#"
_SYSTEM = ("TAP_SCHEMA", "qengine_meta")
_SHOWN_COLUMNS = 6
_CONE_DEG = 0.1
_PAIR_ARCSEC = 2.0
_MATCH_CONE_DEG = 0.5
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._]+")


Answering: TypeAlias = Callable[[Request, Parameters], Awaitable[Response]]
Guarded: TypeAlias = Callable[[Request, Answering], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExample:
    """An example as it is shown. `id` is unique in the document, `tables` are those that it reads, as statements write them."""

    id: str
    title: str
    query: str
    description: str
    tables: tuple[str, ...]


def routes(catalog: Callable[[Request], Catalog], guarded: Guarded, settings: TapSettings, *, path: str) -> list[Route]:
    """Return the route of the document; `catalog` says what whoever asks may read."""

    async def show(request: Request, parameters: Parameters) -> Response:
        found = await asyncio.to_thread(examples, catalog(request))
        return Response(document(settings.title, found), media_type=MEDIA_TYPE)

    async def handle(request: Request) -> Response:
        return await guarded(request, show)

    return [Route(f"{path}/examples", handle)]


def examples(catalog: Catalog) -> tuple[ShownExample, ...]:
    """Return the examples for what is in `catalog`."""
    found: dict[str, ShownExample] = {}
    for example in _all(catalog):
        found.setdefault(example.id, example)
    return tuple(found.values())


def document(title: str, shown: Sequence[ShownExample]) -> str:
    """Return the XHTML document of the examples."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml">\n'
        f"<head><title>{text(title)}: examples</title></head>\n<body vocab={attribute(_VOCABULARY)}>\n"
        f"<h1>{text(title)}: examples</h1>\n" + "".join(map(_element, shown)) + "</body>\n</html>\n"
    )


def _element(example: ShownExample) -> str:
    tables = "".join(f'<li property="table">{text(name)}</li>' for name in example.tables)
    about = f"<p>{text(example.description)}</p>\n" if example.description else ""
    return (
        f'<div id={attribute(example.id)} resource={attribute("#" + example.id)} typeof="example">\n'
        f'<h2 property="name">{text(example.title)}</h2>\n{about}'
        f'<pre property="query">{text(example.query)}</pre>\n<ul>{tables}</ul>\n</div>\n'
    )


def _all(catalog: Catalog) -> Iterator[ShownExample]:
    schemas: dict[str, list[TableSnapshot]] = {}
    for snapshot in catalog:
        schemas.setdefault(snapshot.table.schema, []).append(snapshot)
    own = [tables for schema, tables in schemas.items() if schema not in _SYSTEM]
    for tables in own:
        yield from (each for snapshot in tables for each in _declared(snapshot.table, catalog))
    for tables in own:
        yield from _made(tables)
    if "TAP_SCHEMA" in schemas:
        yield ShownExample(
            id="tables",
            title="Tables of this service",
            query="SELECT table_name, description FROM TAP_SCHEMA.tables ORDER BY table_name",
            description="What can be queried, and what it is",
            tables=("TAP_SCHEMA.tables",),
        )


def _declared(table: Table, catalog: Catalog) -> Iterator[ShownExample]:
    for example in table.examples:
        query = example.query.replace("{catalog}", quoted(table.schema))
        try:
            parsed = parse(query, "adql")
            bind(parsed, catalog)
        except QEngineError as error:
            # it names what is gone, or what not everybody may read
            _log.info("example %s of %s is not shown: %s", example.name, table.full_name, error.message)
            continue
        named = [catalog.find(schema, name) for schema, name in sorted(table_names(parsed)) if schema]
        shown = dict.fromkeys(map(_name, (table, *(snapshot.table for snapshot in named if snapshot is not None))))
        yield ShownExample(
            id=_id(table, example.name), title=example.title, query=query, description=example.description, tables=tuple(shown)
        )


def _made(tables: Sequence[TableSnapshot]) -> Iterator[ShownExample]:
    largest = max(tables, key=lambda snapshot: snapshot.rows)
    if not largest.table.view:
        yield _example(
            largest.table,
            "count",
            f"Number of rows of {_name(largest.table)}",
            f"SELECT COUNT(*) AS n\nFROM {_name(largest.table)}",
        )
    on_sky = [one for one in tables if one.table.kind is TableKind.DIRECTOR and one.table.line == SKY_LINE and one.table.ra]
    for snapshot in tables:
        if snapshot in on_sky and len(snapshot.home):
            yield _cone(snapshot)
        elif snapshot.table.director_key and snapshot.table.kind is TableKind.CHILD and _some_key(snapshot) is not None:
            yield _of_one_key(snapshot)
        else:
            yield _some_rows(snapshot.table)
    for left, right in pairwise(on_sky):
        if len(left.home) and min(left.margin_arcsec, right.margin_arcsec) >= _PAIR_ARCSEC:
            yield _match(left, right)


def _cone(snapshot: TableSnapshot) -> ShownExample:
    table = snapshot.table
    ra, dec = _place(snapshot)
    return _example(
        table,
        "cone",
        f"Cone search in {_name(table)}",
        f"SELECT TOP 100 {_columns(table, table.key, table.ra, table.dec)}\nFROM {_name(table)}\n"
        f"WHERE {_within(quoted(table.ra), quoted(table.dec), ra, dec, _CONE_DEG)}",
        f"All within {_CONE_DEG} degrees of a position",
    )


def _match(left: TableSnapshot, right: TableSnapshot) -> ShownExample:
    one, other = left.table, right.table
    ra, dec = _place(left)
    wanted = [f"{alias}.{quoted(name)}" for alias, table in (("a", one), ("b", other)) for name in (table.key or table.ra,)]
    chosen = f"{wanted[0]} AS a_id, {wanted[1]} AS b_id"
    a_ra, a_dec, b_ra, b_dec = (f"{a}.{quoted(n)}" for a, n in (("a", one.ra), ("a", one.dec), ("b", other.ra), ("b", other.dec)))
    distance = f"DISTANCE(POINT('ICRS', {a_ra}, {a_dec}), POINT('ICRS', {b_ra}, {b_dec}))"
    found = _example(
        one,
        f"match-{other.name}",
        f"{_name(one)} matched with {_name(other)}",
        f"SELECT TOP 100 {chosen}, 3600 * {distance} AS arcsec\nFROM {_name(one)} AS a\n"
        f"JOIN {_name(other)} AS b ON {distance} < {_PAIR_ARCSEC} / 3600.0\n"
        f"WHERE {_within(a_ra, a_dec, ra, dec, _MATCH_CONE_DEG)}",
        f"Pairs that are closer than {_PAIR_ARCSEC} arcsec; without the last line, on the whole sky",
    )
    return ShownExample(
        id=found.id, title=found.title, query=found.query, description=found.description, tables=(_name(one), _name(other))
    )


def _of_one_key(snapshot: TableSnapshot) -> ShownExample:
    table = snapshot.table
    clock = clock_of(table)
    what = "Light curve: rows" if clock else "Rows"
    order = f"\nORDER BY {quoted(clock)}" if clock else ""
    return _example(
        table,
        "of-one",
        f"{what} of {_name(table)} for one {table.director}",
        f"SELECT {_columns(table, table.director_key, clock)}\nFROM {_name(table)}\n"
        f"WHERE {quoted(table.director_key)} = {_some_key(snapshot)}{order}",
        f"By the key of {table.director}, so that only what lies beside it is read",
    )


def _some_rows(table: Table) -> ShownExample:
    return _example(
        table, "rows", f"Some rows of {_name(table)}", f"SELECT TOP 10 {_columns(table, table.key)}\nFROM {_name(table)}"
    )


def _example(table: Table, kind: str, title: str, query: str, description: str = "") -> ShownExample:
    return ShownExample(id=_id(table, kind), title=title, query=query, description=description, tables=(_name(table),))


def _within(ra: str, dec: str, center_ra: float, center_dec: float, radius: float) -> str:
    return f"CONTAINS(POINT('ICRS', {ra}, {dec}), CIRCLE('ICRS', {center_ra}, {center_dec}, {radius})) = 1"


def _place(snapshot: TableSnapshot) -> tuple[float, float]:
    """Return a position near a row of the table's richest part, in degrees."""
    home = snapshot.home
    cell = int(home.lowest[int(np.argmax(home.rows))])
    ra, dec = centers(ORDER, [min(max(cell, 0), LINE_END - 1)])
    return round(float(ra[0]), 4), round(float(dec[0]), 4)


def _some_key(snapshot: TableSnapshot) -> str | None:
    """Return a key of the table's director as a statement writes it, None if the manifest names none."""
    stats = snapshot.home.stats.get(snapshot.table.director_key)
    if stats is None or not len(snapshot.home):
        return None
    exact = stats.is_exact if stats.is_exact is not None else stats.is_known
    found = np.flatnonzero(exact & stats.is_known)
    if not len(found):
        return None
    value: Any = stats.minimum[found[len(found) // 2]]
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(int(value))


def clock_of(table: Table) -> str:
    """Return the column that says when a row was observed, empty if there is none."""
    shown = {column.name: column for column in table.columns}
    declared = [time.column for time in table.times if time.column in shown]
    epochs = [name for name, column in shown.items() if column.ucd.lower().startswith("time.epoch")]
    return next(iter((*declared, *epochs)), "")


def _columns(table: Table, *first: str) -> str:
    """Return the columns that an example shows: those of the roles, then the principal ones, else whatever comes first."""
    useful = [column for column in table.columns if not column.hidden and column.name not in HIDDEN_COLUMNS]
    wanted = [name for name in first if name] + [c.name for c in useful if c.principal and _is_plain(c)]
    if len(wanted) < _SHOWN_COLUMNS:
        wanted += [column.name for column in useful if _is_plain(column)]
    return ", ".join(quoted(name) for name in list(dict.fromkeys(wanted))[:_SHOWN_COLUMNS]) or "*"


def _is_plain(column: Column) -> bool:
    return not column.type.name.endswith("[]")


def _name(table: Table) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def _id(table: Table, kind: str) -> str:
    return _NOT_IN_IDS.sub("-", f"{table.schema}-{table.name}-{kind}").strip("-")
