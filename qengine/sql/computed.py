"""Virtual columns and views when they are declared: their types are found, and what cannot be bound is refused with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlglot import exp

from qengine.catalog.model import NO_PARTS, Catalog, Column, Release, Table, TableKind, TableSnapshot
from qengine.catalog.names import quoted
from qengine.catalog.sidecar import View
from qengine.errors import QEngineError, SchemaError
from qengine.sql.bind import bind
from qengine.sql.blocks import Queries
from qengine.sql.language import language_of
from qengine.sql.nodes import type_of
from qengine.sql.parse import parse
from qengine.sql.scopes import Context, Source
from qengine.sql.spans import Places
from qengine.sql.views import LANGUAGE, Computed

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def with_types(table: Table, where: str) -> Table:
    """Return the table with the types of its virtual columns, and their units where an expression has one that is not declared.

    Raise `SchemaError` that names `where` (the file) and the word of what cannot be bound.
    """
    if not table.virtual:
        return table
    source = Source(name=table.name, alias=table.name, columns=table.shown, schema=table.schema, table=table)
    context = Context(Places(exp.Select(), ""), language_of(LANGUAGE), Catalog((_declared(table),)))
    computed = Computed(context, Queries)
    found = []
    for column in table.virtual:
        try:
            bound = computed.column(replace(source, expand=computed.column), column)
        except QEngineError as error:
            raise _misplaced(f"{where}: tables.{table.name}.virtual.{column.name}.expression", error) from error
        found.append(replace(column, type=type_of(bound), unit=column.unit or str(bound.meta.get("unit", ""))))
    return replace(table, virtual=tuple(found))


def view_tables(
    views: Sequence[View], tables: Iterable[Table], catalog: Catalog, *, schema: str, release: Release, where: str
) -> tuple[Table, ...]:
    """Return those views as tables of the catalogue `schema` all of whose tables are in `catalog`. `tables` are declared too, but
    may not be published yet: a view of them waits until they are.

    Raise `SchemaError` that names `where` (the file) and the word of a view that can never be read: it names what is neither
    declared nor published, is defined by itself, or has the name of a table.
    """
    declared_here = [_declared(replace(table, schema=schema)) for table in tables]
    published = {(t.table.schema.lower(), t.table.name.lower()) for t in catalog if not t.table.view}
    unread = [_declared(_view(view, schema, release)) for view in views]
    later = [t for t in declared_here if (t.table.schema.lower(), t.table.name.lower()) not in published]
    everything = Catalog((*(t for t in catalog if not t.table.view or t.table.schema != schema), *later, *unread))
    found = []
    for view in views:
        word = f"{where}: views.{view.name}"
        if not _NAME.fullmatch(view.name):
            raise SchemaError(f"{word}: is no name for a table", hint="letters, digits and _, beginning with a letter")
        if any(
            t.table.schema == schema and t.table.name.lower() == view.name.lower() for t in (*catalog, *later) if not t.table.view
        ):
            raise SchemaError(f"{word}: a table has this name", hint="choose another name")
        try:
            bound = bind(parse(f"SELECT * FROM {quoted(schema)}.{quoted(view.name)}", LANGUAGE), everything)
        except QEngineError as error:
            raise _misplaced(f"{word}.sql", error) from error
        if all((s.lower(), name.lower()) in published for s, name in bound.tables):
            columns = tuple(
                Column(name=c.name, type=c.type, unit=c.unit, ucd=c.ucd, utype=c.utype, description=c.description, system=c.system)
                for c in bound.columns
            )
            found.append(replace(_view(view, schema, release), columns=columns))
    return tuple(found)


def _view(view: View, schema: str, release: Release) -> Table:
    return Table(
        schema=schema, name=view.name, kind=TableKind.REPLICATED, columns=(), view=view.sql, line_column="",
        description=view.description, release=release,
    )  # fmt: skip


def _declared(table: Table) -> TableSnapshot:
    """Return a table that has no rows yet: enough for names and types."""
    return TableSnapshot(table=table, number=0, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)


def _misplaced(where: str, error: QEngineError) -> SchemaError:
    return SchemaError(f"{where}: {error.message}", hint=error.hint)
