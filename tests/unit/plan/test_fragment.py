"""Tasks: bounds cover the line, every part and every cell of work is read at home exactly once, rings are complete."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.catalog.model import Catalog, Parts, RowGroups, TableSnapshot
from qengine.plan.cost import CostModel
from qengine.plan.fragment import LeafFragment, Reach, fragment
from qengine.plan.prune import lookups
from qengine.plan.reading import task_inputs
from qengine.sky.cells import BEYOND_END, LINE_END, ORDER, RangeSet
from qengine.sky.coverage import ring
from tests.support.imaginary import survey, tiled_parts
from tests.support.planning import pieces_of, plan_of
from tests.unit.plan.world import World

CATALOG = survey(3)
SMALL = survey(1)
TILE = 4 ** (ORDER - 3)
STATEMENTS = (
    "SELECT objectId FROM dp.Object",
    "SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE({ra}, {dec}, {radius})) = 1",
    "SELECT objectId FROM dp.Object WHERE mag > {radius} + 0 AND mag < 12",
    "SELECT o.objectId FROM dp.Object o JOIN dp.ForcedSource f ON o.objectId = f.objectId WHERE dec > {dec}",
    "SELECT a.objectId FROM dp.Object a JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 WHERE b.dec < {dec}",
    "SELECT objectId FROM dp.Object WHERE objectId IN (1, 2, 3, 4)",
)


def fragments(text: str, catalog: Catalog, cost: CostModel, cells: dict[int | str, int] | None = None) -> tuple[LeafFragment, ...]:
    pieces = pieces_of(text, catalog)
    keys = {lookup: np.array(sorted((cells or {}).values()), np.int64) for leaf in pieces.leaves for lookup in lookups(leaf)}
    return fragment(pieces, keys, (), cost).leaves


@settings(max_examples=40, deadline=None)
@given(
    statement=st.sampled_from(STATEMENTS), ra=st.floats(0, 359), dec=st.floats(-89, 89), radius=st.floats(0.001, 30),
    task_s=st.sampled_from([0.02, 0.1, 1.0, 100.0]), slots=st.integers(1, 500),
    keys=st.lists(st.integers(0, BEYOND_END - 1), min_size=1, max_size=4),
)  # fmt: skip
def test_every_cell_of_work_is_home_to_one_task(
    statement: str, ra: float, dec: float, radius: float, task_s: float, slots: int, keys: list[int]
) -> None:
    text = statement.format(ra=f"{ra:.6f}", dec=f"{dec:.6f}", radius=f"{radius:.6f}")
    cost = CostModel(slots=slots, min_task_s=task_s / 10, max_task_s=task_s)
    (leaf,) = fragments(text, SMALL, cost, dict(enumerate(keys)))
    if leaf.task_count == 0:
        assert not len(leaf.inputs[0].table.home.meeting(leaf.work)) + len(leaf.inputs[0].table.orphan.meeting(leaf.work))
        return
    assert leaf.bounds[0] == 0
    assert leaf.bounds[-1] == BEYOND_END
    assert (np.diff(leaf.bounds) > 0).all()
    assert (leaf.costs > 0).all()
    owner = next(i for i in leaf.inputs if i.alias == leaf.owner)
    wanted = {
        uri
        for parts in (owner.table.home, owner.table.orphan)
        for uri in parts.uri.take(pa.array(parts.meeting(leaf.work))).to_pylist()
    }
    seen: set[str] = set()
    previous = RangeSet.empty()
    for number in range(leaf.task_count):
        inputs = {i.name: i for i in task_inputs(leaf, number)}
        home = inputs[owner.name]
        low, high = int(leaf.bounds[number]), int(leaf.bounds[number + 1])
        seen |= {p.uri for p in home.parts}
        read = RangeSet.from_ranges(*zip(*home.ranges, strict=True)) if home.ranges else _whole(home.parts, owner.table)
        assert not (read & previous), "no cell is home to two tasks"
        previous = previous | read
        mine = leaf.work & RangeSet.from_ranges([low], [high])
        for parts in (owner.table.home, owner.table.orphan):
            met = parts.meeting(mine)
            filled = RangeSet.from_ranges(np.maximum(parts.lowest[met], parts.start[met]), parts.highest[met] + 1)
            assert not (mine & filled) - read, "every cell of the work in which there are rows is read"
    assert seen == wanted


def _whole(parts: tuple, table: TableSnapshot) -> RangeSet:  # type: ignore[type-arg]
    uris = {p.uri for p in parts}
    found = RangeSet.empty()
    for stored in (table.home, table.orphan):
        mine = np.array([u in uris for u in stored.uri.to_pylist()], bool)
        found = found | RangeSet.from_ranges(stored.lowest[mine], stored.highest[mine] + 1)
    return found


def test_other_relations_of_a_task_read_the_same_range() -> None:
    text = (
        "SELECT o.objectId FROM dp.Object o JOIN dp.ForcedSource f ON o.objectId = f.objectId JOIN dp.Filter p ON p.band = f.band"
    )
    (leaf,) = fragments(text, CATALOG, CostModel(slots=4))
    reaches = {i.alias: i.reach for i in leaf.inputs}
    assert reaches == {"o": Reach.HOME, "f": Reach.HOME, "p": Reach.WHOLE}
    for number in (0, leaf.task_count // 2, leaf.task_count - 1):
        objects, forced, bands = task_inputs(leaf, number)
        assert [p.uri for p in objects.parts] == [p.uri for p in forced.parts]
        assert objects.ranges == forced.ranges
        assert len(bands.parts) == 1


@settings(max_examples=25, deadline=None)
@given(radius=st.sampled_from([1e-6, 0.001, 0.5, 5.0, 40.0]), number=st.integers(0, 10**6), dec=st.floats(-80, 80))
def test_rings_are_complete(radius: float, number: int, dec: float) -> None:
    text = (
        "SELECT a.objectId FROM dp.Object a JOIN dp.Object b ON "
        f"DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < {radius:.6f} AND a.dec > {dec:.4f}"
    )
    (leaf,) = fragments(text, CATALOG, CostModel(slots=50))
    chosen = number % leaf.task_count
    near = next(i for i in leaf.inputs if i.alias != leaf.owner)
    found = task_inputs(leaf, chosen)[leaf.inputs.index(near)]
    home = leaf.work & RangeSet.from_ranges([leaf.bounds[chosen]], [leaf.bounds[chosen + 1]]) & RangeSet.sky()
    wanted = home | ring(home, radius)
    assert not wanted - (
        RangeSet.from_ranges(*zip(*found.ranges, strict=True)) if found.ranges else _whole(found.parts, near.table)
    )
    parts = near.table.home
    uris = {p.uri for p in found.parts}
    assert {parts.uri[int(i)].as_py() for i in parts.meeting(wanted)} <= uris
    assert len(uris) == len(found.parts)


def with_margin(table: TableSnapshot, start: list[int], stop: list[int], arcsec: float) -> TableSnapshot:
    count = len(start)
    first, last, ones = np.array(start, np.int64), np.array(stop, np.int64), np.ones(count, np.int64)
    names = pa.array([f"m/{i}" for i in range(count)])
    margin = Parts(
        digest=names, uri=names, rows=ones, bytes=ones, start=first, stop=last, lowest=first, highest=last - 1,
        row_groups=RowGroups(np.arange(count + 1), first, last - 1, ones, ones),
    )  # fmt: skip
    return dataclasses.replace(table, margin=margin, margin_arcsec=arcsec)


NEIGHBOURS = "SELECT a.objectId FROM dp.Object a JOIN dp.Object b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < {r}"


def objects(order: int, parts: Parts | None = None) -> TableSnapshot:
    found = survey(order).find("dp", "Object")
    assert found is not None
    return found if parts is None else dataclasses.replace(found, home=parts)


@pytest.mark.parametrize(("r", "is_used"), [("0.001", True), ("0.01", True), ("0.0100001", False)])
def test_margin_files_serve_whole_tiles_if_they_are_wide_enough(r: str, is_used: bool) -> None:
    table = objects(1)
    table = with_margin(table, table.home.start.tolist(), table.home.stop.tolist(), 36.0)
    (leaf,) = fragments(
        NEIGHBOURS.format(r=r), Catalog((table,)), CostModel(slots=1, max_task_s=1e6, min_task_s=0.0, tasks_per_slot=12)
    )
    assert leaf.task_count > 1
    found = task_inputs(leaf, 0)[1]
    assert bool(found.margin_parts) is is_used
    if is_used:
        assert len(found.margin_parts) == len(found.parts)
        assert sum(b - a for a, b in found.ranges) == int((table.home.stop - table.home.start)[: len(found.parts)].sum())


def test_margin_files_of_a_tile_do_not_serve_a_part_of_it() -> None:
    """A dense tile is stored as several parts; its margin says nothing about neighbours inside the tile."""
    table = objects(1, tiled_parts(3, groups=1))
    tiles = [i * 4 ** (ORDER - 1) for i in range(49)]
    table = with_margin(table, tiles[:-1], tiles[1:], 36.0)
    (leaf,) = fragments(NEIGHBOURS.format(r="0.001"), Catalog((table,)), CostModel(slots=400, min_task_s=1e-9))
    assert leaf.task_count >= 700
    for number in range(0, 700, 100):
        found = task_inputs(leaf, number)[1]
        home = RangeSet.from_ranges([leaf.bounds[number]], [leaf.bounds[number + 1]]) & RangeSet.sky()
        if found.margin_parts:
            covered = [i for i in range(48) if not RangeSet.from_ranges([tiles[i]], [tiles[i + 1]]) - home]
            assert covered, "margins belong to whole tiles"
        else:
            assert not (ring(home, 0.001)) - RangeSet.from_ranges(*zip(*found.ranges, strict=True))


def test_margins_without_rows_do_not_serve_a_part_of_a_tile() -> None:
    """Nothing lies around the tile, so it has no margin file; its parts still are each other's neighbours."""
    start = np.array([0, 1000, TILE], np.int64)
    stop = np.array([1000, TILE, 2 * TILE], np.int64)
    base = tiled_parts(3, count=3)
    parts = dataclasses.replace(base, start=start, stop=stop, lowest=start, highest=stop - 1, row_groups=RowGroups(
        np.arange(4), start, stop - 1, np.full(3, 10**6), np.full(3, 10**7)))  # fmt: skip
    table = with_margin(objects(1, parts), [5 * TILE], [6 * TILE], 36.0)
    (leaf,) = fragments(NEIGHBOURS.format(r="0.001"), Catalog((table,)), CostModel(slots=400, min_task_s=1e-9))
    found = task_inputs(leaf, 0)[1]
    assert {p.uri for p in found.parts} >= {"p/0.parquet", "p/1.parquet"}


