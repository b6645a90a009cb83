"""`CROSSMATCH(a, b, radius_arcsec, 'nearest' | 'all' [, 'inner' | 'left'])` in FROM: the cross-match of two tables by position.

`a` and `b` are tables that declare a position. The relation has the columns of a, those of b (names that a has too end in `_2`,
with a warning) and `separation_arcsec`. 'all' gives every pair within the radius, 'nearest' for each row of a the nearest row of
b, 'left' keeps the rows of a that have no partner, with NULLs. It is written here as the ordinary SQL that it means, before
anything is bound:

    CROSSMATCH(s.t, s.u, 1, 'nearest', 'left') AS m

is

    (SELECT a.*, b.*, DISTANCE(a.ra, a.dec, b.ra, b.dec) * 3600 AS separation_arcsec
     FROM s.t AS a LEFT JOIN s.u AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) <= 0.000277..
     QUALIFY ROW_NUMBER() OVER (PARTITION BY a.key ORDER BY DISTANCE(a.ra, a.dec, b.ra, b.dec), b.key) = 1) AS m

so pruning, locality and the kernel apply as to any other join. Of equally near partners the one with the smallest key is taken,
so that the answer is determined.

*Epochs.* Where a table declares proper motions and both tables an epoch, positions are taken at a common epoch: that of the table
without motions, or that of a if both have some. Motions are linear in space without parallax and radial velocity; a missing one
counts as zero. The rows are near each other as stored, too: within the radius plus the largest motion times the years. That is a
second term of the ON; it only gives the planner a margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from sqlglot import exp

from qengine.catalog.model import Table, TableSnapshot
from qengine.errors import QueryTypeError, UnsupportedQueryError
from qengine.sql.nodes import number, number_of, quoted
from qengine.sql.scopes import Context

NAME = "CROSSMATCH"
SEPARATION = "separation_arcsec"
MAX_RADIUS_ARCSEC = 30 * 3600.0

_USAGE = f"{NAME}(a, b, radius_arcsec, 'nearest' or 'all' [, 'inner' or 'left'])"
_MAS_PER_UNIT = {
    "mas/yr": 1.0, "mas.yr-1": 1.0, "mas yr-1": 1.0, "mas.yr**-1": 1.0, "arcsec/yr": 1e3, "arcsec.yr-1": 1e3, "arcsec yr-1": 1e3,
    "deg/yr": 3.6e6, "deg.yr-1": 3.6e6, "deg yr-1": 3.6e6, "uas/yr": 1e-3, "uas.yr-1": 1e-3,
}  # fmt: skip


TableFinder = Callable[[exp.Table], TableSnapshot]


def is_crossmatch(item: exp.Expr) -> bool:
    """Say whether an item of FROM is a call of the function."""
    return isinstance(item, exp.Table) and isinstance(item.this, exp.Anonymous) and str(item.this.this).upper() == NAME


@dataclass(frozen=True, slots=True)
class _Side:
    """One table of the match: its name in the SELECT that is written, and the years by which its positions are moved."""

    name: str
    snapshot: TableSnapshot
    years: float = 0.0

    @property
    def table(self) -> Table:
        return self.snapshot.table

    def column(self, name: str) -> exp.Expr:
        return exp.Column(this=quoted(name), table=quoted(self.name))

    def stored(self) -> list[exp.Expr]:
        """Right ascension and declination as they are stored."""
        return [self.column(self.table.ra), self.column(self.table.dec)]

    def place(self) -> list[exp.Expr]:
        """Right ascension and declination at the common epoch."""
        return self.stored() if self.years == 0.0 else _moved(self)


def expand(item: exp.Table, context: Context, find: TableFinder) -> exp.Subquery:
    """Return the derived table that the call means, of parsed nodes. `find` finds a table by its parsed name or raises.

    Raise `QueryTypeError` or `UnsupportedQueryError` at the argument that is wrong.
    """
    call = item.this
    arguments = call.expressions
    if not 4 <= len(arguments) <= 5:
        raise context.error(QueryTypeError, item, f"{NAME} takes 4 or 5 arguments, not {len(arguments)}", f"write {_USAGE}")
    first, second = (_Side(name, _table(node, context, find)) for name, node in zip(("a", "b"), arguments[:2], strict=True))
    radius = number_of(arguments[2])
    if radius is None or not 0 < radius <= MAX_RADIUS_ARCSEC:
        message = f"the radius of {NAME} is a number of arcseconds above 0 and up to {MAX_RADIUS_ARCSEC:g}"
        raise context.error(QueryTypeError, arguments[2], message, "write for example 1.0; for other joins use DISTANCE(..) < ..")
    is_nearest = _word(arguments[3], ("nearest", "all"), context) == "nearest"
    is_left = len(arguments) == 5 and _word(arguments[4], ("inner", "left"), context) == "left"
    if is_nearest and not first.table.key:
        message = f"{first.table.full_name} has no unique key, so its rows cannot be told apart"
        raise context.error(UnsupportedQueryError, arguments[0], message, "load it with --key, or match with 'all'")
    first, second = _at_one_epoch(first, second)
    select = _select(first, second, float(radius) / 3600.0, is_left=is_left)
    if is_nearest:
        select.set("qualify", exp.Qualify(this=exp.EQ(this=_rank(first, second), expression=number(1))))
    alias = item.args.get("alias") or exp.TableAlias(this=quoted(NAME.lower()))
    return exp.Subquery(this=select, alias=alias.copy())


# -- arguments ---------------------------------------------------------------------------------------------------------------------


def _table(node: exp.Expr, context: Context, find: TableFinder) -> TableSnapshot:
    if not isinstance(node, exp.Column) or isinstance(node.this, exp.Star):
        hint = "name a table; to restrict one, put conditions on the result: SELECT .. FROM CROSSMATCH(..) AS m WHERE .."
        raise context.error(QueryTypeError, node, f"{NAME} takes the names of two tables", hint)
    name = exp.Table(this=node.this.copy(), db=_copy(node.args.get("table")), catalog=_copy(node.args.get("db")))
    name.parent = node.parent
    found = find(name)
    if not found.table.ra:
        message = f"{found.table.full_name} declares no position"
        raise context.error(QueryTypeError, node, message, "name ra and dec when it is loaded, or join by DISTANCE(..) < ..")
    return found


def _copy(node: exp.Expr | None) -> exp.Expr | None:
    return None if node is None else node.copy()


def _word(node: exp.Expr, words: tuple[str, ...], context: Context) -> str:
    if isinstance(node, exp.Literal) and node.is_string and str(node.this).lower() in words:
        return str(node.this).lower()
    shown = " or ".join(f"'{word}'" for word in words)
    raise context.error(QueryTypeError, node, f"this argument of {NAME} is {shown}", f"write {_USAGE}")


# -- epochs ------------------------------------------------------------------------------------------------------------------------


def _at_one_epoch(first: _Side, second: _Side) -> tuple[_Side, _Side]:
    """Say by how many years the positions of each table are moved."""
    epochs = first.table.epoch, second.table.epoch
    moves = bool(first.table.pmra), bool(second.table.pmra)
    if epochs[0] is None or epochs[1] is None or epochs[0] == epochs[1] or not any(moves):
        return first, second
    if moves == (True, False):
        return replace(first, years=epochs[1] - epochs[0]), second
    return first, replace(second, years=epochs[0] - epochs[1])


def _moved(side: _Side) -> list[exp.Expr]:
    """Return the place to which the stored direction moves in a straight line: p + (pmra e + pmdec n) t, e and n being east and
    north at p."""
    ra, dec = (_call("RADIANS", node) for node in side.stored())
    scale = side.years * math.radians(1 / 3.6e6)
    east, north = (_motion(side, name, scale) for name in (side.table.pmra, side.table.pmdec))
    sin_ra, cos_ra, sin_dec, cos_dec = _call("SIN", ra), _call("COS", ra), _call("SIN", dec), _call("COS", dec)
    outward = _minus(cos_dec, _times(north, sin_dec))
    x = _minus(_times(outward, cos_ra), _times(east, sin_ra))
    y = _plus(_times(outward, sin_ra), _times(east, cos_ra))
    z = _plus(sin_dec, _times(north, cos_dec))
    across = _call("SQRT", _plus(_times(x, x), _times(y, y)))
    return [_call("DEGREES", _call("ATAN2", y, x)), _call("DEGREES", _call("ATAN2", z, across))]


def _motion(side: _Side, name: str, scale: float) -> exp.Expr:
    """Return the motion over the years in radians."""
    return _times(_call("COALESCE", side.column(name), number(0.0)), number(scale * _mas(side.table, name)))


def _mas(table: Table, name: str) -> float:
    column = table.column(name)
    unit = column.unit if column is not None else ""
    if (found := _MAS_PER_UNIT.get(unit.strip().lower())) is None:
        raise UnsupportedQueryError(
            f"the proper motion {table.full_name}.{name} has the unit '{unit}'",
            hint=f"declare one of {', '.join(sorted(set(_MAS_PER_UNIT)))}",
        )
    return found


def _furthest_deg(side: _Side) -> float:
    """Return how far the fastest row of a table moves between the epochs."""
    if side.years == 0.0:
        return 0.0
    fastest = [_largest(side.snapshot, name) * _mas(side.table, name) for name in (side.table.pmra, side.table.pmdec)]
    return math.hypot(*fastest) * abs(side.years) / 3.6e6


def _largest(snapshot: TableSnapshot, name: str) -> float:
    """Return the largest absolute value of a column in a snapshot."""
    if snapshot.inline is not None:
        bounds = pc.min_max(snapshot.inline[name]).as_py()
        return max(abs(float(bounds["min"] or 0.0)), abs(float(bounds["max"] or 0.0)))
    largest = 0.0
    for parts in (snapshot.home, snapshot.orphan):
        if not len(parts):
            continue
        stats = parts.stats.get(name)
        known = stats.is_known | (stats.nulls == parts.rows) if stats is not None else np.zeros(len(parts), bool)
        if stats is None or not known.all():
            raise UnsupportedQueryError(
                f"the largest proper motion in {snapshot.table.full_name} is not known: {name} has no statistics",
                hint="load the table again, or join by DISTANCE(..) < ..",
            )
        if stats.is_known.any():
            ends = (stats.minimum[stats.is_known], stats.maximum[stats.is_known])
            largest = max(largest, *(float(np.abs(end.astype(np.float64)).max()) for end in ends))
    return largest


# -- SQL ---------------------------------------------------------------------------------------------------------------------------


def _select(first: _Side, second: _Side, radius_deg: float, *, is_left: bool) -> exp.Select:
    condition: exp.Expr = exp.LTE(this=_distance(first, second), expression=number(radius_deg))
    if first.years or second.years:
        stored = _call("DISTANCE", *first.stored(), *second.stored())
        # A billionth of a degree more than the sum: rounding must not make the planner's margin the smaller one.
        margin = radius_deg + _furthest_deg(first) + _furthest_deg(second) + 1e-9
        condition = exp.And(this=condition, expression=exp.LTE(this=stored, expression=number(min(margin, 180.0))))
    join = exp.Join(this=_from(second), on=condition, **({"side": "LEFT"} if is_left else {}))
    separation = _times(_distance(first, second), number(3600.0))
    stars = [exp.Column(this=exp.Star(), table=quoted(side.name)) for side in (first, second)]
    items = [*stars, exp.Alias(this=separation, alias=quoted(SEPARATION))]
    return exp.Select(expressions=items, from_=exp.From(this=_from(first)), joins=[join])


def _from(side: _Side) -> exp.Table:
    table = side.table
    return exp.Table(this=quoted(table.name), db=quoted(table.schema), alias=exp.TableAlias(this=quoted(side.name)))


def _distance(first: _Side, second: _Side) -> exp.Expr:
    return _call("DISTANCE", *first.place(), *second.place())


def _rank(first: _Side, second: _Side) -> exp.Expr:
    ties = [second.table.key] if second.table.key else [second.table.ra, second.table.dec]
    order = [_distance(first, second), *(second.column(name) for name in ties)]
    return exp.Window(
        this=_call("ROW_NUMBER"),
        partition_by=[first.column(first.table.key)],
        order=exp.Order(expressions=[exp.Ordered(this=node, nulls_first=False) for node in order]),
        over="OVER",
    )


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def _plus(left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return exp.Paren(this=exp.Add(this=left.copy(), expression=right.copy()))


def _minus(left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return exp.Paren(this=exp.Sub(this=left.copy(), expression=right.copy()))


def _times(left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return exp.Paren(this=exp.Mul(this=left.copy(), expression=right.copy()))
