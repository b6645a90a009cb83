"""GROUP BY with several sets of keys: GROUPING SETS, ROLLUP, CUBE and their combinations, all written out as GROUPING SETS.

`ROLLUP (a, b)` is the sets (a, b), (a), (); `CUBE (a, b)` all subsets; `GROUP BY x, ROLLUP (a)` every set of the one with every
set of the other: (x, a), (x). `GROUP BY a, b WITH ROLLUP` is MySQL's spelling of ROLLUP (a, b).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from sqlglot import exp

from qengine.errors import QueryTypeError
from qengine.sql.nodes import inner
from qengine.sql.scopes import Context

MAX_SETS = 256

Keys = tuple[exp.Expr, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """Bound keys: all of them once, and the sets if there are several or one that is not all of them."""

    keys: tuple[exp.Expr, ...]
    sets: tuple[Keys, ...]

    def node(self) -> exp.Group:
        """Return the clause."""
        if not self.sets:
            return exp.Group(expressions=list(self.keys))
        written = [exp.Tuple(expressions=[key.copy() for key in keys]) for keys in self.sets]
        return exp.Group(grouping_sets=[exp.GroupingSets(expressions=written)])


def bind_groups(context: Context, group: exp.Group, key: Callable[[exp.Expr], exp.Expr]) -> Groups:
    """Bind GROUP BY; `key` binds one key."""
    has_sets = any(isinstance(node, (exp.Tuple, *_SETS)) for node in group.expressions) or any(
        group.args.get(name) for name in ("rollup", "cube", "grouping_sets")
    )
    if not has_sets:
        return Groups(tuple(key(node) for node in group.expressions), ())
    bound: list[exp.Expr] = []

    def keys_of(node: exp.Expr) -> Keys:
        parts = node.expressions if isinstance(node, exp.Tuple) else [inner(node)]
        found = []
        for part in parts:
            made = key(part)
            same = next((known for known in bound if known == made), None)
            if same is None:
                bound.append(made)
                same = made
            found.append(same)
        return tuple(found)

    def sets_of(node: exp.Expr) -> list[Keys]:
        match node:
            case exp.GroupingSets():
                return [keys for part in node.expressions for keys in sets_of(part)]
            case exp.Rollup():
                return _rollup([keys_of(part) for part in node.expressions])
            case exp.Cube():
                return _cube(context, node, [keys_of(part) for part in node.expressions])
        return [keys_of(node)]

    found: list[Keys] = [()]
    is_mysql = bool(group.args.get("rollup")) or bool(group.args.get("cube"))
    if is_mysql:
        parts = [keys_of(part) for part in group.expressions]
        found = _rollup(parts) if group.args.get("rollup") else _cube(context, group, parts)
    else:
        for node in [*group.expressions, *(group.args.get("grouping_sets") or [])]:
            found = [_union(left, right) for left in found for right in sets_of(node)]
            _check(context, group, len(found))
    return Groups(tuple(bound), tuple(found))


_SETS = (exp.GroupingSets, exp.Rollup, exp.Cube)


def _rollup(parts: list[Keys]) -> list[Keys]:
    return [_flat(parts[:count]) for count in range(len(parts), -1, -1)]


def _cube(context: Context, node: exp.Expr, parts: list[Keys]) -> list[Keys]:
    _check(context, node, 2 ** len(parts))
    return [_flat(list(chosen)) for count in range(len(parts), -1, -1) for chosen in combinations(parts, count)]


def _flat(parts: list[Keys]) -> Keys:
    keys: Keys = ()
    for part in parts:
        keys = _union(keys, part)
    return keys


def _union(left: Keys, right: Keys) -> Keys:
    return (*left, *(key for key in right if not any(key is other for other in left)))


def _check(context: Context, node: exp.Expr, count: int) -> None:
    if count > MAX_SETS:
        raise context.error(QueryTypeError, node, f"GROUP BY makes {count} sets of keys, more than {MAX_SETS}")
