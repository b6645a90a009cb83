"""Station 6: from cut and pruned leaves to fragments with tasks.

A leaf's tasks are cut along the line at the borders of the owner's parts (and of their row groups where a part alone is more
than a task), so that the ranges of the tasks cover the line without overlap: `bounds[i] <= cell < bounds[i + 1]` are task i's.
What a task reads is a pure function of (fragment, number), computed at dispatch (`plan.reading`): the fragment only holds columns.

How an input reads the line (`Reach`): the owner and relations in the same cells read the task's range; a relation with a
margin reads also the ring around it, from margin files or from the neighbouring parts; replicated relations are read whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from qengine.catalog.model import Int64Array, TableSnapshot
from qengine.catalog.output import OutputColumn
from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.cost import CostModel, used_fraction, width
from qengine.plan.cut import CutQuery, Leaf, pushable_terms
from qengine.plan.exchange import PlannedExchange
from qengine.plan.grids import with_inner_grids
from qengine.plan.keylists import KeyList, key_lists
from qengine.plan.loops import MOST_PAIRS, loops
from qengine.plan.nearby import NearRows, near_rows
from qengine.plan.physical import SkyJoin
from qengine.plan.prune import Resolved, work_of
from qengine.plan.selectivity import guess_rows
from qengine.plan.skyjoin import grid_edges, grid_join
from qengine.plan.skypairs import sky_pairs
from qengine.plan.top import TopOrder, alone, narrowed, order_of, top_of
from qengine.sky.cells import BEYOND_END, RangeSet
from qengine.sql.render import render
from qengine.sql.trees import copy_tree, find

FINE_PARTS = 20_000
"""A fragment that meets more parts than this is cut at borders of parts only."""


class Reach(Enum):
    """How much of the line an input reads for a task."""

    HOME = "home"
    RING = "ring"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafInput:
    """One relation of a leaf: the table that it reads, the columns that the SQL uses, and how far it reaches. Of a large table that
    is already here each task may need what is `near` it only."""

    name: str
    alias: str
    table: TableSnapshot
    columns: tuple[str, ...]
    types: tuple[str, ...]
    reach: Reach
    margin_deg: float = 0.0
    near: NearRows | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a fragment will read. `parts_total` counts the owner's parts in the snapshot, `pairs` the rows that are compared one by
    one (`plan.loops`)."""

    parts: int
    parts_total: int
    row_groups: int
    rows: int
    bytes: int
    pairs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafFragment:
    """The same SELECT on every task's range. `bounds` has shape (tasks + 1,), `costs` (tasks,) in bytes; `work` are the cells that
    pruning left. `leaf` is what it was made of, for EXPLAIN and estimates."""

    number: int
    relation: str
    kind: str
    gathered: str
    owner: str
    sql: str
    columns: tuple[tuple[str, SqlType], ...]
    inputs: tuple[LeafInput, ...]
    work: RangeSet
    bounds: Int64Array
    costs: Int64Array
    row_limit: int | None
    estimate: Estimate
    leaf: Leaf
    sky_joins: tuple[SkyJoin, ...] = ()
    top: TopOrder | None = None
    key_lists: tuple[KeyList, ...] = ()

    @property
    def task_count(self) -> int:
        return len(self.costs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalPlan:
    """Everything that dispatch needs. `final_sql` is None when the rows of the only leaf are the answer. When leaves write
    partitions because their rows are large, `exchange` says what runs instead of `final_sql` (`plan.exchange`)."""

    leaves: tuple[LeafFragment, ...]
    final_sql: str | None
    inline: tuple[tuple[str, TableSnapshot], ...]
    columns: tuple[OutputColumn, ...]
    cost: CostModel
    exchange: PlannedExchange | None = None

    @property
    def tasks(self) -> int:
        return sum(leaf.task_count for leaf in self.leaves)


def fragment(
    cut_query: CutQuery, resolved: Resolved, columns: tuple[OutputColumn, ...], cost: CostModel, *, first: int = 0
) -> PhysicalPlan:
    """Make the physical plan of a cut statement whose key lookups are resolved. Fragments are numbered from `first`."""
    final = None if cut_query.is_passthrough else render(cut_query.final)
    leaves = tuple(_leaf_fragment(leaf, resolved, cost, first) for leaf in cut_query.leaves)
    return PhysicalPlan(leaves=leaves, final_sql=final, inline=cut_query.inline, columns=columns, cost=cost)


def task_sql(leaf: LeafFragment, number: int) -> str:
    """Return what task `number` of the fragment runs: the fragment's SQL with the keys of its own cells only."""
    sql = leaf.sql
    for found in leaf.key_lists:
        sql = sql.replace(found.text, found.within(int(leaf.bounds[number]), int(leaf.bounds[number + 1])))
    return sql


# -- fragments -------------------------------------------------------------------------------------------


def _leaf_fragment(leaf: Leaf, resolved: Resolved, cost: CostModel, first: int) -> LeafFragment:
    select, inside = leaf.split.leaf, 0
    edges = grid_edges(leaf.block, leaf.locality.owner)
    tables = {t.alias_or_name: leaf.block.table_of(t.alias_or_name) for t in find(select, exp.Table) if t.db}
    known = {a: t for a, t in tables.items() if t is not None}
    pairs = sky_pairs(select, known, [{e.home, e.expanded} for e in edges]) if len(known) > 1 else None
    if pairs is not None:
        select = pairs.tree
    else:
        select, inside = with_inner_grids(select, leaf.block)
        if edges:
            pushed = {alias: pushable_terms(leaf.block, alias) for e in edges for alias in (e.home, e.expanded)}
            select = grid_join(select, edges, pushed)
    inputs, tree = _bind_inputs(leaf, select)
    tree, sky_joins = pairs.take_out(tree) if pairs is not None else (tree, ())
    work = work_of(leaf, resolved) if leaf.locality.owner else RangeSet.whole()
    spec, begins = top_of(leaf), None
    if spec is not None:
        work = narrowed(spec, work)
        begins = alone(spec, work, cost.slots)
    is_heavy = bool(edges) or inside > 0 or pairs is not None
    bounds, costs, estimate = _cut_tasks(
        leaf, inputs, work, cost, is_heavy=is_heavy, slack=1 if pairs is None else 2, begins=begins
    )
    if len(costs) > 1:
        inputs = tuple(_narrowed(leaf, inputs, i, cost) for i in inputs)
    sql = render(tree, is_given_up=True)
    at_home = {i.alias for i in inputs if i.reach is Reach.HOME}
    return LeafFragment(
        number=first + leaf.number, relation=leaf.relation, kind=leaf.split.kind, gathered=leaf.gathered, owner=leaf.locality.owner,
        sql=sql, columns=leaf.split.columns, inputs=inputs, work=work, bounds=bounds, costs=costs,
        row_limit=leaf.split.row_limit, estimate=estimate, leaf=leaf, sky_joins=sky_joins,
        top=order_of(spec, work, bounds) if spec is not None and len(costs) > 1 else None,
        key_lists=key_lists(leaf, select, at_home, resolved, sql) if len(costs) > 1 else (),
    )  # fmt: skip


def _bind_inputs(leaf: Leaf, select: exp.Select) -> tuple[tuple[LeafInput, ...], exp.Select]:
    tree = copy_tree(select)
    named = find(select, exp.Column)
    inputs = []
    for number, item in enumerate([t for t in find(tree, exp.Table) if t.db]):
        alias = item.alias_or_name
        table = leaf.block.table_of(alias)
        if table is None:
            continue
        used = {c.name for c in named if c.table == alias}
        columns = [c for c in table.table.columns if c.name in used]
        margin = leaf.locality.margin_deg.get(alias, 0.0)
        reach = Reach.WHOLE if not table.table.is_sharded else Reach.RING if margin > 0 else Reach.HOME
        name = f"t{number}"
        item.replace(terms.table_node(name, alias))
        inputs.append(
            LeafInput(
                name=name, alias=alias, table=table, columns=tuple(c.name for c in columns),
                types=tuple(c.type.name for c in columns), reach=reach, margin_deg=margin,
            )
        )  # fmt: skip
    return tuple(inputs), tree


def _narrowed(leaf: Leaf, inputs: tuple[LeafInput, ...], i: LeafInput, cost: CostModel) -> LeafInput:
    """Return an input of a table that is already here with what each task needs of it."""
    if i.table.inline is None or sum(other.alias == i.alias for other in inputs) > 1:
        return i
    return replace(i, near=near_rows(leaf, i.alias, cost))


def _cut_tasks(
    leaf: Leaf,
    inputs: tuple[LeafInput, ...],
    work: RangeSet,
    cost: CostModel,
    *,
    is_heavy: bool,
    slack: int,
    begins: Int64Array | None,
) -> tuple[Int64Array, Int64Array, Estimate]:
    """Return bounds, costs and the estimate. Without an owner there is one task over everything. Parts up to `slack` times a task
    are not cut: a whole tile has its ring in one margin file. A fragment of several tasks has further ones at `begins`."""
    owner = next((i for i in inputs if i.alias == leaf.locality.owner), None)
    if owner is None:
        size = sum(int(i.table.home.bytes.sum() * used_fraction(i.table.table, i.columns)) for i in inputs)
        most = max((i.table.rows for i in inputs), default=1)
        read = sum(len(i.table.home) for i in inputs)
        whole = np.array([0, BEYOND_END], np.int64)
        looped = loops(leaf.block, {i.alias: _rows(i) for i in inputs if i.table.rows < most})
        estimate = Estimate(
            parts=read, parts_total=read, row_groups=read, rows=most, bytes=size, pairs=int(min(most * looped, MOST_PAIRS))
        )
        return whole, np.array([size], np.int64), estimate
    pieces = _pieces(owner, work)
    sizes = pieces.bytes.copy()
    held = int(pieces.rows.sum()) * _row_bytes(owner)
    for other in inputs:
        if other is not owner and other.reach is not Reach.WHOLE and len(sizes):
            more = _pieces(other, work)
            held += int(more.rows.sum()) * _row_bytes(other)
            place = np.maximum(np.searchsorted(pieces.starts, more.starts, side="right") - 1, 0)
            np.add.at(sizes, place, more.bytes)
    looped = loops(leaf.block, {i.alias: _rows(i) for i in inputs if i.reach is Reach.WHOLE})
    pairs = np.minimum(pieces.rows * (looped if looped > 1 else 0.0), MOST_PAIRS / max(len(sizes), 1))
    estimate = Estimate(
        parts=pieces.parts,
        parts_total=len(owner.table.home) + len(owner.table.orphan),
        row_groups=pieces.row_groups,
        rows=int(pieces.rows.sum()),
        bytes=int(sizes.sum()),
        pairs=int(pairs.sum()),
    )
    if not len(sizes):
        return np.zeros(1, np.int64), np.zeros(0, np.int64), estimate
    costs = sizes + pieces.is_border * cost.part_bytes + cost.bytes_of_pairs(pairs)
    total, result = int(costs.sum()), _result_bytes(leaf, work, estimate.rows)
    held = held if is_heavy else 0
    target = cost.task_bytes(total, is_heavy=is_heavy, result=result, held=held)
    beside = [i for i in inputs if i is not owner and i.reach is Reach.HOME]
    cuts = _cuts(owner, pieces, costs, slack * target, beside)
    costs = np.add.reduceat(costs, cuts)
    number = np.searchsorted(cost.cuts(total, is_heavy=is_heavy, result=result, held=held), np.cumsum(costs) - costs, side="right")
    is_first = np.r_[True, number[1:] != number[:-1]]
    if begins is not None and is_first.sum() > 1:
        is_first |= np.isin(pieces.starts[cuts], begins)
    first = np.flatnonzero(is_first)
    bounds = np.r_[pieces.starts[cuts][first], BEYOND_END].astype(np.int64)
    bounds[0] = 0
    return bounds, np.add.reduceat(costs, first), estimate


def _rows(i: LeafInput) -> int:
    return i.table.rows or i.table.expected_rows


def _row_bytes(i: LeafInput) -> int:
    return sum(width(column.type) for column in i.table.table.columns if column.name in i.columns)


def _result_bytes(leaf: Leaf, work: RangeSet, rows: int) -> int:
    """Return about how many bytes of rows the tasks send that put their rows out one by one; 0 for those that condense them."""
    made = leaf.split.leaf
    if leaf.split.kind not in ("rows", "gather") or made.args.get("limit") is not None or made.args.get("distinct") is not None:
        return 0
    return guess_rows(leaf, work, rows, 1) * sum(width(found) for _, found in leaf.split.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """The smallest pieces at which an input may be cut, sorted by `starts`: row groups, or whole parts. `is_border` marks the first
    piece of each part. All arrays have shape (pieces,)."""

    starts: Int64Array
    bytes: Int64Array
    rows: Int64Array
    is_border: NDArray[np.bool_]
    parts: int
    row_groups: int


def _pieces(i: LeafInput, work: RangeSet) -> _Pieces:
    """Return the pieces of the input that meet the work; whole parts if they are many or have no line column."""
    fraction = used_fraction(i.table.table, i.columns)
    starts: list[Int64Array] = []
    sizes: list[Int64Array] = []
    rows: list[Int64Array] = []
    borders: list[NDArray[np.bool_]] = []
    groups = count = 0
    for parts in (i.table.home, i.table.orphan):
        selected = parts.meeting(work)
        count += len(selected)
        if not len(selected):
            continue
        offset = parts.row_groups.offset
        per_part = offset[selected + 1] - offset[selected]
        if not i.table.table.line_column or len(selected) > FINE_PARTS or not per_part.all():
            starts.append(parts.start[selected])
            sizes.append(parts.bytes[selected])
            rows.append(parts.rows[selected])
            borders.append(np.ones(len(selected), bool))
            groups += int(per_part.sum())
            continue
        begins = np.r_[0, np.cumsum(per_part)[:-1]]
        index = np.repeat(offset[selected] - begins, per_part) + np.arange(int(per_part.sum()))
        lowest = np.maximum(parts.row_groups.lowest[index], np.repeat(parts.start[selected], per_part))
        lowest[begins] = parts.start[selected]
        meets = work.overlaps(lowest, np.maximum(parts.row_groups.highest[index], lowest) + 1)
        owned = np.repeat(np.arange(len(selected)), per_part)[meets]
        starts.append(lowest[meets])
        sizes.append(parts.row_groups.bytes[index][meets])
        rows.append(parts.row_groups.rows[index][meets])
        borders.append(np.r_[True, owned[1:] != owned[:-1]] if len(owned) else np.zeros(0, bool))
        groups += int(meets.sum())
    if not starts:
        none = np.zeros(0, np.int64)
        return _Pieces(starts=none, bytes=none, rows=none, is_border=np.zeros(0, bool), parts=count, row_groups=0)
    along = np.argsort(np.concatenate(starts), kind="stable")
    return _Pieces(
        starts=np.concatenate(starts)[along],
        bytes=(np.concatenate(sizes)[along] * fraction).astype(np.int64),
        rows=np.concatenate(rows)[along],
        is_border=np.concatenate(borders)[along],
        parts=count,
        row_groups=groups,
    )


def _is_between_parts(table: TableSnapshot, cells: Int64Array) -> NDArray[np.bool_]:
    """Say for each cell whether it is no part's inner cell: each part of the table begins there or later, or ends before."""
    is_between = np.ones(len(cells), bool)
    for parts in (table.home, table.orphan):
        if len(parts):
            before = np.searchsorted(parts.start, cells, side="left") - 1
            is_between &= (before < 0) | (parts.stop[np.maximum(before, 0)] <= cells)
    return is_between


def _cuts(owner: LeafInput, pieces: _Pieces, costs: Int64Array, target: int, beside: Sequence[LeafInput]) -> Int64Array:
    """Return the indexes of pieces at which a task may begin, from best to worst: borders of parts of all inputs in the same cells
    (nothing has to be filtered by cell then, and DuckDB knows the sizes of what it joins), borders of the owner's parts, and
    borders of row groups; the finer ones only inside pieces that are larger than a task. Attached catalogues may hold rows outside
    their tile, so their parts are never cut."""
    is_new = np.r_[True, pieces.starts[1:] != pieces.starts[:-1]]
    begins = np.flatnonzero(pieces.is_border & is_new)
    if not len(begins) or begins[0] != 0:
        begins = np.r_[0, begins]
    is_common = np.ones(len(begins), bool)
    for other in beside:
        is_common &= _is_between_parts(other.table, pieces.starts[begins])
    is_common[0] = True
    if not is_common.all():
        common = begins[is_common]
        is_large = np.repeat(np.add.reduceat(costs, common) > target, np.diff(np.r_[common, len(costs)]))
        begins = begins[is_common | is_large[begins]]
    if owner.table.table.has_nan or not owner.table.table.line_column:
        return begins
    per_part = np.add.reduceat(costs, begins)
    large = np.repeat(per_part > target, np.diff(np.r_[begins, len(costs)]))
    if not large.any():
        return begins
    is_begin = large & is_new
    is_begin[begins] = True
    return np.flatnonzero(is_begin)
