"""qengine_meta: the tables that tell what was loaded, from what, how good it is, and where it lies.

They are as queryable as everything else, but change with every load and not only with snapshots, and there may be a million
parts. So a published catalogue only has their definitions (`described`), with no rows, and a source of rows. Once it is known
which tables a statement names, `with_rows` gives it their rows: those of all that it names come from one reading of the registry
(`Facts`), the parts from the snapshots that the statement sees.

`Facts.is_visible` is the place of whoever knows what a user may read (`catalog.rights`): rows about the rest are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from qengine.catalog.inputs import InputRecord
from qengine.catalog.loads import Load
from qengine.catalog.model import NO_PARTS, Catalog, Column, ForeignKey, PartRole, Parts, Release, Table, TableKind, TableSnapshot
from qengine.catalog.quality import COLUMNS as QUALITY_COLUMNS
from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, TIMESTAMP, VARCHAR, SqlType, to_arrow
from qengine.catalog.who import LOCAL, Identity

NAME = "qengine_meta"

_KEY = ("load_number", BIGINT, "Number of the load: the value of the hidden column _load")
_CATALOG = ("catalog_name", VARCHAR, "Name of the catalogue")
_TABLE = ("table_name", VARCHAR, "Name of the table within its catalogue")

_TABLES: dict[str, tuple[str, tuple[tuple[str, SqlType, str], ...]]] = {
    "loads": (
        "Loads: who changed a catalogue, from what, and how it ended",
        (
            _KEY,
            ("load_id", VARCHAR, "Identifier of the load"),
            _CATALOG,
            ("load_state", VARCHAR, "open, committing, finished or aborted"),
            ("started", TIMESTAMP, "Begin of the load, UTC"),
            ("finished", TIMESTAMP, "End of the load, UTC; NULL if it has not ended"),
            ("snapshot_number", INTEGER, "Snapshot of the catalogue that the load published; NULL if none"),
            ("loaded_by", VARCHAR, "Who did it: user and machine"),
            ("reason", VARCHAR, "Why it was done"),
            ("software", VARCHAR, "Software that did it"),
            ("context", VARCHAR, "All that was said about the load, as JSON"),
            ("error", VARCHAR, "Why the load was not completed"),
        ),
    ),
    "inputs": (
        "Inputs of loads: what was read, and where each of its rows went",
        (
            _KEY,
            _CATALOG,
            _TABLE,
            ("input_number", INTEGER, "Number of the input in the load: the value of the hidden column _input"),
            ("label", VARCHAR, "Identity of the input; one of a table's inputs whose rows are there has it"),
            ("input_version", VARCHAR, "Version of the input: hash of its content, or the UUID of a dataset"),
            ("kind", VARCHAR, "file, butler, query, hats or stream"),
            ("uri", VARCHAR, "Where the input was read"),
            ("sha256", VARCHAR, "Digest of the input's bytes"),
            ("input_bytes", BIGINT, "Size of the input"),
            ("rows_read", BIGINT, "Rows of the input: stored, quarantined, filtered and skipped ones together"),
            ("rows_stored", BIGINT, "Rows that went into the table"),
            ("rows_quarantined", BIGINT, "Rows put aside with a reason"),
            ("rows_filtered", BIGINT, "Rows left out by the load's filter"),
            ("rows_skipped", BIGINT, "Rows that were in the table already"),
            ("replaced_by", BIGINT, "Number of the load that took the rows away; NULL while they are there"),
        ),
    ),
    "parts": (
        "Parts: the Parquet files of the tables, as of the snapshots that the statement reads",
        (
            _CATALOG,
            _TABLE,
            ("snapshot_number", INTEGER, "Snapshot of the catalogue"),
            ("part_role", VARCHAR, "home, orphan (beyond the sky) or margin (copies of rows near a tile)"),
            ("uri", VARCHAR, "Where the file lies; relative to the store"),
            ("sha256", VARCHAR, "Digest of the file"),
            ("part_rows", BIGINT, "Rows of the file"),
            ("part_bytes", BIGINT, "Size of the file"),
            ("range_start", BIGINT, "First cell of the range that the part belongs to"),
            ("range_stop", BIGINT, "First cell after this range"),
            ("lowest_cell", BIGINT, "Smallest cell of a row"),
            ("highest_cell", BIGINT, "Largest cell of a row"),
        ),
    ),
    "quality": ("Quality of what loads stored: a row for each table, and one for each of its columns", QUALITY_COLUMNS),
    "snapshots": (
        "Snapshots of the catalogues",
        (
            _CATALOG,
            ("snapshot_number", INTEGER, "Number of the snapshot"),
            ("published", TIMESTAMP, "When it was published, UTC"),
            ("load_id", VARCHAR, "Load that published it"),
            ("is_latest", INTEGER, "1 if statements read it that name no other, else 0"),
            ("catalog_state", VARCHAR, "State of the catalogue: staged, internal, released or frozen"),
            ("expired", TIMESTAMP, "Since when its files may be gone, UTC; NULL while it can be read"),
        ),
    ),
    "tags": (
        "Names of snapshots",
        (
            _CATALOG,
            ("tag_name", VARCHAR, "Name of the snapshot"),
            ("snapshot_number", INTEGER, "Number of the snapshot"),
            ("doi", VARCHAR, "DOI of what it holds"),
            ("note", VARCHAR, "What was said when it got the name"),
            ("made", TIMESTAMP, "When it got the name, UTC"),
        ),
    ),
    "queries": (
        "Your queries that are over, within seconds; administrators see those of all",
        (
            ("query_id", VARCHAR, "Identifier of the query"),
            ("user_name", VARCHAR, "Who asked; NULL for nobody in particular"),
            ("method", VARCHAR, "How it was asked: sync, async, explain or local"),
            ("client", VARCHAR, "Address and program that asked"),
            ("language", VARCHAR, "Language of the statement"),
            ("statement", VARCHAR, "Text of the statement"),
            ("started", TIMESTAMP, "When it was asked, UTC"),
            ("duration_s", DOUBLE, "Seconds from then to its end"),
            ("row_count", BIGINT, "Rows that were delivered"),
            ("byte_count", BIGINT, "Bytes of these rows, before they were written in any format"),
            ("outcome", VARCHAR, "finished, failed or cancelled"),
            ("error_code", VARCHAR, "Code of the error; NULL if there was none"),
            ("error", VARCHAR, "What was said about it"),
            ("snapshots", VARCHAR, "Snapshots of the catalogues that it read, as JSON"),
        ),
    ),
}
_KEYS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "inputs": ((("load_number",), "loads"),),
    "quality": ((("load_number",), "loads"),),
    "snapshots": ((("load_id",), "loads"),),
    "tags": ((("catalog_name", "snapshot_number"), "snapshots"),),
    "parts": ((("catalog_name", "snapshot_number"), "snapshots"),),
}

IsVisible = Callable[[str, str], bool]
"""Says whether rows about a table of a catalogue may be seen; with an empty table, those about all of the catalogue."""


ReadQueries = Callable[[str | None], Sequence[Mapping[str, Any]]]
"""Returns the queries of a user, or (None) of all, as rows of the table."""


def everything(catalog: str, table: str) -> bool:
    """Say that anything may be seen."""
    del catalog, table
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the registry says at one moment. `snapshots` and `tags` are rows of the tables of these names."""

    loads: Sequence[Load]
    inputs: Sequence[InputRecord]
    snapshots: Sequence[Mapping[str, Any]]
    tags: Sequence[Mapping[str, Any]]
    quality: Callable[[Sequence[Load]], pa.Table]
    queries: ReadQueries
    is_visible: IsVisible = everything


