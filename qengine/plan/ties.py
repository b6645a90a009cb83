"""What ties the relations of a block for a hash exchange: a column of each, and the type in which their values are hashed.

The tie is one class of equalities: each relation has a column that a term of its ON (or, if all joins are inner, of WHERE) sets
equal to the column of an earlier one. Then a row's partners are all where its own key is.
"""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.plan import terms

_JOIN_SIDES = ("", "LEFT", "RIGHT", "FULL")
_FLOATS = ("FLOAT", "DOUBLE")


def key_ties(select: exp.Select) -> dict[str, str] | None:
    """Return for each alias the column that ties it to the others, if one class of equalities ties them all."""
    items = list(terms.from_items(select))
    first = items[0][0].alias_or_name
    joins = [join for _, join in items[1:] if join is not None]
    if any(_side(j) is None for j in joins):
        return None
    is_inner = all(_side(j) == "" for j in joins)
    pool = list(terms.conjuncts(where.this)) if is_inner and (where := select.args.get("where")) is not None else []
    pairs = []
    for join in joins:
        own = [*terms.conjuncts(join.args.get("on")), *pool]
        pairs.append((join.this.alias_or_name, [pair for term in own if (pair := _equality(term)) is not None]))
    starts = dict.fromkeys(place for _, found in pairs for pair in found for place in pair if place[0] == first)
    for start in starts:
        known = {first: start[1]}
        for alias, found in pairs:
            tied = next(
                (mine[1] for mine, other in _both_ways(found) if mine[0] == alias and known.get(other[0]) == other[1]), None
            )
            if tied is None:
                break
            known[alias] = tied
        else:
            return known
    return None


def _side(join: exp.Join) -> str | None:
    """Return the side of a join that can be exchanged, else None."""
    kind = (join.args.get("kind") or "").upper()
    side = (join.args.get("side") or "").upper()
    if join.args.get("method") or kind not in ("", "INNER", "CROSS", "OUTER") or side not in _JOIN_SIDES:
        return None
    return side


def _equality(term: exp.Expr) -> tuple[tuple[str, str], tuple[str, str]] | None:
    term = terms.bare(term)
    if not isinstance(term, exp.EQ):
        return None
    left, right = terms.plain_column(term.this), terms.plain_column(term.expression)
    return (left, right) if left is not None and right is not None and left[0] != right[0] else None


def _both_ways(
    pairs: list[tuple[tuple[str, str], tuple[str, str]]],
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    return [*pairs, *((right, left) for left, right in pairs)]


def filled_aliases(select: exp.Select) -> set[str]:
    """Return the aliases whose columns an outer join may fill with NULLs."""
    filled: set[str] = set()
    before: list[str] = []
    for item, join in terms.from_items(select):
        side = "" if join is None else _side(join)
        if side in ("LEFT", "FULL"):
            filled.add(item.alias_or_name)
        if side in ("RIGHT", "FULL"):
            filled.update(before)
        before.append(item.alias_or_name)
    return filled


def meeting_types(sides: list[list[SqlType]]) -> list[str] | None:
    """Return for each key column the type in which all sides hash it; None if there is no type that keeps equal values equal.

    One side needs none but its own. Otherwise the type must map values that SQL's `=` calls equal to one value: the type in which
    DuckDB compares them, or a function of that. Integers are compared exactly, an integer or decimal with a float in the float's
    type, FLOAT with DOUBLE as DOUBLE; then three of these kinds have no common one.
    """
    found = []
    for types in zip(*sides, strict=True):
        names = {t.name for t in types}
        if len(names) == 1:
            found.append(next(iter(names)))
        elif all(t.is_integer for t in types):
            found.append("HUGEINT" if "UBIGINT" in names else "BIGINT")
        elif names <= set(_FLOATS):
            found.append("DOUBLE")
        elif all(t.is_integer or t.name.startswith("DECIMAL") or t.name in _FLOATS for t in types):
            floats = names & set(_FLOATS)
            if len(floats) > 1 or (not floats and any(t.name.startswith("DECIMAL") for t in types)):
                return None
            found.append(next(iter(floats)))
        else:
            return None
    return found
