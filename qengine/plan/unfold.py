"""Rules of station 3 that take blocks out of one another, so that more of the statement is proven local (`plan.locality`).

A common table expression that is named once is a derived table; a derived table that only selects, joins and filters is part of the
block around it. Each rule keeps the statement ordinary SQL with the same rows; its docstring is a pair before and after.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from qengine.catalog.model import Catalog
from qengine.plan import terms
from qengine.plan.lift import lift_block
from qengine.plan.locality import Locality, prove_locality
from qengine.plan.nesting import aggregates_of, has_plain_groups, is_repeatable
from qengine.sql.trees import copy_tree, find, nodes_of

MAX_COPIES = 4
"""A common table expression that is named more often stays one."""


def unfold_ctes(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`WITH q AS (SELECT ..) SELECT .. FROM q` -> `SELECT .. FROM (SELECT ..) AS q`.

    One that nobody names goes. One that is named several times is copied if every block that names it is local then: reading twice
    in the leaf is better than gathering once. The copies' aliases are new, and they must give the same rows each time.
    """
    if not any(query.args.get("with_") for query in find(tree, exp.Query)):
        return tree
    tree = copy_tree(tree)
    names = [cte.alias.lower() for cte in find(tree, exp.CTE)]
    for with_ in find(tree, exp.With):
        if with_.args.get("recursive"):
            continue
        for cte in list(with_.expressions):
            if names.count(cte.alias.lower()) > 1:
                continue
            places = [t for t in find(tree, exp.Table) if not t.db and t.name.lower() == cte.alias.lower()]
            if len(places) > 1 and not _is_better_copied(tree, cte, places, catalog):
                continue
            _put_in(tree, cte.this, places)
            cte.pop()
        if not with_.expressions:
            with_.pop()
    return tree


def _put_in(tree: exp.Expr, body: exp.Query, places: list[exp.Table]) -> None:
    taken = {name.lower() for name in aliases_in(tree)}
    for number, place in enumerate(places):
        copy = copy_tree(body)
        if number:
            rename_relations(copy, taken)
        place.replace(exp.Subquery(this=copy, alias=exp.TableAlias(this=exp.to_identifier(place.alias_or_name, quoted=True))))


def _is_better_copied(tree: exp.Query, cte: exp.CTE, places: list[exp.Table], catalog: Catalog) -> bool:
    body = cte.this
    if not isinstance(body, exp.Select) or len(places) > MAX_COPIES or not is_repeatable(body) or find(body, exp.With):
        return False
    trial = copy_tree(tree)
    copies = [t for t in find(trial, exp.Table) if not t.db and t.name.lower() == cte.alias.lower()]
    parents = list({id(p): p for t in copies if (p := t.find_ancestor(exp.Select)) is not None}.values())
    _put_in(trial, body, copies)
    return all(_is_local(parent, catalog) for parent in parents)


def _is_local(select: exp.Select, catalog: Catalog) -> bool:
    bare = copy_tree(select, without=("with_",))
    return isinstance(prove_locality(lift_block(bare, catalog)), Locality)


def aliases_in(tree: exp.Expr) -> Iterator[str]:
    """Yield the aliases of all relations of a tree."""
    for node in nodes_of(tree):
        if isinstance(node, (exp.Table, exp.Subquery, exp.Lateral, exp.CTE)) and node.alias_or_name:
            yield node.alias_or_name


def rename_relations(query: exp.Query, taken: set[str]) -> None:
    """Give the relations of a copied query new aliases."""
    new: dict[str, str] = {}
    for alias in dict.fromkeys(aliases_in(query)):
        number = 2
        while f"{alias}_{number}".lower() in taken:
            number += 1
        new[alias] = f"{alias}_{number}"
        taken.add(new[alias].lower())
    for node in nodes_of(query):
        if isinstance(node, exp.TableAlias) and node.name in new:
            node.set("this", exp.to_identifier(new[node.name], quoted=True))
        elif isinstance(node, exp.Column) and node.table in new:
            node.set("table", exp.to_identifier(new[node.table], quoted=True))


