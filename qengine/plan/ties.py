"""What ties the relations of a block for a hash exchange: a column of each leaf's rows, and the type in which it is hashed.

The tie is one class of equalities: every relation has a column that a term sets equal to the column of one that is already in the
class. Then a row's partners are all where its own key is. Which terms count is the rule of `plan.locality`, with partitions in the
place of tiles:

* a relation joined by LEFT, RIGHT or FULL JOIN is tied by a term of its own ON, any other by a term of its ON or, where all joins
  are inner, of WHERE;
* a *sub-query that refers to the row* (EXISTS, IN, a value) is right in the partition, whatever it does with its rows, if all its
  relations are tied to the row's; `x IN (SELECT y ..)` is such a tie itself where x is in the class, y stays what it is in every
  gathering of the sub-query, and FALSE and NULL mean the same. NOT IN asks for NULLs anywhere, so there neither may be NULL;
* a *derived table*, a common table expression or a set operation is computed in the partition if all its rows of one value of the
  output column c are made of leaves' rows with one value of theirs: c is a plain column, every GROUP BY, DISTINCT and PARTITION BY
  inside contains it, and its relations are tied by the same rule, starting from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.logical import Place
from qengine.plan.nesting import gatherings, holders, is_positive, own_expressions, queries_in
from qengine.sql.trees import find

_JOIN_SIDES = ("", "LEFT", "RIGHT", "FULL")
_FLOATS = ("FLOAT", "DOUBLE")
_LOCAL_ONLY = ("laterals", "windows", "sample")

Tied = Mapping[str, tuple[str, ...]]
"""Columns of each leaf's relation by which its rows are put into partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties:
    """Finds ties among blocks that read the relations of leaves.

    `leaves` are the names of those relations; `is_never_null` says whether a column of one holds no NULL; `ctes` are the common
    table expressions that the block may name.
    """

    leaves: frozenset[str]
    is_never_null: Callable[[str, str], bool]
    ctes: Mapping[str, exp.Query] = field(default_factory=dict)

    def of_block(self, select: exp.Select) -> Iterator[tuple[Mapping[str, str], Tied]]:
        """Yield the ways in which all relations of the block are tied: the column of each alias, and those of the leaves below."""
        items = list(terms.from_items(select))
        first = items[0][0].alias_or_name
        for start in dict.fromkeys(name for alias, name in _tied_places(select) if alias == first):
            found: dict[str, tuple[str, ...]] = {}
            if (known := self._solve(select, (first, start), {}, found)) is not None:
                yield known, found

    def below(self, item: exp.Expr, name: str) -> Tied | None:
        """Return the columns of leaves by which the rows of a FROM item with one value of its column `name` can be made."""
        found: dict[str, tuple[str, ...]] = {}
        return found if self._below(item, name, found) else None

    # -- one block ---------------------------------------------------------------------------------------

    def _solve(
        self, select: exp.Select, start: Place, outer: Mapping[str, str], found: dict[str, tuple[str, ...]]
    ) -> dict[str, str] | None:
        """Tie all relations of a block, the sub-queries in its expressions included, to the column `start` of one of them."""
        items = list(terms.from_items(select))
        known = dict([start])
        if not self._extend(select, items, known, outer):
            return None
        if not all(self._below(item, known[item.alias_or_name], found) for item, _ in items):
            return None
        return known if self._sub_queries(select, {**outer, **known}, found) else None

    def _extend(
        self, select: exp.Select, items: list[tuple[exp.Expr, exp.Join | None]], known: dict[str, str], outer: Mapping[str, str]
    ) -> bool:
        """Add to the class all relations of a block that are not in it; say whether that succeeded."""
        sides = [_side(join) for _, join in items if join is not None]
        if None in sides:
            return False
        ons = {item.alias_or_name: _equalities(join.args.get("on")) for item, join in items if join is not None}
        where = select.args.get("where")
        filters = _equalities(where.this) if where is not None else []
        if not any(sides):
            pool = [*filters, *(pair for pairs in ons.values() for pair in pairs)]
            return self._extend_any(pool, {item.alias_or_name for item, _ in items}, known, outer)
        for place, (item, _) in enumerate(items):
            # What WHERE says comes too late for a relation whose rows a join may replace by NULLs.
            usable = ons.get(item.alias_or_name, filters if outer and not {"RIGHT", "FULL"} & set(sides) else [])
            alias = item.alias_or_name
            if alias in known and place == 0:
                continue
            mine = self._tied(alias, usable, {**outer, **known})
            if mine is None or known.setdefault(alias, mine) != mine:
                return False
        return True

    def _extend_any(
        self, pairs: list[tuple[Place, Place]], aliases: set[str], known: dict[str, str], outer: Mapping[str, str]
    ) -> bool:
        """The same where all joins are inner: in any order."""
        waiting = aliases - known.keys()
        while waiting:
            added = {alias: mine for alias in waiting if (mine := self._tied(alias, pairs, {**outer, **known})) is not None}
            if not added:
                return False
            known.update(added)
            waiting -= added.keys()
        return True

    @staticmethod
    def _tied(alias: str, pairs: list[tuple[Place, Place]], known: Mapping[str, str]) -> str | None:
        for mine, other in _both_ways(pairs):
            if mine[0] == alias and other[0] != alias and known.get(other[0]) == other[1]:
                return mine[1]
        return None

    # -- derived tables ----------------------------------------------------------------------------------

    def _below(self, item: exp.Expr, name: str, found: dict[str, tuple[str, ...]]) -> bool:
        if isinstance(item, exp.Table):
            if item.db or item.args.get("joins"):
                return False
            if item.name in self.ctes:
                return self._output(self.ctes[item.name], name, found)
            if item.name not in self.leaves or found.get(item.name, (name,)) != (name,):
                return False
            found[item.name] = (name,)
            return True
        query = item.this if isinstance(item, exp.Subquery) else None
        alias = item.args.get("alias")
        if not isinstance(query, exp.Query) or (isinstance(alias, exp.TableAlias) and alias.args.get("columns")):
            return False
        return self._output(query, name, found)

    def _output(self, query: exp.Query, name: str, found: dict[str, tuple[str, ...]]) -> bool:
        names = [item.alias_or_name for item in query.selects]
        return name in names and self._column(query, names.index(name), found)

    def _column(self, query: exp.Query, number: int, found: dict[str, tuple[str, ...]]) -> bool:
        """Say whether the rows with one value of the output column can be made in one partition."""
        if any(query.args.get(clause) for clause in ("with_", "limit", "offset")):
            return False
        if isinstance(query, exp.Subquery):
            return isinstance(query.this, exp.Query) and self._column(query.this, number, found)
        if isinstance(query, exp.SetOperation):
            # Rows that are compared are equal in this column too.
            return self._column(query.left, number, found) and self._column(query.right, number, found)
        if not isinstance(query, exp.Select) or any(query.args.get(clause) for clause in _LOCAL_ONLY):
            return False
        place = terms.plain_column(query.selects[number].unalias()) if number < len(query.selects) else None
        if place is None or place[0] in filled_aliases(query) or not all(place in g.places for g in gatherings(query)):
            return False
        if place[0] not in {item.alias_or_name for item, _ in terms.from_items(query)}:
            return False
        return self._solve(query, place, {}, found) is not None

    # -- sub-queries -------------------------------------------------------------------------------------

    def _sub_queries(self, select: exp.Select, known: Mapping[str, str], found: dict[str, tuple[str, ...]]) -> bool:
        late = {id(q) for node in own_expressions(select, late_only=True) for q in queries_in(node)}
        is_gathering = bool(gatherings(select))
        for node in own_expressions(select):
            for query in queries_in(node):
                if is_gathering and id(query) in late:
                    return False
                if not self._sub_query(query, known, found):
                    return False
        return True

    def _sub_query(self, query: exp.Query, known: Mapping[str, str], found: dict[str, tuple[str, ...]]) -> bool:
        holder = holders(query)
        if isinstance(holder, exp.In) and (place := terms.plain_column(holder.this)) and known.get(place[0]) == place[1]:
            trial = dict(found)
            if self._column(query, 0, trial) and (is_positive(holder) or self._has_no_nulls(query, holder.this)):
                found.update(trial)
                return True
        if not isinstance(query, exp.Select) or any(query.args.get(clause) for clause in ("with_", *_LOCAL_ONLY)):
            return False
        items = list(terms.from_items(query))
        inside: dict[str, str] = {}
        if not items or not self._extend(query, items, inside, known):
            return False
        if not all(self._below(item, inside[item.alias_or_name], found) for item, _ in items):
            return False
        return self._sub_queries(query, {**known, **inside}, found)

    def _has_no_nulls(self, query: exp.Query, left: exp.Expr) -> bool:
        """Say whether neither side of NOT IN can be NULL: both are columns of leaves' rows as they are."""
        if not isinstance(query, exp.Select) or len(query.selects) != 1 or query.args.get("joins"):
            return False
        outer = left.find_ancestor(exp.Select)
        return outer is not None and all(
            self._is_never_null(select, terms.plain_column(node))
            for select, node in ((query, query.selects[0].unalias()), (outer, left))
        )

    def _is_never_null(self, select: exp.Select, place: Place | None) -> bool:
        if place is None or place[0] in filled_aliases(select):
            return False
        item = next((i for i, _ in terms.from_items(select) if i.alias_or_name == place[0]), None)
        return isinstance(item, exp.Table) and item.name in self.leaves and self.is_never_null(item.name, place[1])


