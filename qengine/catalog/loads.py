"""Loads in the registry's database: who changed a catalogue, from what, and how it ended.

A load is *open* from its beginning until it is committed or aborted: contributions may come from many processes meanwhile. It is
*committing* while one process makes its parts, and again open for another attempt if that process dies. *Finished* and
*aborted* are for good. The transaction that publishes a load's snapshot also finishes it and writes what its inputs were.

A load's number is that of the hidden column `_load`. It only grows: writers exclude each other while they take one.

Functions on a connection; the caller's transaction decides what is seen and whether writers are excluded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from qengine.catalog.database import now, utc
from qengine.catalog.inputs import InputRecord
from qengine.catalog.migrations.tables import INPUTS, LOADS, SNAPSHOTS
from qengine.errors import RegistryError


class LoadState(Enum):
    """The life of a load."""

    OPEN = "open"
    COMMITTING = "committing"
    FINISHED = "finished"
    ABORTED = "aborted"


UNFINISHED = (LoadState.OPEN, LoadState.COMMITTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Who changed a catalogue, from what and when (times in UTC). `catalog` is empty for loads of older versions that published
    nothing; `snapshot` is what it published, 0 for nothing; `error` says why a load was aborted."""

    id: str
    number: int
    state: LoadState
    catalog: str
    context: Mapping[str, Any]
    started: datetime
    finished: datetime | None
    error: str
    snapshot: int


def insert_load(connection: sa.Connection, catalog: str, context: Mapping[str, Any], *, name: str = "") -> Load:
    """Record the beginning of a load and return it."""
    name = name or uuid4().hex
    values = {
        "id": name, "number": _next_number(connection), "state": LoadState.OPEN.value, "catalog": catalog,
        "context": json.dumps(dict(context), default=str, ensure_ascii=False), "started": now(), "error": "",
    }  # fmt: skip
    connection.execute(sa.insert(LOADS).values(values))
    return find_load(connection, name)


def restore(
    connection: sa.Connection, load: Load, inputs: Sequence[InputRecord], replaced: Iterable[tuple[int, str, int]],
    restored: Iterable[tuple[int, str, int]] = (),
) -> None:  # fmt: skip
    """Add a load that a record of the store tells of, with its inputs, unless it is known."""
    if connection.execute(sa.select(LOADS.c.id).where(LOADS.c.id == load.id)).scalar_one_or_none() is not None:
        return
    values = {
        "id": load.id, "number": load.number, "state": load.state.value, "catalog": load.catalog,
        "context": json.dumps(dict(load.context), default=str, ensure_ascii=False), "started": load.started.replace(tzinfo=None),
        "finished": load.finished.replace(tzinfo=None) if load.finished else None, "error": load.error, "snapshot": load.snapshot,
    }  # fmt: skip
    connection.execute(sa.insert(LOADS).values(values))
    insert_inputs(connection, inputs)
    mark_inputs(connection, replaced, load.number)
    mark_inputs(connection, restored, None)


def mark_inputs(connection: sa.Connection, names: Iterable[tuple[int, str, int]], replaced_by: int | None) -> None:
    """Record which load took the rows of these inputs away; None: they are there."""
    for number, table, of_input in names:
        connection.execute(
            sa.update(INPUTS)
            .where(INPUTS.c.load == number, INPUTS.c.table_name == table, INPUTS.c.number == of_input)
            .values(replaced_by=replaced_by)
        )


def find_load(connection: sa.Connection, load: str) -> Load:
    """Return the load of this id, or of the only one that begins so. Raise `RegistryError` if there is none or more than one."""
    query = sa.select(LOADS).where(LOADS.c.id.startswith(load, autoescape=True)).limit(2)
    rows = connection.execute(query).all() if load else []
    if len(rows) != 1:
        what = f"load {load} is unknown" if not rows else f"more than one load begins with {load}"
        raise RegistryError(what, hint="qengine loads lists them")
    return _load(rows[0])


def all_loads(connection: sa.Connection) -> tuple[Load, ...]:
    """Return all loads, oldest first."""
    return tuple(_load(row) for row in connection.execute(sa.select(LOADS).order_by(LOADS.c.number)))


