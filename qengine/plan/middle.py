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
* One relation, COUNT(DISTINCT x), COUNT(DISTINCT y) without groups: the values, each of which stands in rows of its own
  (`plan.split`). Each partition counts its own values and the counts add up.
* Several relations, joined (inner, left, right, full) or named by sub-queries that refer to the row (semi and anti joins): for each
  the column that an equality ties to another one's, all of one class. A row finds its matches where its own key lies; a row with
  a NULL key matches nothing and is kept, where it is kept, once. What follows is computed there too if the groups or windows
  contain the key of a relation that no outer join fills with NULLs; else it is split like a leaf (`plan.split`).

A relation is the rows of a leaf, or a derived table, common table expression or set operation over some, if its rows with one value
of the column are made of rows with one value of theirs (`plan.ties`).

ORDER BY and LIMIT remain behind, and go into the partition too where that is an economy.

The final part keeps its meaning: `Exchange.final` reads the relations of middles, and the original final part, over gathered rows,
gives the same answer. Which of both runs is decided when the true sizes are known.

*Equal values must meet*, so both sides of a join are hashed in one type in which values that SQL calls equal are equal
(`plan.ties.meeting_types`).

*A partition may be lost and made again*, and consumers that have read the others are not run again. So the same row must come
into the same partition each time: leaves with LIMIT, random numbers, or windows, and keys that are aggregates, are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.counts import Halves, counted_columns, split_counts
from qengine.plan.cut import CutQuery, Leaf, free_prefix
from qengine.plan.lift import has_nulls
from qengine.plan.logical import Place
from qengine.plan.nesting import aggregates_of, has_plain_groups, own_expressions, queries_in, windows_of
from qengine.plan.split import limit_of, split
from qengine.plan.ties import Tied, Ties, filled_aliases, meeting_types
from qengine.sql.trees import copy_tree, nodes_of

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
        names = self._relations(select)
        if names is None or not any(self.leaves[name].number in self.wanted for name in names):
            return None
        relation = f"{self.prefix}{len(self.middles)}"
        ties = Ties(leaves=frozenset(self.leaves), is_never_null=self._is_never_null, ctes=_ctes_of(select))
        for kind, halves, columns in _ways(select, relation, ties, self.leaves):
            if (keys := self._keys(columns)) is not None and len(columns) == len(names):
                middle, final = halves()
                self.middles.append(Middle(relation=relation, kind=kind, select=middle, keys=keys))
                return final
        return None

    def _relations(self, select: exp.Select) -> set[str] | None:
        """Return the leaves' relations that the block reads; None if it reads anything else."""
        if any(select.args.get(clause) for clause in ("laterals", "windows", "sample")):
            return None
        nodes = nodes_of(select)
        if any(map(terms.is_random, nodes)) or any(isinstance(n, (exp.Lateral, exp.Values, exp.Unnest)) for n in nodes):
            return None
        withs = [n for n in nodes if isinstance(n, exp.With)]
        if any(w.parent is not select or w.args.get("recursive") for w in withs):
            return None
        known = _ctes_of(select)
        names = {n.name for n in nodes if isinstance(n, exp.Table) and n.name not in known}
        if not names or not names <= self.leaves.keys() or any(isinstance(n, exp.Table) and n.db for n in nodes):
            return None
        defined = {n.alias_or_name for n in nodes if isinstance(n, (exp.Table, exp.Subquery))}
        return names if all(n.table in defined for n in nodes if isinstance(n, exp.Column)) else None

    def _keys(self, columns: Tied) -> dict[int, Keys] | None:
        """Return the types in which the leaves' columns are hashed; None if a leaf's rows cannot be put into partitions by them."""
        leaves = {name: self.leaves[name] for name in columns}
        meeting = meeting_types([_types(leaf, columns[name]) for name, leaf in leaves.items()])
        if meeting is None or not all(_is_steady(leaf, columns[name]) for name, leaf in leaves.items()):
            return None
        return {leaf.number: tuple(zip(columns[name], meeting, strict=True)) for name, leaf in leaves.items()}

    def _is_never_null(self, relation: str, name: str) -> bool:
        """Say whether statistics show that a column of a leaf's rows has no NULL."""
        leaf = self.leaves[relation]
        item = next((i.unalias() for i in leaf.split.leaf.expressions if i.alias_or_name == name), None)
        place = terms.cast_column(item)
        found = leaf.block.relations.get(place[0]) if place is not None else None
        if place is None or found is None or found.table is None or found.is_null_supplied:
            return False
        return not has_nulls(found.table, place[1])


