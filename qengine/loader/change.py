"""From inputs to the tables of the next snapshot: what a commit does between its base and the publish.

`change_tables` takes what every table of a transaction is to become (`TableChange`) and returns the new snapshots of these tables
(`TableResult`), with all their parts on disk. It reads the base, the inputs and the store, and knows neither registry nor
journal; so it can be done again, by another process, with the same result. Directors come before the tables that lie where
their rows lie: these follow when rows of their director come, go or move, whether they have inputs of their own or not.

`loader.table_run` says what is done to one table. A match table is worked on twice, once for each of its layouts.

Memory is bounded by `LoadRequest.memory_bytes`, whatever the size of the inputs; the same inputs give the same parts, byte for
byte.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.catalog.evolution import evolved_parts
from qengine.catalog.inputs import InputRecord
from qengine.catalog.joining import join_parts
from qengine.catalog.model import LAYOUT, Catalog, Int64Array, PartRole, Table, TableKind, TableSnapshot
from qengine.catalog.pairs import moved
from qengine.errors import ConfigError, SchemaError
from qengine.loader import children
from qengine.loader.definition import Definition, define_for, without_parts
from qengine.loader.desk import Desk, Follow, Made, Work
from qengine.loader.executor import Executor
from qengine.loader.filtered import Filtered
from qengine.loader.match import Pairing, Separation
from qengine.loader.partition import Tiles
from qengine.loader.progress import for_table
from qengine.loader.request import LoadReport, LoadRequest, OnDuplicate, Progress
from qengine.loader.result import input_records, records, report_of, tree_of
from qengine.loader.sources.source import Source
from qengine.loader.table_run import TableRun
from qengine.loader.write import Written
from qengine.sky.cells import RangeSet
from qengine.storage.objects import Store
from qengine.storage.parts import sync_parts
from qengine.storage.statistics import to_parts

_OWN_PLACES = (TableKind.DIRECTOR, TableKind.SERIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """An input at work: the rows, and what the registry will keep of it; its number is that of the hidden column `_input`."""

    source: Source
    record: InputRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """What a table is to become: `inputs` are added as `request` says, and rows of the inputs `replaced` go away.

    `is_compact` asks for ranges with many or small parts to be rewritten. (Pairs whose directors in other catalogues have changed
    are placed anew whenever their table is changed, for whatever reason.)
    """

    request: LoadRequest
    inputs: tuple[InputSource, ...]
    replaced: tuple[InputRecord, ...] = ()
    is_compact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePlan:
    """What `publish.stage_tree` needs to build the HATS tree of a table."""

    table: Table
    written: tuple[Written, ...]
    schema: pa.Schema
    tiles: Tiles
    margin_arcsec: float
    counts: Int64Array
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableResult:
    """What a table has become: its snapshots (two for a match table, one for each layout), what was read, the report (numbers
    of load
    and snapshot come later) and the HATS tree to build, None where there is none."""

    snapshots: tuple[TableSnapshot, ...]
    inputs: tuple[InputRecord, ...]
    report: LoadReport
    tree: TreePlan | None


def change_tables(
    changes: Sequence[TableChange], base: Catalog, *, load: int, name: str, store: Store, folder: Path,
    progress: Progress | None = None, executor: Executor | None = None,
) -> tuple[TableResult, ...]:  # fmt: skip
    """Write the parts of all changes and return what the tables have become, and those that follow.

    `load` and `name` are number and id of the load; `folder` is for scratch and for what a later attempt may go on with. Heavy
    tasks go to the `executor` if there is one; what comes out is the same.
    Raise `InputError` for inputs that cannot be taken, `SchemaError` or `ConfigError` for a definition that does not fit them,
    `DuplicateKeyError` if a key is not unique or there already, `ConflictError` if the table cannot be changed.
    """
    report = progress or _silent
    results: list[TableResult] = []
    views: dict[str, Table] = {}
    follows: dict[str, Follow] = {}
    catalog = base
    pending = list(changes)
    while pending:
        change = pending.pop(0)
        began = time.monotonic()
        definition = define_for(change.request, [one.source for one in change.inputs], catalog)
        _check_upsert(change.request, definition.table)
        fitted = [definition.fit(one.source) for one in change.inputs]
        condition = change.request.filter
        sources: list[Source] = [Filtered(one, condition) for one in fitted] if condition else list(fitted)
        views |= {view.full_name: view for view in definition.views}
        work = Work(
            request=change.request, sources=tuple(sources), codes=_codes(change.replaced),
            ranges=_ranges(change.replaced) if definition.table.kind in _OWN_PLACES else RangeSet.whole(),
            is_compact=change.is_compact,
        )  # fmt: skip
        is_moved = definition.previous is not None and bool(moved(definition.previous, catalog))
        separation = Separation.of(definition.previous, is_moved=is_moved)
        layouts = [definition, *([definition.other] if definition.other is not None else [])]
        desks = [
            Desk.of(
                _for_layout(work, layouts, number, base, follows, separation, is_moved=is_moved), each, store,
                folder / change.request.table / str(number), name=name, number=load,
                progress=for_table(report, definition.table.name, _row_bytes(sources)), executor=executor,
            )
            for number, each in enumerate(layouts)
        ]  # fmt: skip
        made = [TableRun(desk, separation).run() for desk in desks]
        snapshots = tuple(_snapshot(desk, one, separation) for desk, one in zip(desks, made, strict=True))
        results.append(
            TableResult(
                snapshots=snapshots,
                inputs=input_records(change.inputs, sources, made[0]),
                report=report_of(desks, made, snapshots, sources, separation, time.monotonic() - began),
                tree=tree_of(desks[0], made[0], snapshots[0]),
            )
        )
        catalog = Catalog((*(one for one in catalog if not _is_among(one, snapshots)), *snapshots))
        follow = made[0].follow
        if follow is not None and (follow.has_come or len(follow.keys)) and definition.previous is not None:
            follows[definition.table.family] = follow
            pending += _followers(definition.table, base, [*changes, *pending], change.request)
    if results and views:
        last = results[-1]
        results[-1] = replace(last, snapshots=(*last.snapshots, *(without_parts(view) for view in views.values())))
    return tuple(results)


def _row_bytes(sources: Sequence[Source]) -> float:
    rows = sum(source.rows for source in sources)
    return sum(source.identity.bytes for source in sources) / rows if rows else 0.0


def _check_upsert(request: LoadRequest, table: Table) -> None:
    """Raise `ConfigError` if keys are to be compared that are not known to be unique."""
    if request.on_duplicate is not OnDuplicate.ERROR and (table.kind not in _OWN_PLACES or not table.key):
        raise ConfigError(
            f"{table.full_name} has no index of unique keys, so --on-duplicate cannot be kept",
            hint="directors and series with a key have one; rows of other tables are replaced by input: load it again by its label",
        )


def _for_layout(
    work: Work, layouts: Sequence[Definition], number: int, base: Catalog, follows: Mapping[str, Follow], separation: Separation, *,
    is_moved: bool,
) -> Work:  # fmt: skip
    """Return the work as it is for one layout of a table: what it has to follow."""
    own = layouts[number]
    if own.director is None:
        return work
    work = replace(work, follow=follows.get(own.table.family))
    if len(layouts) == 1:
        return work
    other = layouts[1 - number]
    before = [base.find(one.director.table.schema, one.director.table.name) for one in (own, other) if one.director is not None]
    pairing = Pairing(
        own_before=before[0].key_index if before[0] is not None else None, own_now=own.director.key_index,
        other_before=before[1].key_index if before[1] is not None else None,
        other_now=other.director.key_index if other.director is not None else None, other_key=other.table.director_key,
        is_second=number > 0, separation=separation, is_whole=is_moved,
    )  # fmt: skip
    if is_moved:
        arrow = children.family_key_type(own.director, own.columns.field(own.table.director_key))
        work = replace(work, follow=Follow.whole(work.follow, arrow))
    return replace(work, pairing=pairing)


def _followers(director: Table, base: Catalog, known: Sequence[TableChange], request: LoadRequest) -> list[TableChange]:
    """Return changes without inputs for the tables that lie where the director's rows lie and are not changed anyway."""
    changed = {one.request.table.lower() for one in known}
    found = []
    for one in base:
        table = one.table
        in_family = table.family == director.family or (table.match is not None and table.match.family == director.family)
        if not in_family or table.name.endswith(LAYOUT) or table.kind is TableKind.DIRECTOR or table.schema != director.schema:
            continue
        if table.name.lower() not in changed:
            sides = (f"{table.family}.{table.director_key}", f"{table.match.family}.{table.match.key}") if table.match else ("", "")
            asked = LoadRequest(
                catalog=table.schema, table=table.name, left=sides[0], right=sides[1],
                allow_orphans=request.allow_orphans, workers=request.workers,
                memory_bytes=request.memory_bytes,
            )  # fmt: skip
            found.append(TableChange(request=asked, inputs=()))
    return found