# -- attached catalogues ------------------------------------------------------------------------------------------------------


def attached(table: TableSnapshot, **changes: object) -> TableSnapshot:
    return dataclasses.replace(table, table=dataclasses.replace(table.table, **changes))  # type: ignore[arg-type]


def test_tables_without_a_line_column_are_read_by_whole_parts() -> None:
    table = attached(objects(3), line_column="", has_nan=True, is_key_proven=False)
    text = "SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(45, 0, 3)) = 1"
    (leaf,) = fragments(text, Catalog((table,)), CostModel(slots=1000, min_task_s=1e-9))
    assert set(leaf.bounds[1:-1].tolist()) <= set(table.home.start.tolist())
    counted: list[str] = []
    for number in range(leaf.task_count):
        (found,) = task_inputs(leaf, number)
        assert found.ranges == ()
        assert set(found.nan_columns) == {"ra", "dec"}
        counted += [p.uri for p in found.parts]
    assert len(counted) == len(set(counted)) > 1


def test_parts_of_attached_tables_are_not_cut() -> None:
    for has_nan, most in ((True, 768 + 1), (False, 769 * 16)):
        table = attached(objects(3), has_nan=has_nan)
        (leaf,) = fragments("SELECT mag FROM dp.Object", Catalog((table,)), CostModel(slots=10**5, min_task_s=1e-9))
        assert (leaf.task_count > 769) is not has_nan
        assert leaf.task_count <= most


