"""A rule of station 3: what is done with the rows of a UNION ALL is done with the rows of each member first.

A block over a UNION ALL is split (`plan.split`) as a leaf is: every member gets the half that filters, projects and groups, and the
block becomes the half that merges. So members run tile by tile with partial aggregates and prune by the block's terms.
"""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.model import Catalog
from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.split import Split, split
from qengine.plan.turn import free_alias
from qengine.plan.unfold import aliases_in, merge_derived, rename_relations
from qengine.sql.trees import copy_tree, find, nodes_of

_CLAUSES = frozenset({
    "expressions", "from_", "where", "group", "having", "order", "limit", "offset", "distinct", "qualify", "kind",
})  # fmt: skip


def spread_unions(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`SELECT u.g, SUM(u.x) AS s FROM (SELECT .. FROM a UNION ALL SELECT .. FROM b) AS u WHERE u.x > 3 GROUP BY u.g` ->
    `SELECT p.k AS g, SUM(p.s) AS s FROM (SELECT u.g AS k, SUM(u.x) AS s FROM (SELECT .. FROM a) AS u WHERE u.x > 3 GROUP BY u.g
    UNION ALL SELECT v.g AS k, SUM(v.x) AS s FROM (SELECT .. FROM b) AS v WHERE v.x > 3 GROUP BY v.g) AS p GROUP BY p.k`.
    """
    if not any(_is_union(item.this) for item in find(tree, exp.Subquery)):
        return tree
    tree = copy_tree(tree)
    taken = {name.lower() for name in aliases_in(tree)}
    for select in reversed(find(tree, exp.Select)):
        members = _members(select)
        if members is not None and (done := _spread(select, members, tree, taken)) is not None:
            if select is tree:
                tree = done
            else:
                select.replace(done)
    return merge_derived(tree, catalog)


def _is_union(query: exp.Expr) -> bool:
    return isinstance(query, exp.Union) and not query.args.get("distinct")


def _members(select: exp.Select) -> list[exp.Select] | None:
    """Return the members of the UNION ALL that is all that the block reads; None if it reads anything else."""
    item = select.args["from_"].this if select.args.get("from_") is not None else None
    if not isinstance(item, exp.Subquery) or not _is_union(item.this) or item.args["alias"].args.get("columns"):
        return None
    if any(value and clause not in _CLAUSES for clause, value in select.args.items()):
        return None
    inside = {id(n) for n in nodes_of(item)}
    own = [n for n in nodes_of(select) if id(n) not in inside]
    if any(isinstance(n, exp.Query) and n is not select for n in own) or any(map(terms.is_random, own)):
        return None
    if any(isinstance(n, exp.Column) and n.table != item.alias for n in own):
        return None
    return _flat(item.this)


def _flat(query: exp.Expr) -> list[exp.Select] | None:
    while isinstance(query, exp.Subquery) and not query.alias:
        query = query.this
    if isinstance(query, exp.Select):
        return None if query.args.get("with_") else [query]
    if not _is_union(query) or any(query.args.get(clause) for clause in ("with_", "order", "limit", "offset")):
        return None
    left, right = _flat(query.args["this"]), _flat(query.args["expression"])
    return None if left is None or right is None else [*left, *right]


def _spread(select: exp.Select, members: list[exp.Select], tree: exp.Query, taken: set[str]) -> exp.Query | None:
    item = select.args["from_"].this
    names = [output.alias_or_name for output in members[0].expressions]
    wanted = {c.name: terms.sql_type(c) for c in find(select, exp.Column) if c.table == item.alias}
    if any(len(member.expressions) != len(names) for member in members) or len(set(names)) < len(names):
        return None
    relation = free_alias("spread", tree)
    taken.add(relation.lower())
    parts = split(select, relation, may_count_apart=False)
    _complete(parts, select)
    pieces = [_piece(parts.leaf, member, names, wanted, taken, is_first=not n) for n, member in enumerate(members)]
    union = pieces[0]
    for piece in pieces[1:]:
        union = exp.Union(this=union, expression=piece, distinct=False)
    alias = exp.TableAlias(this=exp.to_identifier(relation, quoted=True))
    for table in find(parts.final, exp.Table):
        if table.name == relation:
            table.replace(exp.Subquery(this=union, alias=alias))
    return parts.final


def _complete(parts: Split, select: exp.Select) -> None:
    """Say of the nodes that splitting has made what binding says of all others: aggregates, and the types of outputs."""
    for half in (parts.leaf, parts.final):
        for node in nodes_of(half):
            if isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window) and not node.find_ancestor(exp.Window):
                node.meta["aggregate"] = True
    for output, (_, found) in zip(parts.leaf.expressions, parts.columns, strict=False):
        output.meta["sql_type"] = found
    for output, original in zip(parts.final.expressions, select.expressions, strict=True):
        output.meta["sql_type"] = terms.sql_type(original)
    parts.final.meta.update(select.meta)


def _piece(
    leaf: exp.Select, member: exp.Select, names: list[str], wanted: dict[str, SqlType | None], taken: set[str], *, is_first: bool
) -> exp.Expr:
    """Return the leaf's half over one member, whose columns get the names and types of the union's."""
    body = copy_tree(member)
    for place, name in enumerate(names):
        output = body.expressions[place]
        value, found = output.unalias(), terms.sql_type(output)
        kind = wanted.get(name)
        if kind is not None and found != kind:
            value, found = exp.Cast(this=copy_tree(value), to=terms.named_type(kind.name)), kind
            value.meta["sql_type"] = kind
        named = terms.aliased(copy_tree(value), name)
        named.meta["sql_type"] = found
        output.replace(named)
    piece = copy_tree(leaf)
    item = piece.args["from_"].this
    item.set("this", body)
    if not is_first:
        rename_relations(piece, taken)
    needs_parentheses = piece.args.get("order") or piece.args.get("limit")
    return exp.Subquery(this=piece) if needs_parentheses else piece