def _tied_places(select: exp.Select) -> Iterator[Place]:
    """Yield the columns that a tie of the block may begin with."""
    for node in find(select, exp.EQ):
        if (pair := _equality(node)) is not None:
            yield from pair
    for holder in find(select, exp.In):
        if holder.args.get("query") is not None and (place := terms.plain_column(holder.this)) is not None:
            yield place


def _side(join: exp.Join) -> str | None:
    """Return the side of a join that can be exchanged, else None."""
    kind = (join.args.get("kind") or "").upper()
    side = (join.args.get("side") or "").upper()
    if join.args.get("method") or kind not in ("", "INNER", "CROSS", "OUTER") or side not in _JOIN_SIDES:
        return None
    return side


def _is_filled(sides: list[str | None]) -> bool:
    """Say whether a join may fill the first relation with NULLs."""
    return any(side in ("RIGHT", "FULL") for side in sides)


def _equalities(node: exp.Expr | None) -> list[tuple[Place, Place]]:
    return [pair for term in terms.conjuncts(node) if (pair := _equality(term)) is not None]


def _equality(term: exp.Expr) -> tuple[Place, Place] | None:
    term = terms.bare(term)
    if not isinstance(term, exp.EQ):
        return None
    left, right = terms.plain_column(term.this), terms.plain_column(term.expression)
    return (left, right) if left is not None and right is not None and left[0] != right[0] else None


def _both_ways(pairs: list[tuple[Place, Place]]) -> list[tuple[Place, Place]]:
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
