"""What a table's work has come to: records of parts and inputs, the report, and the HATS tree to build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.inputs import InputRecord
from qengine.catalog.joining import take_parts
from qengine.catalog.model import HEALPIX, Int64Array, PartRole, Parts, TableKind, TableSnapshot
from qengine.loader import publish
from qengine.loader.desk import Desk, Made
from qengine.loader.distribute import InputTally
from qengine.loader.filtered import Filtered
from qengine.loader.gaps import leaf_tiles
from qengine.loader.lines import has_neighbours
from qengine.loader.match import Separation
from qengine.loader.request import LoadReport
from qengine.loader.sources.source import Source
from qengine.loader.write import Written, count_rows
from qengine.sky.cells import RangeSet, distinct
from qengine.storage.objects import Store
from qengine.storage.parts import PartFile
from qengine.storage.statistics import PartRecord, part_record

if TYPE_CHECKING:
    from qengine.loader.change import InputSource, TreePlan

_COVERAGE_ORDER = 12
_COVERAGE_RANGES = 256


def records(written: Sequence[Written], role: PartRole, store: Store, line: str, columns: Sequence[str]) -> list[PartRecord]:
    """Return what the footers of the written parts of a role say. The same rows for the same range are one part."""
    unique = {(one.file.digest, one.start): one for one in written if one.role is role}
    return [
        part_record(
            part.file.path, uri=store.uri(part.file.path), digest=part.file.digest, start=part.start, stop=part.stop,
            line_column=line, columns=columns,
        )
        for part in unique.values()
    ]  # fmt: skip


def input_records(inputs: Sequence[InputSource], sources: Sequence[Source], made: Made) -> tuple[InputRecord, ...]:
    """Return the inputs with what was counted of each, and where its rows lie."""
    found = []
    first = 0
    for number, (one, source) in enumerate(zip(inputs, sources, strict=True)):
        tally = made.tally.of_input.get(number, InputTally())
        cells = made.placement.cells[first : first + tally.read] if made.placement is not None else np.empty(0, np.int64)
        first += tally.read
        filtered = source.left_out if isinstance(source, Filtered) else 0
        found.append(
            replace(
                one.record, rows_read=tally.read + filtered, rows_quarantined=tally.quarantined, rows_skipped=tally.skipped,
                rows_filtered=filtered, rows_stored=tally.read - tally.quarantined - tally.skipped, coverage=_coverage(cells),
            )
        )  # fmt: skip
    return tuple(found)


def _coverage(cells: Int64Array) -> bytes:
    """Return ranges that hold all cells, start and stop in turn."""
    shift = 2 * (29 - _COVERAGE_ORDER)
    pixels = distinct(np.asarray(cells[cells >= 0]) >> shift)
    ranges = RangeSet.from_ranges(pixels << shift, (pixels + 1) << shift).coarsen(_COVERAGE_RANGES)
    return np.stack([ranges.starts, ranges.stops], axis=1).astype("<i8").tobytes() if len(ranges) else b""


def report_of(
    desks: Sequence[Desk], made: Sequence[Made], snapshots: Sequence[TableSnapshot], sources: Sequence[Source],
    separation: Separation, seconds: float,
) -> LoadReport:  # fmt: skip
    """Return what was done. Rows of a match table are counted once, its parts in both layouts."""
    desk, first = desks[0], made[0]
    tally, placement = first.tally, first.placement
    written = [one for each in made for one in each.written]
    home = [one for one in first.written if one.role is PartRole.HOME]
    fresh = [one for one in first.written if one not in first.kept.written]
    stored = tally.read - tally.quarantined - tally.skipped
    return LoadReport(
        catalog=desk.table.schema,
        table=desk.table.name,
        load=desk.name,
        snapshot=0,
        read=tally.read + sum(source.left_out for source in sources if isinstance(source, Filtered)),
        stored=stored,
        orphaned=count_rows(fresh, PartRole.ORPHAN),
        without_director=placement.unknown if placement else 0,
        quarantined=tally.quarantined,
        quarantine=desk.store.uri(desk.quarantine) if tally.quarantined else "",
        wrapped=placement.wrapped if placement else 0,
        nan=dict(tally.nan),
        tiles=len(distinct(first.targets.at(np.array([one.start for one in home], np.int64)))) if placement and home else 0,
        parts=sum(one.role is not PartRole.MARGIN for one in written),
        separation_arcsec=separation.largest_deg * 3600,
        margin_rows=count_rows(first.written, PartRole.MARGIN),
        input_bytes=sum(source.identity.bytes for source in sources),
        bytes=sum(one.file.bytes for one in written),
        seconds=seconds,
        filtered=sum(source.left_out for source in sources if isinstance(source, Filtered)),
        skipped=tally.skipped,
        removed=first.kept.gone_rows,
    )


def tree_of(desk: Desk, made: Made, snapshot: TableSnapshot) -> TreePlan | None:
    """Return the HATS tree of all parts: of a match table, that of its first layout. There is none of a table that does not lie on
    the sky, and none in an object store, where a file cannot have two names (an export makes trees)."""
    from qengine.loader.change import TreePlan

    if desk.table.kind is TableKind.REPLICATED or made.placement is None or desk.store.is_far:
        return None
    if not has_neighbours(desk.table):
        return None
    director = desk.definition.director
    is_new = desk.base is None
    written = list(made.written) if is_new else [*_carried(snapshot, desk.store)]
    tiles = leaf_tiles(snapshot.home.start, snapshot.home.stop)
    cells = made.placement.cells
    counts = publish.pixel_counts(cells, publish.map_order(len(cells))) if is_new else _counted(desk, snapshot.home)
    return TreePlan(
        table=snapshot.table, written=tuple(written), schema=made.schema, tiles=tiles, margin_arcsec=snapshot.margin_arcsec,
        counts=counts, facts={"qengine_director_snapshot": str(director.number)} if director else {},
    )  # fmt: skip


def _carried(snapshot: TableSnapshot, store: Store) -> list[Written]:
    """Return all parts of a snapshot as they were when they were written."""
    found = []
    for role, parts in ((PartRole.HOME, snapshot.home), (PartRole.MARGIN, snapshot.margin)):
        columns = (parts.digest.to_pylist(), parts.uri.to_pylist(), parts.rows.tolist(), parts.bytes.tolist())
        for digest, uri, rows, size, start, stop in zip(*columns, parts.start.tolist(), parts.stop.tolist(), strict=True):
            file = PartFile(digest=digest, path=store.path(uri), rows=rows, bytes=size)
            found.append(Written(role=role, start=start, stop=stop, file=file))
    return found


def _counted(desk: Desk, now: Parts) -> Int64Array:
    """Return rows per pixel of the full-sky map: that of the snapshot before, less the cells in parts that went, and with those in
    parts that came; or from the cells in all parts, where there is no such map."""
    rows = int(now.rows.sum())
    order = publish.map_order(rows)
    if (
        desk.base is not None
        and (known := publish.read_counts(desk.folder / "snapshots" / str(desk.base.number), order)) is not None
    ):
        before = desk.base.home
        went = take_parts(before, np.flatnonzero(~pc.is_in(before.uri, now.uri).to_numpy(zero_copy_only=False)))
        came = take_parts(now, np.flatnonzero(~pc.is_in(now.uri, before.uri).to_numpy(zero_copy_only=False)))
        counts = known - _in_parts(went, desk.store, order) + _in_parts(came, desk.store, order)
        if int(counts.sum()) == rows and not (counts < 0).any():
            return counts
    return _in_parts(now, desk.store, order)


def _in_parts(parts: Parts, store: Store, order: int) -> Int64Array:
    counts = np.zeros(12 * 4**order, np.int64)
    for uri in parts.uri.to_pylist():
        counts += publish.pixel_counts(pq.read_table(store.path(uri), columns=[HEALPIX]).column(0).to_numpy(), order)
    return counts