ReadFacts = Callable[[Collection[str]], Facts]
"""Reads what the tables of these names need."""


def described(read: ReadFacts) -> tuple[TableSnapshot, ...]:
    """Return the tables without rows; `with_rows` asks `read` for them."""
    tables = [_definition(number, name) for number, name in enumerate(_TABLES)]
    return tuple(
        TableSnapshot(
            table=table, number=0, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS, inline=_schema(table).empty_table(), facts=read
        )
        for table in tables
    )


def with_rows(catalog: Catalog, names: Iterable[tuple[str, str]], identity: Identity = LOCAL) -> Catalog:
    """Return the catalogue with the rows of those system tables that a statement of `identity` names: (schema or empty, table).

    A statement that names a view may read what the view names, so that views over system tables count as all of them.
    """
    asked = {(schema.lower(), name.lower()) for schema, name in names}
    own = [one for one in catalog if one.facts is not None]
    named = {one.table.name for one in own if {(NAME, one.table.name), ("", one.table.name)} & asked}
    if any(NAME in one.table.view.lower() for one in catalog if one.table.view):
        named = {one.table.name for one in own}
    if not named or not own or own[0].facts is None:
        return catalog
    facts = own[0].facts(named)

    def filled(one: TableSnapshot) -> TableSnapshot:
        return replace(one, inline=_rows(one.table, facts, catalog, identity))

    return Catalog(tuple(filled(one) if one.facts is not None and one.table.name in named else one for one in catalog))