def merge_derived(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`FROM a JOIN (SELECT b.x AS y FROM b WHERE b.z > 3) AS d ON d.y = a.y` -> `FROM a JOIN b ON b.x = a.y WHERE b.z > 3`.

    On the null-supplied side of a LEFT JOIN only for one relation whose columns are put out as they are; its terms go to the ON.
    """
    if not any(isinstance(terms.query_of(s), exp.Select) for s in find(tree, exp.Subquery)):
        return tree
    tree = copy_tree(tree)
    for select in reversed(find(tree, exp.Select)):
        while _merge_one(select):
            pass
    return tree


def _merge_one(select: exp.Select) -> bool:
    """Merge the first derived table that can be merged; say whether there was one."""
    items = list(terms.from_items(select))
    if any(_is_special(join) for _, join in items if join is not None):
        return False
    for item, join in items:
        inner = item.this if isinstance(item, exp.Subquery) else None
        if (
            not isinstance(inner, exp.Select)
            or item.args.get("alias") is None
            or item.args["alias"].args.get("columns")
            or not _only_joins_and_filters(inner)
        ):
            continue
        outputs = {output.alias_or_name: output.unalias() for output in inner.expressions}
        alias = item.alias_or_name
        uses = [c for c in find(select, exp.Column) if c.table == alias]
        if not all(c.name in outputs and find(outputs[c.name], exp.Column) for c in uses):
            continue
        is_left = join is not None and bool(join.args.get("side"))
        if is_left and not _is_one_relation(inner, [outputs[c.name] for c in uses]):
            continue
        _put_into(select, inner, join, is_left=is_left)
        for column in uses:
            _stand_for(column, outputs[column.name])
        return True
    return False


def _is_special(join: exp.Join) -> bool:
    kind, side = str(join.args.get("kind") or "").upper(), str(join.args.get("side") or "").upper()
    return kind not in ("", "INNER", "CROSS", "OUTER") or side not in ("", "LEFT") or bool(join.args.get("method"))


def _only_joins_and_filters(inner: exp.Select) -> bool:
    clauses = {key for key, value in inner.args.items() if value and key not in ("kind", "expressions", "from_", "joins", "where")}
    if clauses or inner.args.get("from_") is None or not is_repeatable(inner) or aggregates_of(inner):
        return False
    if isinstance(inner.args["from_"].this, exp.Values):
        return False  # becomes a step: its values prune (`plan.broadcast`)
    return not any(_is_special(j) for j in inner.args.get("joins") or ()) and not any(find(e, exp.Query) for e in inner.expressions)


def _is_one_relation(inner: exp.Select, used: list[exp.Expr]) -> bool:
    where = inner.args.get("where")
    has_query = where is not None and bool(find(where, exp.Query))
    return not inner.args.get("joins") and not has_query and all(terms.plain_column(node) for node in used)


def _put_into(select: exp.Select, inner: exp.Select, join: exp.Join | None, *, is_left: bool) -> None:
    first, more = inner.args["from_"].this, list(inner.args.get("joins") or [])
    where = inner.args.get("where")
    conditions = [where.this] if where is not None else []
    joins = list(select.args.get("joins") or [])
    if join is None:
        select.args["from_"].set("this", first)
        select.set("joins", [*more, *joins])
    else:
        place = next(i for i, j in enumerate(joins) if j is join)
        on = join.args.get("on")
        join.set("this", first)
        if is_left:
            join.set("on", exp.and_(*([on] if on is not None else []), *conditions, copy=False, wrap=True) if conditions else on)
            return
        if more and on is not None:
            conditions.append(on)
            join.set("on", None)
            join.set("kind", "CROSS")
        select.set("joins", [*joins[: place + 1], *more, *joins[place + 1 :]])
    if conditions:
        own = select.args.get("where")
        select.set("where", exp.Where(this=exp.and_(*([own.this] if own is not None else []), *conditions, copy=False, wrap=True)))


def _stand_for(column: exp.Column, value: exp.Expr) -> None:
    stand_in = copy_tree(value)
    if not isinstance(stand_in, exp.Column):
        found = terms.sql_type(stand_in)
        stand_in = exp.Paren(this=stand_in)
        stand_in.meta["sql_type"] = found
    if (span := column.meta_get("span")) is not None:
        stand_in.meta["span"] = span
    column.replace(stand_in)


def prune_outputs(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`SELECT d.x FROM (SELECT b.x AS x, b.y AS y .. GROUP BY ..) AS d` -> `SELECT d.x FROM (SELECT b.x AS x .. GROUP BY ..) AS d`.

    Output columns of derived tables that nobody names go, so that nobody reads what they need.
    """
    if not find(tree, exp.Subquery):
        return tree
    tree = copy_tree(tree)
    for item in find(tree, exp.Subquery):
        inner = item.this
        if not isinstance(inner, exp.Select) or not item.alias or inner.args.get("distinct") is not None:
            continue
        if not isinstance(item.parent, (exp.From, exp.Join)) or not has_plain_groups(inner):
            continue
        used = {c.name for c in find(tree, exp.Column) if c.table == item.alias}
        kept = [output for output in inner.expressions if output.alias_or_name in used]
        if len(kept) < len(inner.expressions):
            inner.set("expressions", _with_one_row(inner, kept))
    return tree


def _with_one_row(inner: exp.Select, kept: list[exp.Expr]) -> list[exp.Expr]:
    """Return the outputs to keep: at least one, and an aggregate where only that makes the block one row."""
    is_one_row = inner.args.get("group") is None and bool(aggregates_of(inner))
    aggregated = [output for output in inner.expressions if any(n.meta_get("aggregate") for n in nodes_of(output))]
    if is_one_row and not any(output in aggregated for output in kept):
        return [*kept, aggregated[0]] if aggregated else inner.expressions
    return kept or inner.expressions[:1]