def _ctes_of(select: exp.Select) -> dict[str, exp.Query]:
    with_ = select.args.get("with_")
    return {} if with_ is None else {cte.alias: cte.this for cte in with_.expressions}


_Way = tuple[str, Callable[[], Halves], Tied]
"""Kind, what makes the halves, and the key columns of each leaf's relation."""


def _ways(select: exp.Select, relation: str, ties: Ties, leaves: Mapping[str, Leaf]) -> Iterator[_Way]:
    """Yield the ways in which the block may run per partition."""
    items = list(terms.from_items(select))
    has_queries = any(queries_in(node) for node in own_expressions(select))
    if len(items) == 1 and not has_queries and (found := _one(select, relation, ties, leaves)) is not None:
        yield found
    if len(items) > 1 or has_queries:
        yield from _joined(select, relation, ties)


# -- one relation ----------------------------------------------------------------------------------------


def _one(select: exp.Select, relation: str, ties: Ties, leaves: Mapping[str, Leaf]) -> _Way | None:
    item = next(iter(terms.from_items(select)))[0]
    alias = item.alias_or_name
    table = _table_below(item)
    leaf = leaves.get(table.name) if table is not None else None
    names = _own_columns(select, alias)
    if names == _COUNTED:
        values = counted_columns(select, is_apart=leaf is not None and leaf.split.kind == "counted")
        if leaf is None or not values:
            return None
        return "count distinct", partial(split_counts, select, relation, dict(leaf.split.columns)), {leaf.relation: values}
    if not names:
        return None
    kind = "groups" if select.args.get("group") else "windows" if windows_of(select) else "distinct"
    if leaf is not None:
        return kind, partial(_whole, select, relation, {(alias, name) for name in names}), {leaf.relation: names}
    for name in names:
        if (tied := ties.below(item, name)) is not None:
            return kind, partial(_whole, select, relation, {(alias, name)}), tied
    return None


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
        return () if windows else _COUNTED
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


# -- several relations -----------------------------------------------------------------------------------


def _joined(select: exp.Select, relation: str, ties: Ties) -> Iterator[_Way]:
    if any(terms.sql_type(item) is None for item in select.expressions):
        return
    distinct = select.args.get("distinct")
    if isinstance(distinct, exp.Distinct) and distinct.args.get("on"):
        return
    filled = filled_aliases(select)
    windows = windows_of(select)
    is_grouped = bool(select.args.get("group") or aggregates_of(select) or select.args.get("having"))
    for known, tied in ties.of_block(select):
        places = {place for place in known.items() if place[0] not in filled}
        if _is_whole(select, places, windows, is_grouped=is_grouped):
            yield "join", partial(_whole, select, relation, places), tied
        elif not (windows and is_grouped):
            yield "join", partial(_parts, select, relation), tied


def _is_whole(select: exp.Select, places: set[Place], windows: list[exp.Window], *, is_grouped: bool) -> bool:
    """Say whether groups and windows of a joined block are complete in a partition."""
    if is_grouped:
        group = select.args.get("group")
        if group is None or not has_plain_groups(select) or not any(terms.plain_column(key) in places for key in group.expressions):
            return False
    return all(any(terms.plain_column(key) in places for key in window.args.get("partition_by") or ()) for window in windows)


def _parts(select: exp.Select, relation: str) -> Halves:
    parts = split(select, relation)
    final = parts.final
    final.set("with_", None)
    return parts.leaf, final


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