def _codes(replaced: Sequence[InputRecord]) -> pa.Array:
    return pa.array(sorted((one.load << 32) + one.number for one in replaced), pa.int64())


def _ranges(replaced: Sequence[InputRecord]) -> RangeSet:
    """Return where a director's rows of these inputs lie; everywhere if one of them does not say. (Rows of a child may have moved
    since.)"""
    found = RangeSet.empty()
    for one in replaced:
        bounds = np.frombuffer(one.coverage, "<i8")
        if one.rows_stored and not len(bounds):
            return RangeSet.whole()
        found = found | RangeSet.from_ranges(bounds[0::2].astype(np.int64), bounds[1::2].astype(np.int64))
    return found


def _snapshot(desk: Desk, made: Made, separation: Separation) -> TableSnapshot:
    """Return the table as it will be published; its files are in the store for good."""
    definition, store = desk.definition, desk.store
    table = separation.measured(desk.table)
    if desk.work.is_compact:
        table = replace(table, dropped=())  # no part has these columns any more
    visible = table.bounded
    kept = made.kept
    carried = {role: kept.parts(role) for role in PartRole}
    if desk.base is not None:
        carried = {role: evolved_parts(parts, desk.base.table, table) for role, parts in carried.items()}
    home, orphan, margins = (
        join_parts([carried[role], to_parts(records(made.written, role, store, table.line_column, visible))])
        for role in (PartRole.HOME, PartRole.ORPHAN, PartRole.MARGIN)
    )
    snapshot = TableSnapshot(
        table=table, number=0, home=home, orphan=orphan, margin=margins, margin_arcsec=definition.margin_arcsec,
        key_index=made.key_index,
    )  # fmt: skip
    before = desk.base.rows if desk.base is not None else 0
    expected = before - kept.gone_rows + made.tally.read - made.tally.quarantined - made.tally.skipped
    if snapshot.rows != expected:
        raise SchemaError(f"{table.full_name}: {expected:,} rows should be stored, but {snapshot.rows:,} are")
    index = made.key_index.uri if made.key_index else ()
    files = [*(part.file.path for part in made.written), *(store.root / uri for uri in index)]
    if store.is_far:
        # what is carried over is in the object store, and need not be here
        files = [path for path in dict.fromkeys([*files, desk.quarantine]) if path.is_file()]
    sync_parts([path for path in files if path != desk.quarantine])
    store.keep(files)
    return snapshot


def _is_among(one: TableSnapshot, others: Sequence[TableSnapshot]) -> bool:
    return any(one.table.full_name.lower() == other.table.full_name.lower() for other in others)


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total
