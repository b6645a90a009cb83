"""Limits on what a query may cost, by its estimate; and what to do about a query that would cost more.

A limit is written as amounts of bytes and of time, `"10GB"`, `"60s"`, `"500GB,10min"`. The service has one and a call may have its
own; the smaller counts. A refusal says the estimate, the limit, and what would make this statement cheaper.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlglot import exp

from qengine.errors import ConfigError, QueryTooExpensiveError
from qengine.plan.forecast import forecast
from qengine.plan.fragment import LeafFragment, PhysicalPlan
from qengine.plan.logical import RegionFact, Tree
from qengine.plan.split import limit_of

_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]+)\s*")
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_WIDE = 0.5
"""A table of which more than this share of many columns is read has wide rows."""

_MANY_COLUMNS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLimit:
    """The most that a query may be estimated at; None: any."""

    bytes: float | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> CostLimit:
        """Read `"10GB"`, `"60s"` or both with a comma between; no text is no limit. Raise `ConfigError`."""
        found: dict[str, float] = {}
        for piece in text.split(",") if text.strip() else ():
            match = _AMOUNT.fullmatch(piece)
            unit = match[2].lower() if match else ""
            kind = "bytes" if unit in _BYTES else "seconds"
            if match is None or (unit not in _BYTES and unit not in _SECONDS) or kind in found:
                raise ConfigError(f"{text!r} is no limit of cost", hint="for example 10GB, 60s or 500GB,10min")
            found[kind] = float(match[1]) * (_BYTES.get(unit) or _SECONDS[unit])
        return cls(**found)

    def __and__(self, other: CostLimit) -> CostLimit:
        """Return the smaller of each."""
        return CostLimit(bytes=_smaller(self.bytes, other.bytes), seconds=_smaller(self.seconds, other.seconds))

    def __bool__(self) -> bool:
        return self.bytes is not None or self.seconds is not None

    def check(self, plan: PhysicalPlan, tree: Tree, *, earlier: Spent | None = None) -> None:
        """Raise `QueryTooExpensiveError` if the plan of `tree` is estimated above the limit, with what ran for it `earlier`."""
        if not self:
            return
        cost = forecast(plan)
        total = Spent(bytes=cost.bytes, seconds=cost.seconds) + (earlier or Spent())
        is_too_large = self.bytes is not None and total.bytes > self.bytes
        is_too_slow = self.seconds is not None and total.seconds > self.seconds
        if not is_too_large and not is_too_slow:
            return
        allowed = [show_bytes(self.bytes)] if is_too_large and self.bytes is not None else []
        allowed += [show_seconds(self.seconds)] if is_too_slow and self.seconds is not None else []
        raise QueryTooExpensiveError(
            f"the query is estimated to read {show_bytes(total.bytes)} in {show_seconds(total.seconds)}; allowed are "
            + " and ".join(allowed),
            hint="; ".join(advice(plan, tree)),
            details={"bytes": total.bytes, "seconds": total.seconds, "limit_bytes": self.bytes, "limit_seconds": self.seconds},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What parts of a statement are estimated to read, and how long they take."""

    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(bytes=self.bytes + other.bytes, seconds=self.seconds + other.seconds)


class CostMeter:
    """Asks a limit about the parts of one statement as they are planned: each counts with those before it."""

    def __init__(self, limit: CostLimit) -> None:
        self._limit = limit
        self._spent = Spent()

    def check(self, plan: PhysicalPlan, tree: Tree) -> None:
        """Raise `QueryTooExpensiveError` if this part takes the statement above the limit."""
        self._limit.check(plan, tree, earlier=self._spent)
        cost = forecast(plan)
        self._spent += Spent(bytes=cost.bytes, seconds=cost.seconds)


def advice(plan: PhysicalPlan, tree: Tree) -> tuple[str, ...]:
    """Return what would make the query cheaper, the most effective first."""
    found: list[str] = []
    for leaf in sorted(plan.leaves, key=lambda leaf: -leaf.estimate.bytes)[:2]:
        found += _about_region(leaf)
    if plan.leaves:
        found += _about_columns(max(plan.leaves, key=lambda leaf: leaf.estimate.bytes))
    if isinstance(tree, exp.Select) and limit_of(tree)[0] is None and _is_plain(tree):
        found.append("begin with TOP 1000 to see some rows")
    found.append("EXPLAIN shows where the cost comes from; ask for a higher limit if all of it is needed")
    return tuple(dict.fromkeys(found))


def _about_region(leaf: LeafFragment) -> list[str]:
    owner = next((i for i in leaf.inputs if i.alias == leaf.owner), None)
    if owner is None or any(isinstance(r.fact, RegionFact) for r in leaf.leaf.restrictions):
        return []
    table = owner.table.table
    if table.ra and table.dec and not table.director:
        return [f"restrict {table.full_name} to a region: CONTAINS(POINT({table.ra}, {table.dec}), CIRCLE(ra, dec, radius)) = 1"]
    if table.director:
        director = f"{table.schema}.{table.director}"
        return [f"join {table.full_name} with its director {director} by {table.director_key}, and restrict that to a region"]
    return []


def _about_columns(leaf: LeafFragment) -> list[str]:
    wide = max(leaf.inputs, key=lambda i: len(i.columns), default=None)
    if wide is None or len(wide.columns) < _MANY_COLUMNS or len(wide.columns) < _WIDE * len(wide.table.table.columns):
        return []
    count = f"{len(wide.columns)} of the {len(wide.table.table.columns)} columns"
    return [f"name the columns that are needed: {count} of {wide.table.table.full_name} are read"]


def _is_plain(tree: exp.Select) -> bool:
    return tree.args.get("group") is None and not any(node.meta.get("aggregate") for node in tree.walk())


def _smaller(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)


def show_bytes(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def show_seconds(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