def _definition(number: int, name: str) -> Table:
    description, columns = _TABLES[name]
    return Table(
        schema=NAME, name=name, kind=TableKind.REPLICATED, line_column="", description=description, table_index=number + 1,
        release=Release(title="Loads, inputs, quality, parts, snapshots and tags: what is known about the catalogues"),
        columns=tuple(
            Column(name=column, type=kind, description=text, principal=True, column_index=index + 1)
            for index, (column, kind, text) in enumerate(columns)
        ),
        foreign_keys=tuple(ForeignKey(columns=names, target=target, target_columns=names) for names, target in _KEYS.get(name, ())),
    )  # fmt: skip


def _schema(table: Table) -> pa.Schema:
    return pa.schema([(column.name, to_arrow(column.type)) for column in table.columns])


def _rows(table: Table, facts: Facts, catalog: Catalog, identity: Identity) -> pa.Table:
    schema = _schema(table)
    visible = facts.is_visible
    if table.name == "parts":
        return _parts(catalog, schema, visible)
    if table.name == "quality":
        return facts.quality([load for load in facts.loads if visible(load.catalog, "")]).cast(schema)
    if table.name == "queries":
        # What somebody asked is nobody else's business, and what nobody in particular asked is not either.
        own = None if identity.is_admin else identity.user
        return _table(facts.queries(own) if own is None or own else (), schema)
    rows: Iterable[Mapping[str, Any]]
    if table.name == "loads":
        rows = (_load(load) for load in facts.loads)
    elif table.name == "inputs":
        rows = (_input(one) for one in facts.inputs)
    else:
        rows = facts.snapshots if table.name == "snapshots" else facts.tags
    shown = [row for row in rows if visible(row["catalog_name"] or "", row.get("table_name", ""))]
    return _table(shown, schema)


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    # Empty text means that nothing is known, which is NULL here.
    return pa.table({name: [None if row[name] == "" else row[name] for row in rows] for name in schema.names}, schema=schema)


def _load(load: Load) -> dict[str, Any]:
    return {
        "load_number": load.number, "load_id": load.id, "catalog_name": load.catalog, "load_state": load.state.value,
        "started": load.started.replace(tzinfo=None), "finished": load.finished and load.finished.replace(tzinfo=None),
        "snapshot_number": load.snapshot or None, "loaded_by": str(load.context.get("by", "")),
        "reason": str(load.context.get("why", "")), "software": str(load.context.get("software", "")),
        "context": json.dumps(dict(load.context), default=str, ensure_ascii=False), "error": load.error,
    }  # fmt: skip


def _input(one: InputRecord) -> dict[str, Any]:
    return {
        "load_number": one.load, "catalog_name": one.catalog, "table_name": one.table, "input_number": one.number,
        "label": one.label, "input_version": one.version, "kind": one.kind, "uri": one.uri, "sha256": one.sha256,
        "input_bytes": one.bytes, "rows_read": one.rows_read, "rows_stored": one.rows_stored,
        "rows_quarantined": one.rows_quarantined, "rows_filtered": one.rows_filtered, "rows_skipped": one.rows_skipped,
        "replaced_by": one.replaced_by,
    }  # fmt: skip


def _parts(catalog: Catalog, schema: pa.Schema, visible: IsVisible) -> pa.Table:
    """Return the parts of all tables, column by column: there may be a million."""
    found = [schema.empty_table()]
    for first in catalog:
        if first.inline is not None or first.table.view or not visible(first.table.schema, first.table.name):
            continue
        for one in (first, *([first.other] if first.other is not None else [])):
            roles = ((PartRole.HOME, one.home), (PartRole.ORPHAN, one.orphan), (PartRole.MARGIN, one.margin))
            found += [_of_role(one, role, parts, schema) for role, parts in roles if len(parts)]
    return pa.concat_tables(found)


def _of_role(one: TableSnapshot, role: PartRole, parts: Parts, schema: pa.Schema) -> pa.Table:
    count = len(parts)
    texts = (one.table.schema, one.table.name, role.name.lower())
    catalog, table, name = (pa.repeat(pa.scalar(text, pa.string()), count) for text in texts)
    number = pa.array(np.full(count, one.number, np.int32))
    figures = (parts.rows, parts.bytes, parts.start, parts.stop, parts.lowest, parts.highest)
    columns = [catalog, table, number, name, parts.uri, parts.digest, *(pa.array(np.ascontiguousarray(each)) for each in figures)]
    return pa.Table.from_arrays([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