def move(connection: sa.Connection, load: str, to: LoadState, *, error: str = "", snapshot: int | None = None) -> None:
    """Change the state of a load that has not ended. Raise `RegistryError` if it has."""
    check_unfinished(connection, load)
    values: dict[str, Any] = {"state": to.value, "error": error}
    if snapshot is not None:
        values["snapshot"] = snapshot
    if to not in UNFINISHED:
        values["finished"] = now()
    connection.execute(sa.update(LOADS).where(LOADS.c.id == load).values(values))


def note(connection: sa.Connection, load: str, words: Mapping[str, Any]) -> None:
    """Add to the context of a load that has not ended."""
    context = {**check_unfinished(connection, load).context, **words}
    text = json.dumps(context, default=str, ensure_ascii=False)
    connection.execute(sa.update(LOADS).where(LOADS.c.id == load).values(context=text))


def check_unfinished(connection: sa.Connection, load: str) -> Load:
    """Return the load. Raise `RegistryError` if it has ended or was never begun."""
    found = find_load(connection, load)
    if found.state not in UNFINISHED:
        why = f" ({found.error})" if found.error else ""
        raise RegistryError(f"load {load} is {found.state.value}{why}", hint="begin a load first")
    return found


def live_inputs(connection: sa.Connection, catalog: str, table: str = "") -> tuple[InputRecord, ...]:
    """Return the inputs whose rows are in the latest snapshot of the catalogue, or of one table, oldest first."""
    query = sa.select(INPUTS).where(sa.func.lower(INPUTS.c.catalog) == catalog.lower(), INPUTS.c.replaced_by.is_(None))
    if table:
        query = query.where(sa.func.lower(INPUTS.c.table_name) == table.lower())
    return _inputs(connection, query)


def inputs_of(connection: sa.Connection, load: int) -> tuple[InputRecord, ...]:
    """Return what a load has read."""
    return _inputs(connection, sa.select(INPUTS).where(INPUTS.c.load == load))


def all_inputs(connection: sa.Connection) -> tuple[InputRecord, ...]:
    """Return all inputs of all loads, those whose rows are gone too, oldest first."""
    return _inputs(connection, sa.select(INPUTS))


def insert_inputs(connection: sa.Connection, inputs: Sequence[InputRecord]) -> None:
    """Record what a load has read."""
    if inputs:
        connection.execute(sa.insert(INPUTS), [to_row(one) for one in inputs])


def replace_inputs(connection: sa.Connection, replaced: Iterable[InputRecord], by: int) -> None:
    """Record that a load took the rows of these inputs away. Raise `RegistryError` if one is not there."""
    for one in replaced:
        changed = connection.execute(
            sa.update(INPUTS)
            .where(INPUTS.c.load == one.load, INPUTS.c.table_name == one.table, INPUTS.c.number == one.number)
            .values(replaced_by=by)
        )
        if changed.rowcount != 1:
            raise RegistryError(f"input {one.label} of {one.catalog}.{one.table} is not known to the registry")


def to_row(one: InputRecord) -> dict[str, Any]:
    """Return an input as a row of the registry's table."""
    values = asdict(one)
    return {**values, "table_name": values.pop("table")}


def _inputs(connection: sa.Connection, query: sa.Select[Any]) -> tuple[InputRecord, ...]:
    rows = connection.execute(query.order_by(INPUTS.c.load, INPUTS.c.table_name, INPUTS.c.number)).mappings().all()
    found = ({**row, "coverage": bytes(row["coverage"])} for row in rows)
    return tuple(InputRecord(table=values.pop("table_name"), **values) for values in found)


def _next_number(connection: sa.Connection) -> int:
    # Rows of versions before 0003 carry the number of a snapshot instead: a load's must not be one of those.
    highest = [
        connection.execute(sa.select(sa.func.max(column))).scalar_one() or 0 for column in (LOADS.c.number, SNAPSHOTS.c.number)
    ]
    return max(highest) + 1


def _load(row: sa.Row[Any]) -> Load:
    return Load(
        id=row.id, number=row.number, state=LoadState(row.state), catalog=row.catalog, context=json.loads(row.context),
        started=utc(row.started), finished=utc(row.finished) if row.finished else None, error=row.error, snapshot=row.snapshot or 0,
    )  # fmt: skip