def test_distance_joins_of_tables_without_a_line_column_are_gathered() -> None:
    table = attached(objects(1), line_column="", has_nan=True)
    assert len(fragments(NEIGHBOURS.format(r="0.001"), Catalog((table,)), CostModel())) == 2


# -- how many tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_tasks_are_a_few_for_each_slot(slots: int) -> None:
    cost = CostModel(slots=slots, min_task_s=0.0, max_task_s=1e9, result_bytes=1 << 60)
    (leaf,) = fragments("SELECT * FROM dp.Object", CATALOG, cost)
    assert 0.5 * 6 * slots <= leaf.task_count <= 1.5 * 6 * slots + 2
    assert leaf.costs.max() <= 4 * leaf.costs.mean()


def test_tasks_are_not_smaller_than_dispatch_and_not_larger_than_patience() -> None:
    (small,) = fragments(
        "SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(45, 0, 0.01)) = 1", CATALOG, CostModel(slots=100)
    )
    assert small.task_count <= 4
    cost = CostModel(slots=1)
    (large,) = fragments("SELECT * FROM dp.Object", CATALOG, cost)
    assert large.costs.max() <= 2 * cost.scan_bytes_per_s
    assert large.task_count > 100


def test_fewer_columns_are_less_work() -> None:
    one, many = (fragments(f"SELECT {c} FROM dp.Object", CATALOG, CostModel())[0].estimate for c in ("flags", "*"))
    assert one.rows == many.rows
    assert 4 * one.bytes < many.bytes


