"""Rules of station 3 that write RIGHT and FULL joins as joins that keep their left side.

A RIGHT JOIN with several relations on its left becomes a LEFT JOIN to them as one derived table. A FULL JOIN is its LEFT part and
the rows of the other side without a partner. Both are needed only where the block would not be local else (`plan.locality`).
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlglot import exp

from qengine.catalog.model import Catalog
from qengine.catalog.types import INTEGER
from qengine.plan import terms
from qengine.plan.lift import lift_block
from qengine.plan.locality import Locality, prove_locality
from qengine.plan.nesting import is_repeatable
from qengine.plan.split import storable
from qengine.sql.trees import copy_tree, find, nodes_of


def turn_right_joins(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`FROM a RIGHT JOIN b ON p` -> `FROM b LEFT JOIN a ON p`.

    With more on the left, `FROM a JOIN c ON q RIGHT JOIN b ON p` -> `FROM b LEFT JOIN (SELECT .. FROM a JOIN c ON q) AS d ON p`.
    """
    if not any(join.side == "RIGHT" for join in find(tree, exp.Join)):
        return tree
    tree = copy_tree(tree)
    waiting = find(tree, exp.Select)
    while waiting:
        select = waiting.pop()
        if (place := _last_right(select)) is None:
            continue
        if place:
            _fold(tree, select, place)
            waiting += find(select.args["from_"], exp.Select)
        join = select.args["joins"][0]
        first, second = select.args["from_"].this, join.this
        select.args["from_"].set("this", second)
        join.set("this", first)
        join.set("side", "LEFT")
    return tree


def _last_right(select: exp.Select) -> int | None:
    joins = select.args.get("joins") or []
    return next((i for i, j in reversed(list(enumerate(joins))) if str(j.args.get("side") or "").upper() == "RIGHT"), None)


def _fold(tree: exp.Query, select: exp.Select, count: int) -> None:
    """Make the first relation and `count` joins of the block one derived table."""
    from_, joins = select.args["from_"], list(select.args["joins"])
    inner = exp.Select().from_(from_.this, copy=False)
    inner.set("joins", joins[:count])
    aliases = {item.alias_or_name for item, _ in terms.from_items(inner)}
    inside = {id(c) for join in joins[:count] for c in find(join, exp.Column)} | {id(c) for c in find(from_, exp.Column)}
    alias = free_alias("joined", tree)
    names: dict[tuple[str, str], str] = {}
    items: list[exp.Expr] = []
    select.set("joins", joins[count:])
    from_.set("this", inner.subquery(exp.to_identifier(alias, quoted=True), copy=False))
    for column in find(tree, exp.Column):
        if column.table not in aliases or id(column) in inside:
            continue
        place = (column.table, column.name)
        if place not in names:
            names[place] = _free(column.name, names.values())
            items.append(_put_out(column, names[place]))
        column.replace(_column(alias, names[place], column))
    inner.set("expressions", items or [_one()])


def _put_out(column: exp.Column, name: str) -> exp.Expr:
    item = terms.aliased(copy_tree(column), name)
    item.meta["sql_type"] = terms.sql_type(column)
    return item


def _column(alias: str, name: str, like: exp.Expr) -> exp.Column:
    column = terms.quoted_column(alias, name)
    column.meta.update(like.meta)
    return column


def _one() -> exp.Expr:
    one = exp.cast(exp.Literal.number(1), "INTEGER")
    one.meta["sql_type"] = INTEGER
    return terms.aliased(one, "one")


def _free(wanted: str, taken: Iterable[str]) -> str:
    known = {name.lower() for name in taken}
    number, name = 1, wanted
    while name.lower() in known:
        number += 1
        name = f"{wanted}_{number}"
    return name


def free_alias(wanted: str, tree: exp.Expr) -> str:
    """Return an alias that no relation of the statement has."""
    nodes = (n for n in nodes_of(tree) if isinstance(n, (exp.Table, exp.Subquery, exp.Lateral, exp.CTE)))
    return _free(wanted, [n.alias_or_name for n in nodes])


