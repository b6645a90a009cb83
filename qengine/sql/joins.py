"""Joins that are more than a condition: ASOF, SEMI and ANTI.

`a SEMI JOIN b ON p` keeps the rows of `a` that have a match, `a ANTI JOIN b ON p` those that have none. They become terms of WHERE,
`EXISTS (SELECT 1 FROM b WHERE p)` and its negation: rows of `a` may be taken out before or after what is joined to `a` later, but
not before a RIGHT or FULL JOIN.

`a ASOF JOIN b ON a.key = b.key AND a.time >= b.time` gives each row of `a` the one row of `b` with an equal key that is nearest in
time. It stays what it is, `exp.Join` with `method` ASOF: equalities and one comparison between the two sides, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from qengine.catalog.types import BOOLEAN, INTEGER
from qengine.errors import QueryTypeError
from qengine.sql.nodes import inner, quoted, typed
from qengine.sql.operators import terms_of
from qengine.sql.scopes import Context

_COMPARISONS = (exp.GT, exp.GTE, exp.LT, exp.LTE)


def existence(item: exp.Expr, condition: exp.Expr, *, is_anti: bool) -> exp.Expr:
    """Return the term that a SEMI or ANTI JOIN with `item` means."""
    one = typed(exp.Literal.number(1), INTEGER)
    select = exp.Select(
        expressions=[typed(exp.Alias(this=one, alias=quoted("one")), INTEGER)],
        from_=exp.From(this=item),
        where=exp.Where(this=condition),
    )
    found = typed(exp.Exists(this=select), BOOLEAN)
    return typed(exp.Not(this=found), BOOLEAN) if is_anti else found


def check_asof(context: Context, join: exp.Join, condition: exp.Expr, left: Collection[str], right: Collection[str]) -> None:
    """Raise `QueryTypeError` unless the bound condition of an ASOF JOIN is one that has a meaning."""
    comparisons = 0
    for term in terms_of(condition) if isinstance(inner(condition), exp.And) else [condition]:
        bare = inner(term)
        if not isinstance(bare, (exp.EQ, *_COMPARISONS)):
            raise context.error(QueryTypeError, join, _MESSAGE, _HINT)
        sides = [{c.table for c in side.find_all(exp.Column)} for side in (bare.this, bare.expression)]
        is_plain = any(one and two and one <= set(left) and two <= set(right) for one, two in (sides, sides[::-1]))
        if not is_plain:
            raise context.error(QueryTypeError, join, _MESSAGE, _HINT)
        comparisons += isinstance(bare, _COMPARISONS)
    if comparisons != 1:
        raise context.error(QueryTypeError, join, _MESSAGE, _HINT)


_MESSAGE = "ASOF JOIN takes equalities and exactly one comparison (<, <=, >, >=) between the two sides"
_HINT = "write ON a.key = b.key AND a.time >= b.time; other terms go into WHERE or a sub-query"
