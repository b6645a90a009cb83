"""Station 3, a rule: what a statement computes from a director's position may be stored beside it.

The cell of order 29 of a director's row is one of its columns, computed when it was loaded by the arithmetic that `qe_healpix`
repeats. So pixels of the position and tests of coverage maps read that column: a shift instead of trigonometry.

Qserv's tests give 0 where a coordinate is NULL and stand in `COALESCE(.., FALSE)` for it; where only TRUE counts, the test
itself does as well, and the other rules can see it.
"""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.model import Catalog, Table, TableKind
from qengine.plan import terms
from qengine.sql.trees import copy_tree, find

_BY_CELL = {"qe_healpix": "qe_cell", "qe_in_moc": "qe_in_cells"}


def stored_cells(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`qe_healpix(5, t.ra, t.dec)` -> `qe_cell(t._healpix_29, 5)`, `qe_in_moc(t.ra, t.dec, m)` -> `qe_in_cells(t._healpix_29, m)`.

    Only for the declared position of a director whose cells are a column.
    """
    if not any(_name(call) in _BY_CELL for call in find(tree, exp.Anonymous)):
        return tree
    tree = copy_tree(tree)
    tables = {t.alias_or_name: found.table for t in find(tree, exp.Table) if t.db and (found := catalog.find(t.db, t.name))}
    for call in find(tree, exp.Anonymous):
        name = _name(call)
        if name not in _BY_CELL:
            continue
        arguments = list(call.expressions)
        (order, ra, dec) = arguments if name == "qe_healpix" else (arguments[2], arguments[0], arguments[1])
        cell = _stored(ra, dec, tables)
        if cell is not None:
            changed = exp.Anonymous(this=_BY_CELL[name], expressions=[cell, order.copy()])
            changed.meta.update(call.meta)
            call.replace(changed)
    return tree


def plain_tests(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`WHERE COALESCE(p, FALSE)` -> `WHERE p`, in terms of WHERE and ON and under AND and OR in them."""
    if not any(_default(call) is not None for call in find(tree, exp.Anonymous)):
        return tree
    tree = copy_tree(tree)
    for select in find(tree, exp.Select):
        where = select.args.get("where")
        conditions = [where.this] if where is not None else []
        conditions += [on for join in select.args.get("joins") or () if (on := join.args.get("on")) is not None]
        for condition in conditions:
            stack = [condition]
            while stack:
                node = terms.bare(stack.pop())
                if isinstance(node, (exp.And, exp.Or)):
                    stack += [node.left, node.right]
                elif isinstance(node, exp.Anonymous) and (test := _default(node)) is not None:
                    node.replace(exp.Paren(this=test.copy()))
    return tree


def _name(call: exp.Anonymous) -> str:
    return str(call.this).lower()


def _default(call: exp.Anonymous) -> exp.Expr | None:
    """Return p of `COALESCE(p, FALSE)`."""
    if _name(call) != "coalesce" or len(call.expressions) != 2:
        return None
    test, other = call.expressions
    return test if isinstance(other, exp.Boolean) and not other.this else None


def _stored(ra: exp.Expr, dec: exp.Expr, tables: dict[str, Table]) -> exp.Column | None:
    place, other = terms.column(ra), terms.column(dec)
    if place is None or other is None or place[0] != other[0]:
        return None
    table = tables.get(place[0])
    if table is None or table.kind is not TableKind.DIRECTOR or (place[1], other[1]) != (table.ra, table.dec):
        return None
    stored = table.column(table.line_column) if table.line_column else None
    if stored is None:
        return None
    column = terms.quoted_column(place[0], stored.name)
    column.meta["sql_type"] = stored.type
    return column