def halve_full_joins(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`SELECT a.x, b.y FROM a FULL JOIN b ON p` -> `SELECT u.x, u.y FROM (SELECT a.x AS x, b.y AS y FROM a LEFT JOIN b ON p UNION
    ALL
    SELECT NULL AS x, c.y AS y FROM b AS c WHERE NOT EXISTS (SELECT 1 FROM a AS d WHERE p')) AS u`.

    Only where the LEFT JOIN is local and the FULL JOIN is not, which is so for distances. Terms of WHERE go into both parts.
    """
    if not any(join.side == "FULL" for join in find(tree, exp.Join)):
        return tree
    tree = copy_tree(tree)
    for select in find(tree, exp.Select):
        joins = select.args.get("joins") or []
        if len(joins) == 1 and str(joins[0].args.get("side") or "").upper() == "FULL" and _is_halved(select, catalog):
            _halve(tree, select)
    return tree


def _is_halved(select: exp.Select, catalog: Catalog) -> bool:
    join = select.args["joins"][0]
    items = [item for item, _ in terms.from_items(select)]
    conditions = [c for c in (join.args.get("on"), select.args.get("where")) if c is not None]
    if not all(isinstance(item, exp.Table) and item.db for item in items) or any(find(c, exp.Query) for c in conditions):
        return False
    bare = exp.Select(expressions=[_one()]).from_(copy_tree(items[0]), copy=False)
    bare.set("joins", [copy_tree(join)])
    if not is_repeatable(bare) or isinstance(prove_locality(lift_block(bare, catalog)), Locality):
        return False
    bare.args["joins"][0].set("side", "LEFT")
    proof = prove_locality(lift_block(bare, catalog))
    return isinstance(proof, Locality) and bool(proof.owner)


def _halve(tree: exp.Query, select: exp.Select) -> None:
    from_, (join,) = select.args["from_"], select.args["joins"]
    where = select.args.get("where")
    left, right = from_.this, join.this
    sides = (left.alias_or_name, right.alias_or_name)
    aliases = {}
    for wanted in ("u", *sides):
        aliases[wanted] = free_alias(wanted, tree) if wanted != "u" else free_alias("joined", tree)
    union = aliases["u"]
    names: dict[tuple[str, str], str] = {}
    first: list[exp.Expr] = []
    second: list[exp.Expr] = []
    own = {id(c) for c in find(join, exp.Column)} | ({id(c) for c in find(where, exp.Column)} if where is not None else set())
    for column in find(tree, exp.Column):
        if column.table not in sides or id(column) in own:
            continue
        place = (column.table, column.name)
        if place not in names:
            names[place] = _free(column.name, names.values())
            first.append(_put_out(column, names[place]))
            second.append(_second_output(column, names[place], left.alias_or_name, aliases))
        column.replace(_column(union, names[place], column))
    on = join.args.get("on")
    matched = exp.Select(expressions=first or [_one()]).from_(left, copy=False)
    matched.set("joins", [exp.Join(this=right, on=copy_tree(on) if on is not None else None, side="LEFT")])
    partner = exp.Select(expressions=[_one()]).from_(_again(left, aliases), copy=False)
    partner.set("where", exp.Where(this=_moved(on if on is not None else exp.true(), aliases)))
    alone = exp.Select(expressions=second or [_one()]).from_(_again(right, aliases), copy=False)
    rest: exp.Expr = exp.Not(this=exp.Exists(this=partner))
    if where is not None:
        matched.set("where", copy_tree(where))
        rest = exp.and_(rest, _without_left(where.this, left.alias_or_name, aliases), copy=False, wrap=True)
        select.set("where", None)
    alone.set("where", exp.Where(this=rest))
    both = exp.Union(this=matched, expression=alone, distinct=False)
    from_.set("this", exp.Subquery(this=both, alias=exp.TableAlias(this=exp.to_identifier(union, quoted=True))))
    select.set("joins", [])


def _second_output(column: exp.Column, name: str, left: str, aliases: dict[str, str]) -> exp.Expr:
    found = terms.sql_type(column)
    value = _null(column) if column.table == left else _column(aliases[column.table], column.name, column)
    item = terms.aliased(value, name)
    item.meta["sql_type"] = found
    return item


def _null(column: exp.Expr) -> exp.Expr:
    found = terms.sql_type(column)
    value = exp.Cast(this=exp.Null(), to=terms.named_type(storable(found).name))
    value.meta["sql_type"] = found
    return value


def _again(item: exp.Expr, aliases: dict[str, str]) -> exp.Expr:
    copy = copy_tree(item)
    copy.set("alias", exp.TableAlias(this=exp.to_identifier(aliases[item.alias_or_name], quoted=True)))
    return copy


def _moved(node: exp.Expr, aliases: dict[str, str]) -> exp.Expr:
    """Return a copy that names the second readings of the tables."""
    copy = copy_tree(node)
    for column in find(copy, exp.Column):
        if column.table in aliases:
            column.set("table", exp.to_identifier(aliases[column.table], quoted=True))
    return copy


def _without_left(node: exp.Expr, left: str, aliases: dict[str, str]) -> exp.Expr:
    """Return a copy for rows without a partner: the left side's columns are NULL."""
    holder = exp.Paren(this=copy_tree(node))
    for column in find(holder, exp.Column):
        if column.table == left:
            column.replace(_null(column))
        elif column.table in aliases:
            column.set("table", exp.to_identifier(aliases[column.table], quoted=True))
    return holder