def test_replicated_tables_are_one_task() -> None:
    (leaf,) = plan_of("SELECT a.band FROM dp.Filter a, dp.Filter b", CATALOG).leaves
    assert leaf.task_count == 1
    assert leaf.owner == ""
    assert all(len(i.parts) == 1 and not i.ranges for i in task_inputs(leaf, 0))


def test_parts_that_share_a_range_are_read_by_one_task() -> None:
    base = tiled_parts(1, count=8)
    start = np.repeat(base.start[::2], 2)
    parts = dataclasses.replace(base, start=start, stop=np.repeat(base.stop[::2], 2), lowest=start, highest=start + 5, row_groups=RowGroups(
        np.arange(9), start, start + 5, np.full(8, 10**6), np.full(8, 10**8)))  # fmt: skip
    (leaf,) = fragments("SELECT * FROM dp.Object", Catalog((objects(1, parts),)), CostModel(slots=100, min_task_s=1e-9))
    read = [[p.uri for p in task_inputs(leaf, n)[0].parts] for n in range(leaf.task_count)]
    uris = list(itertools.chain(*read))
    assert len([u for u in uris if u.startswith("p/") and u != "p/beyond.parquet"]) == 8
    assert len(set(uris)) == len(uris)


def test_lookups_of_keys_read_single_cells(plan_world: World) -> None:
    (leaf,) = plan_of("SELECT objectId FROM dp.Object WHERE objectId IN (4, 23)", CATALOG, cells={4: 5, 23: 6000}).leaves
    assert [found.ranges for found in task_inputs(leaf, 0)] == [((5, 6), (6000, 6001))]
    (leaf,) = plan_world.plan("SELECT objectId FROM dp.Object WHERE objectId IN (4, 23, -3)").leaves
    ranges = [found.ranges for number in range(leaf.task_count) for found in task_inputs(leaf, number)]
    assert [len(r) for r in ranges] == [1, 0, 0], "the first part has several row groups, the others one, which cannot be skipped"
    ((low, high),) = ranges[0]
    assert high == low + 1


def test_beyond_the_sky_is_read_where_a_coordinate_may_be_null() -> None:
    for where, is_read in (("dec > 5", True), ("ra > 5 AND dec > 5", False), ("mag > 12", True), ("NOT dec > 5", True)):
        (leaf,) = fragments(f"SELECT objectId FROM dp.Object WHERE {where}", CATALOG, CostModel())
        assert bool(leaf.work & (RangeSet.whole() - RangeSet.sky())) is is_read
        last = task_inputs(leaf, leaf.task_count - 1)[0]
        assert ("p/beyond.parquet" in {p.uri for p in last.parts}) is is_read
    assert LINE_END < BEYOND_END
