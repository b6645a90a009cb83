"""From a row to what belongs to it: DataLink service descriptors in VOTables, and the services that they describe.

A result that has the key of a table, as it is stored, gets one descriptor for each link of that table: an address that takes the
key as the parameter ID (DataLink 1.1, section 4). Clients offer it for each row: TOPCAT as an activation action, pyvo as
`results.iter_adhocservices()`. The links of a table are those of its sidecar (`Table.links`), and one for each child that the
sidecar has no link of that name for: all its rows of that key, in order of time if it has times. Only links whose tables can all
be read by whoever asks are described.

    /tap/links/<table>/<link>?ID=<key>      the rows, answered as /sync does: RESPONSEFORMAT and MAXREC are taken
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qengine.catalog.model import Catalog, Column, Link, Table, TableKind
from qengine.catalog.names import quoted
from qengine.catalog.output import OutputColumn
from qengine.errors import QEngineError, QueryError, UnknownNameError
from qengine.sql.parse import parse, table_names
from qengine.tap.examples import Answering, Guarded, clock_of
from qengine.tap.failure import error_response
from qengine.tap.formats.writer import ServiceLink
from qengine.tap.parameters import Parameters

PATH = "links"
_TAKEN = ("RESPONSEFORMAT", "FORMAT", "MAXREC")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


def service_links(columns: Sequence[OutputColumn], catalog: Catalog, base_url: str) -> tuple[ServiceLink, ...]:
    """Return the descriptors for a result with `columns`, for somebody who may read `catalog`; none without a `base_url`."""
    found: dict[str, ServiceLink] = {}
    for number, column in enumerate(columns):
        if not base_url or not column.origin:
            continue
        schema, name, key = column.origin
        snapshot = catalog.find(schema, name)
        if snapshot is None or snapshot.table.key != key:
            continue
        table = snapshot.table
        for link in links(table, catalog):
            url = f"{base_url}/{PATH}/{quote(table.full_name)}/{quote(link.name)}"
            if url not in found and _is_possible(link, table, catalog):
                found[url] = ServiceLink(column=number, name=link.name, title=link.title, description=link.description, url=url)
    return tuple(found.values())


def links(table: Table, catalog: Catalog) -> tuple[Link, ...]:
    """Return the links of a table: those of its sidecar, then one for each child without such a link."""
    column = table.column(table.key)
    if column is None or not (column.type.is_integer or column.type.is_text):
        return ()
    declared = {link.name: link for link in table.links}
    return tuple({**{link.name: link for link in _of_children(table, catalog)}, **declared}.values())


def statement(table: Table, link: Link, value: str) -> str:
    """Return the statement of a link for one key. Raise `QueryError` if `value` cannot be one."""
    column = table.column(table.key)
    assert column is not None
    return link.query.replace("{catalog}", quoted(table.schema)).replace("{key}", _literal(column, value))


def routes(answer: Answering, catalog: Callable[[Request], Catalog], guarded: Guarded, *, path: str) -> list[Route]:
    """Return the route of the services. `catalog` says what whoever asks may read, `answer` is that of /sync."""

    async def follow(request: Request, parameters: Parameters) -> Response:
        found = _find(catalog(request), request.path_params["table"], request.path_params["link"])
        if found is None:
            return error_response(
                UnknownNameError("there is no such link", hint="results name the links that there are"), status=404
            )
        table, link = found
        value = parameters.one("ID")
        if not value:
            raise QueryError("ID is missing", hint=f"give a {table.key} of {table.full_name} as ID")
        kept = {name: values for name, values in parameters.values.items() if name in _TAKEN}
        asked = Parameters({**kept, "LANG": ("ADQL",), "QUERY": (statement(table, link, value),)})
        return await answer(request, asked)

    async def handle(request: Request) -> Response:
        return await guarded(request, follow)

    return [Route(f"{path}/{PATH}/{{table}}/{{link}}", handle)]


def _find(catalog: Catalog, table: str, name: str) -> tuple[Table, Link] | None:
    tables = (snapshot.table for snapshot in catalog if snapshot.table.full_name.lower() == table.lower())
    return next(((one, link) for one in tables for link in links(one, catalog) if link.name == name), None)


def _of_children(table: Table, catalog: Catalog) -> Iterator[Link]:
    if table.kind is not TableKind.DIRECTOR:
        return
    for snapshot in catalog:
        child = snapshot.table
        if child.schema == table.schema and child.kind is TableKind.CHILD and child.director == table.name:
            clock = clock_of(child)
            order = f" ORDER BY {quoted(clock)}" if clock else ""
            yield Link(
                name=child.name,
                title=f"{child.name} of this {table.name}",
                query=f"SELECT * FROM {{catalog}}.{quoted(child.name)} WHERE {quoted(child.director_key)} = {{key}}{order}",
                description=child.description,
            )


def _is_possible(link: Link, table: Table, catalog: Catalog) -> bool:
    column = table.column(table.key)
    named = _named(statement(table, link, "0" if column is not None and column.type.is_integer else "a"))
    return named is not None and all(catalog.find(schema, name) is not None for schema, name in named)


@lru_cache(maxsize=1000)
def _named(text: str) -> frozenset[tuple[str, str]] | None:
    """Return the tables of a statement, by schema and name; None if it is none. (To parse takes as long as a small query.)"""
    with suppress(QEngineError):
        return frozenset((schema, name) for schema, name in table_names(parse(text, "adql")) if schema)
    return None


def _literal(column: Column, value: str) -> str:
    if column.type.is_text:
        return "'" + value.replace("'", "''") + "'"
    if not _INTEGER.fullmatch(value) or not -(2**63) <= int(value) < 2**64:
        raise QueryError(f"ID={value} is no {column.name}", hint="give a whole number")
    return str(int(value))
