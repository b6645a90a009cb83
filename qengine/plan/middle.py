"""Blocks of the final part that can be computed per hash partition, on workers instead of the coordinator.

After cutting, the final part is a statement over the rows of leaves. Gathering them is right for small relations and hopeless for
large ones. A *middle* is one SELECT block of it whose rows fall into independent groups: if all rows with equal values of some
columns are in one partition, the block can be computed partition by partition, and the union of the results is its answer. The
leaves then write their rows in partitions (`plan.physical.Partitioning`), workers exchange them, and each runs the block on some
partitions. Which columns?

* One relation, GROUP BY: its group columns (those in every PARTITION BY, if there are windows over the groups). HAVING, DISTINCT
  aggregates and medians see whole groups.
* One relation, windows: columns common to every PARTITION BY. QUALIFY included.
* One relation, DISTINCT: its output columns.
* One relation, COUNT(DISTINCT x) without groups: x. Each partition counts its own values and the counts add up.
* Several relations, joined (inner, left, right, full): for each the column that an equality ties to an earlier one's, all of one
  class. A row finds its matches where its own key lies; a row with a NULL key matches nothing and is kept, where it is kept, once.
  What follows the join is computed there too if the groups or windows contain the key of a relation that no outer join fills with
  NULLs; else it is split like a leaf (`plan.split`).

ORDER BY and LIMIT remain behind, and go into the partition too where that is an economy.

The final part keeps its meaning: `Exchange.final` reads the relations of middles, and the original final part, over gathered rows,
gives the same answer. Which of both runs is decided when the true sizes are known.

*Equal values must meet*, so both sides of a join are hashed in one type in which values that SQL calls equal are equal
(`plan.ties.meeting_types`).

*A partition may be lost and made again*, and consumers that have read the others are not run again. So the same row must come
into the same partition each time: leaves with LIMIT, random numbers, or windows, and keys that are aggregates, are gathered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.cut import CutQuery, Leaf, free_prefix
from qengine.plan.nesting import aggregates_of, has_plain_groups, windows_of
from qengine.plan.split import is_mergeable, limit_of, split, split_counts
from qengine.plan.ties import filled_aliases, key_ties, meeting_types
from qengine.sql.trees import copy_tree, find, nodes_of

Keys = tuple[tuple[str, str], ...]
"""Columns of a relation and the DuckDB types in which they are hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """One block that runs per partition. `select` reads the relations `keys` names, by leaf number, and its rows are `relation`."""

    relation: str
    kind: str
    select: exp.Select
    keys: Mapping[int, Keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What of a cut statement can run per partition, and the final part over the results."""

    middles: tuple[Middle, ...]
    final: exp.Query


def find_exchange(pieces: CutQuery, wanted: frozenset[int]) -> Exchange | None:
    """Return the blocks that read a leaf in `wanted` (numbers of leaves that may be large) and can run per partition."""
    if pieces.is_passthrough or not wanted:
        return None
    taken = {name.lower() for n in nodes_of(pieces.final) if isinstance(n, (exp.Table, exp.TableAlias)) and (name := n.name)}
    work = _Finding(
        leaves={leaf.relation: leaf for leaf in pieces.leaves}, wanted=wanted, prefix=free_prefix("m", taken), middles=[]
    )
    final = work.visit(copy_tree(pieces.final))
    return Exchange(middles=tuple(work.middles), final=final) if work.middles else None


@dataclass(slots=True)
class _Finding:
    """The middles found so far."""

    leaves: Mapping[str, Leaf]
    wanted: frozenset[int]
    prefix: str
    middles: list[Middle]

    def visit(self, query: exp.Query) -> exp.Query:
        """Return what stands for `query` when its middles run on workers."""
        if isinstance(query, exp.Select) and (found := self._middle(query)) is not None:
            return found
        self._descend(query)
        return query

    def _descend(self, node: exp.Expr) -> None:
        for child in list(node.iter_expressions()):
            if isinstance(child, (exp.Select, exp.SetOperation)):
                replacement = self.visit(child)
                if replacement is not child:
                    child.replace(replacement)
            else:
                self._descend(child)

    def _middle(self, select: exp.Select) -> exp.Select | None:
        sources = self._sources(select)
        if sources is None or not any(leaf.number in self.wanted for leaf in sources.values()):
            return None
        relation = f"{self.prefix}{len(self.middles)}"
        found = _one(select, next(iter(sources)), relation) if len(sources) == 1 else _joined(select, relation)
        if found is None:
            return None
        kind, middle, final, columns = found
        keys: dict[int, Keys] = {}
        meeting = meeting_types([_types(sources[alias], names) for alias, names in columns.items()])
        if meeting is None:
            return None
        for alias, names in columns.items():
            leaf = sources[alias]
            if not _is_steady(leaf, names):
                return None
            keys[leaf.number] = tuple(zip(names, meeting, strict=True))
        self.middles.append(Middle(relation=relation, kind=kind, select=middle, keys=keys))
        return final

    def _sources(self, select: exp.Select) -> dict[str, Leaf] | None:
        """Return the leaves that the block reads, by alias; None if it reads anything else."""
        if any(select.args.get(clause) for clause in ("with_", "laterals", "windows", "sample")):
            return None
        sources: dict[str, Leaf] = {}
        inner: set[int] = set()
        for item, _ in terms.from_items(select):
            table = _table_below(item)
            if table is None or table.db or (leaf := self.leaves.get(table.name)) is None:
                return None
            if item is not table:
                inner.add(id(item.this))
            sources[item.alias_or_name] = leaf
        queries = (n for n in nodes_of(select) if isinstance(n, (exp.Select, exp.SetOperation)) and n is not select)
        if not sources or any(id(n) not in inner for n in queries) or (inner and len(sources) > 1):
            return None
        if any(c.table not in sources for c in find(select, exp.Column)) or any(map(terms.is_random, nodes_of(select))):
            return None
        return sources


# -- one relation ----------------------------------------------------------------------------------------

_Found = tuple[str, exp.Select, exp.Select, Mapping[str, tuple[str, ...]]]
"""Kind, the half for partitions, the half for the final part, and the key columns of each relation."""


def _one(select: exp.Select, alias: str, relation: str) -> _Found | None:
    names = _own_columns(select, alias)
    if not names:
        return None
    if names == _COUNTED:
        column = _counted(select)
        assert column is not None
        parts = split_counts(select, relation)
        return "count distinct", parts.leaf, parts.final, {alias: (column.name,)}
    middle, final = _whole(select, relation, {(alias, name) for name in names})
    kind = "groups" if select.args.get("group") else "windows" if windows_of(select) else "distinct"
    return kind, middle, final, {alias: names}


_COUNTED = ("",)


def _own_columns(select: exp.Select, alias: str) -> tuple[str, ...]:
    """Return the columns by which the rows of a block over one relation fall apart; none if there are none."""
    group = select.args.get("group")
    windows = windows_of(select)
    if isinstance(select.args.get("distinct"), exp.Distinct) and select.args["distinct"].args.get("on"):
        return ()
    if group is not None:
        if not has_plain_groups(select):
            return ()
        return _common([_names(group.expressions, alias), *_partitions(windows, alias)])
    if aggregates_of(select) or select.args.get("having"):
        return _COUNTED if not windows and _counted(select) is not None else ()
    if any(
        isinstance(n, exp.AggFunc) and not isinstance(n.parent, (exp.Window, exp.IgnoreNulls, exp.Filter)) for n in nodes_of(select)
    ):
        return ()  # merged partial aggregates: one row comes out
    if windows:
        return _common(_partitions(windows, alias))
    if select.args.get("distinct") is not None:
        return _names([item.unalias() for item in select.expressions], alias)
    return ()


def _names(nodes: Iterable[exp.Expr], alias: str) -> tuple[str, ...]:
    found = (terms.plain_column(node) for node in nodes)
    return tuple(dict.fromkeys(place[1] for place in found if place is not None and place[0] == alias))


def _partitions(windows: list[exp.Window], alias: str) -> list[tuple[str, ...]]:
    return [_names(w.args.get("partition_by") or (), alias) for w in windows]


def _common(names: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for name in names[0] if all(name in others for others in names[1:]))


def _counted(select: exp.Select) -> exp.Column | None:
    """Return x if the aggregates are COUNT(DISTINCT x), at least one and all of the same column, and others that can be merged."""
    found: exp.Column | None = None
    for node in aggregates_of(select):
        inner = node.this
        if is_mergeable(node):
            continue
        if not isinstance(inner, exp.Distinct):
            return None
        if not isinstance(node, exp.Count) or isinstance(node.parent, exp.Filter) or len(inner.expressions) != 1:
            return None
        column = inner.expressions[0]
        if not isinstance(column, exp.Column) or (found is not None and found != column):
            return None
        found = column
    return found


# -- several relations -----------------------------------------------------------------------------------


def _joined(select: exp.Select, relation: str) -> _Found | None:
    if (tied := key_ties(select)) is None:
        return None
    filled = filled_aliases(select)
    keys = {alias: (name,) for alias, name in tied.items()}
    places = {place for place in tied.items() if place[0] not in filled}
    if any(terms.sql_type(item) is None for item in select.expressions):
        return None
    distinct = select.args.get("distinct")
    if isinstance(distinct, exp.Distinct) and distinct.args.get("on"):
        return None
    group, windows = select.args.get("group"), windows_of(select)
    is_grouped = bool(group or aggregates_of(select) or select.args.get("having"))
    is_whole = not is_grouped or (
        group is not None and has_plain_groups(select) and any(terms.plain_column(key) in places for key in group.expressions)
    )
    for window in windows:
        is_whole = is_whole and any(terms.plain_column(key) in places for key in window.args.get("partition_by") or ())
    if is_whole:
        return "join", *_whole(select, relation, places), keys
    if windows and is_grouped:
        return None
    parts = split(select, relation)
    return "join", parts.leaf, parts.final, keys


# -- pieces ----------------------------------------------------------------------------------------------


def _whole(select: exp.Select, relation: str, places: set[tuple[str, str]]) -> tuple[exp.Select, exp.Select]:
    """Return the block without ORDER BY and LIMIT, which are for the final part; a partition needs no more than the first rows."""
    middle = copy_tree(select, without=("order", "limit", "offset"))
    names = [item.alias_or_name for item in select.expressions]
    taken = {name.lower() for name in names}
    final = exp.Select(
        expressions=[
            terms.aliased(_restored(item, terms.quoted_column(relation, name)), name)
            for item, name in zip(select.expressions, names, strict=True)
        ]
    ).from_(terms.table_node(relation, relation), copy=False)
    distinct, order = select.args.get("distinct"), select.args.get("order")
    outputs = {item.unalias(): item.alias_or_name for item in select.expressions}
    if distinct is not None and not places & {place for item in outputs if (place := terms.plain_column(item)) is not None}:
        final.set("distinct", copy_tree(distinct))
    if order is not None:
        items = []
        for number, item in enumerate(order.expressions):
            name = outputs.get(item.this)
            if name is None:
                name = f"order {number}"
                while name in taken:
                    name += "_"
                taken.add(name)
                middle.append("expressions", terms.aliased(copy_tree(item.this), name))
            ordered = copy_tree(item)
            ordered.set("this", terms.quoted_column(relation, name))
            items.append(ordered)
        final.set("order", exp.Order(expressions=items))
    limit, offset = limit_of(select)
    if limit is not None and final.args.get("distinct") is None:
        if order is not None:
            middle.set("order", copy_tree(order))
        middle.set("limit", exp.Limit(expression=exp.Literal.number(limit + offset)))
    for clause in ("limit", "offset"):
        if select.args.get(clause) is not None:
            final.set(clause, copy_tree(select.args[clause]))
    return middle, final


def _restored(item: exp.Expr, column: exp.Column) -> exp.Expr:
    """Give a value back the type that Arrow does not have."""
    found = terms.sql_type(item)
    if found is not None and found.name in ("HUGEINT", "UUID"):
        return exp.Cast(this=column, to=terms.named_type(found.name))
    return column


def _table_below(item: exp.Expr) -> exp.Table | None:
    """Return the table of a FROM item: itself, or below the means that merging variances adds (`plan.split`)."""
    if isinstance(item, exp.Table):
        return item if not item.args.get("joins") else None
    if not isinstance(item, exp.Subquery) or not isinstance(item.this, exp.Select):
        return None
    inner = item.this
    below = [source for source, _ in terms.from_items(inner)]
    is_means = len(below) == 1 and isinstance(below[0], exp.Table) and below[0].alias_or_name == item.alias_or_name
    if not is_means or any(
        inner.args.get(c) for c in ("where", "group", "having", "order", "limit", "distinct", "qualify", "with_")
    ):
        return None
    return below[0] if isinstance(below[0], exp.Table) else None


def _types(leaf: Leaf, names: Iterable[str]) -> list[SqlType]:
    known = dict(leaf.split.columns)
    return [known[name] for name in names]


def _is_steady(leaf: Leaf, names: Iterable[str]) -> bool:
    """Say whether running the leaf again puts the same rows into the same partitions."""
    tree = leaf.split.leaf
    if leaf.split.row_limit is not None or any(
        isinstance(n, (exp.Limit, exp.Window)) or terms.is_random(n) for n in nodes_of(tree)
    ):
        return False
    wanted = set(names)
    own = set()
    for item in tree.expressions:
        aggregates = {id(n) for n in nodes_of(item) if n.meta_get("aggregate")}
        if aggregates and item.alias_or_name in wanted:
            return False
        own |= aggregates
    if having := tree.args.get("having"):
        own |= {id(n) for n in nodes_of(having)}
    return all(id(n) in own for n in nodes_of(tree) if n.meta_get("aggregate"))
