"""Tables at other snapshots than the latest: `dp1.Object AT (VERSION => 12)` and `AT (TIMESTAMP => '2026-11-01')`.

A version is a snapshot's number or the name of a tag; a time means the snapshot that was the latest then. One statement may read
several snapshots of a table, for example to compare them. Before binding, such a table moves into a schema of its own,
`dp1@12`, which exists for this statement only and holds the whole catalogue at that snapshot. Its families have other names than
those of the latest: a key may lie in another cell there, so equal keys are no proof of equal places, while distances are as
good as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlglot import exp

from qengine.catalog.model import Catalog, Table, TableSnapshot
from qengine.errors import QEngineError, QuerySyntaxError, UnknownNameError
from qengine.sql.parse import ParsedQuery
from qengine.sql.spans import Places
from qengine.sql.trees import find

ReadCatalog = Callable[[str, int | str], Catalog]
"""Returns what is published, with one catalogue at the snapshot of a number, tag or time."""


def at_versions(parsed: ParsedQuery, catalog: Catalog, read: ReadCatalog) -> Catalog:
    """Return the catalogue with the schemas of the snapshots that the statement names, and let its tables name those.

    Raise `QuerySyntaxError` for a version that is not constant, `UnknownNameError` for a table or a snapshot that is not there,
    `SnapshotExpiredError` for one that is gone.
    """
    tables = [table for table in find(parsed.tree, exp.Table) if table.args.get("when") is not None]
    if not tables:
        return catalog
    places = Places(parsed.tree, parsed.text)
    found: dict[str, tuple[TableSnapshot, ...]] = {}
    for table in tables:
        when, span = table.args["when"], places.around(table)
        try:
            schema = _schema_of(table, catalog)
            older = read(schema, _word(when))
            there = [one for one in older if one.table.schema == schema]
            if not there:  # none of its tables, or none that may be read
                raise UnknownNameError(f"there was no table {schema}.{table.name} then")
        except QEngineError as error:
            error.span = error.span or span
            raise error.located(parsed.text) from None
        table.set("when", None)
        name = f"{schema}@{there[0].number}"
        found.setdefault(name, tuple(_moved(one, name) for one in there))
        identifier = exp.to_identifier(name, quoted=True)
        identifier.meta.update(table.this.meta)
        table.set("db", identifier)
    return Catalog((*catalog, *(one for tables in found.values() for one in tables)))


def _schema_of(table: exp.Table, catalog: Catalog) -> str:
    if table.db:
        return next((one.table.schema for one in catalog if one.table.schema.lower() == table.db.lower()), table.db)
    named = catalog.find_unqualified(table.name)
    if len(named) != 1:
        what = "no table has" if not named else "several tables have"
        raise UnknownNameError(f"{what} the name {table.name}", hint="write CATALOGUE.TABLE")
    return named[0].table.schema


def _word(when: exp.Expression) -> int | str:
    """Return what stands behind the arrow."""
    kind, value = str(when.args["kind"]).upper(), when.expression
    if str(when.this).upper() != "AT":
        kind = ""
    if isinstance(value, exp.Cast):
        value = value.this
    if isinstance(value, exp.Literal):
        text = str(value.this)
        if kind == "TIMESTAMP" and value.is_string:
            return text
        if kind == "VERSION" and (value.is_string or text.isdigit()):
            return text if value.is_string else int(text)
    example = "AT (VERSION => 12), AT (VERSION => 'DP1') or AT (TIMESTAMP => '2026-11-01')"
    raise QuerySyntaxError("a version is a number, the name of a tag, or a time", hint=f"write {example}")


def _moved(snapshot: TableSnapshot, schema: str) -> TableSnapshot:
    """Return the table in another schema, of other families."""
    other = None if snapshot.other is None else _moved(snapshot.other, schema)
    return replace(snapshot, table=_renamed(snapshot.table, schema), other=other)


def _renamed(table: Table, schema: str) -> Table:
    def family(name: str) -> str:
        return f"{schema}{name[len(table.schema) :]}" if name.startswith(f"{table.schema}.") else name

    match = None if table.match is None else replace(table.match, family=family(table.match.family))
    return replace(table, schema=schema, family=family(table.family), match=match)
