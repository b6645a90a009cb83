"""Measured rates in the registry: one row per name, an average that follows what finished queries show.

Each observation comes with its weight, the seconds of work that it is made of. The stored value moves towards it by
`1 - exp(-weight / MEMORY_S)`, on a logarithmic scale: a rate that is ten times too high and one that is ten times too low cancel
out. A name that is not there yet begins with the default that the writer gives. Reading and writing happen in the caller's
transaction, in which writers exclude each other, so several coordinators may write; nothing is lost but the order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from qengine.catalog.migrations.tables import RATES

MEMORY_S = 60.0
"""So many seconds of work move an average by 63 per cent of the way."""

_FAR = 1000.0
"""What is this many times above or below the default is not a measurement."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A rate as some work showed it; `weight_s` is how long that work took."""

    value: float
    weight_s: float

    def joined(self, other: Observed) -> Observed:
        """Return both as one observation."""
        weight = self.weight_s + other.weight_s
        if weight <= 0:
            return self
        mean = (math.log(self.value) * self.weight_s + math.log(other.value) * other.weight_s) / weight
        return Observed(math.exp(mean), weight)


def is_plausible(value: float, default: float) -> bool:
    """Say whether a value may be a measurement of something that is about `default`."""
    return math.isfinite(value) and default / _FAR < value < default * _FAR


def moved(value: float, seen: Observed) -> float:
    """Return the average after one more observation."""
    share = 1.0 - math.exp(-max(seen.weight_s, 0.0) / MEMORY_S)
    return math.exp((1.0 - share) * math.log(value) + share * math.log(seen.value))


def read_rates(connection: sa.Connection) -> dict[str, float]:
    """Return the averages by name."""
    return {row.name: row.value for row in connection.execute(sa.select(RATES))}


def record_rates(connection: sa.Connection, observed: Mapping[str, Observed], defaults: Mapping[str, float]) -> None:
    """Move the averages towards what was observed; what has no default, or is not plausible, is left out."""
    now = datetime.now(UTC).replace(tzinfo=None)
    stored = {row.name: row for row in connection.execute(sa.select(RATES))}
    for name, seen in observed.items():
        if name not in defaults or not is_plausible(seen.value, defaults[name]):
            continue
        before = stored.get(name)
        start = before.value if before is not None and is_plausible(before.value, defaults[name]) else defaults[name]
        values = {"value": moved(start, seen), "weight_s": (before.weight_s if before else 0.0) + seen.weight_s, "updated": now}
        if before is None:
            connection.execute(sa.insert(RATES).values(name=name, **values))
        else:
            connection.execute(sa.update(RATES).where(RATES.c.name == name).values(values))
