"""What work costs: bytes of the columns that are read, how much of it makes a task, and how fast things go.

Decoding is the cost of a scan, so bytes of Parquet are the measure; a task should take between `min_task_s` and `max_task_s`: long
enough that dispatch is noise, short enough for progress and retry.

`Rates` are what the registry has measured (`coordinator.rates`); the defaults are those of one core of 2020. Estimated times
use them as they are. Planning uses them within a factor of `MOST_TRUSTED` of the defaults, so that a bad measurement makes tasks a
little too large or too small, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from qengine.catalog.model import Table
from qengine.catalog.types import SqlType

MOST_TRUSTED = 4.0
"""How far from its default a measured rate may move what is planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast one slot works, unless said otherwise. Bytes of scans are compressed bytes of the columns read; rows of joins by
    distance are those of the owner; pairs are of rows that are compared one by one; a merge is the coordinator's; `dispatch_s` is
    the time that a task costs beside its work; `exchange_bytes_per_s` and `export_bytes_per_s` are of Arrow bytes, the latter from
    the coordinator to a caller who does not wait."""

    scan_bytes_per_s: float = 250e6
    group_rows_per_s: float = 50e6
    sky_join_rows_per_s: float = 5e6
    pairs_per_s: float = 100e6
    exchange_bytes_per_s: float = 150e6
    merge_rows_per_s: float = 10e6
    export_bytes_per_s: float = 300e6
    dispatch_s: float = 0.003

    @classmethod
    def measured(cls, values: Mapping[str, float]) -> Rates:
        """Return the defaults with what is known instead; names of other versions are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_mapping(self) -> dict[str, float]:
        """Return the rates by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """`slots` is how many tasks run at once in the cluster; `scan_bytes_per_s` is per slot, of compressed columns read.

    Opening a part costs as much as reading `part_bytes` (0.17 ms). A task takes `min_task_s` to `max_task_s`; a small query is
    spread over the slots in tasks of `least_task_s` or more.

    A task is made so small that its rows are about `result_bytes`: they wait in memory until the task is finished, and those of a
    larger one on disk (`TaskLimits.hold_bytes`). One that joins by distance holds the rows that it reads in memory, about
    `held_bytes` of them.

    Rows of a leaf that may be more than `exchange_bytes` are exchanged between workers where possible (0: always, negative:
    never), in partitions of about `partition_bytes`.

    Of a table that is already here (an upload) with `near_rows` rows or more, a task reads what is near its cells, and a worker is
    sent the pieces of `near_piece_rows` rows that its tasks read (`plan.nearby`).
    """

    slots: int = 2
    scan_bytes_per_s: float = 250e6
    min_task_s: float = 0.1
    max_task_s: float = 1.0
    least_task_s: float = 0.02
    tasks_per_slot: int = 6
    heavy_factor: float = 6.0
    part_bytes: int = 40_000
    result_bytes: int = 24 << 20
    held_bytes: int = 128 << 20
    exchange_bytes: int = 32 << 20
    partition_bytes: int = 64 << 20
    near_rows: int = 20_000
    near_piece_rows: int = 65_536
    rates: Rates = Rates()

    def with_rates(self, rates: Rates) -> CostModel:
        """Return the model with measured rates; what is planned by them is bounded."""
        share = rates.scan_bytes_per_s / Rates().scan_bytes_per_s
        trusted = min(max(share, 1 / MOST_TRUSTED), MOST_TRUSTED)
        return replace(self, rates=rates, scan_bytes_per_s=self.scan_bytes_per_s * trusted)

    def bytes_of_pairs(self, pairs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return how many bytes could be read while these pairs of rows are compared; shape as given."""
        return (pairs * (self.scan_bytes_per_s / self.rates.pairs_per_s)).astype(np.int64)

    def task_bytes(self, total: int, *, is_heavy: bool, result: int = 0, held: int = 0) -> int:
        """Return how many bytes make one task of a fragment that reads `total`, puts out about `result` bytes of rows and holds
        `held` of those that it reads; heavy fragments join by distance."""
        rate = self.scan_bytes_per_s / (self.heavy_factor if is_heavy else 1.0)
        share = total / (self.tasks_per_slot * max(self.slots, 1))
        target = min(max(share, self.min_task_s * rate), self.max_task_s * rate)
        # A query of a few tasks' time still uses all slots, as long as a task is worth its dispatch.
        even = max(total / max(self.slots, 1), self.least_task_s * rate)
        if result > self.result_bytes:
            target = min(target, max(total * (self.result_bytes / result), self.least_task_s * rate))
        if held > self.held_bytes:
            target = min(target, total * (self.held_bytes / held))
        target = max(1, int(min(target, even)))
        tasks = -(-total // target)
        if self.slots < tasks < self.tasks_per_slot * self.slots:
            # As many for each slot: of seven equal tasks on two slots the last one would run alone.
            return -(-total // (-(-tasks // self.slots) * self.slots))
        return target

    def cuts(self, total: int, *, is_heavy: bool, result: int = 0, held: int = 0) -> npt.NDArray[np.int64]:
        """Return after how many bytes the second, third, .. task of a fragment begins; see `task_bytes`.

        Tasks are equal, but those of a short scan become smaller from round to round: of n tasks' time for each slot are made
        m < n, which take m, m - 1, .. 1 shares. So there are few to dispatch, and all slots end at about the same time. A scan of
        which every slot can do its share within one task's time is cut into as many. A model that asks for tasks shorter than
        their dispatch wants many.
        """
        target = self.task_bytes(total, is_heavy=is_heavy, result=result, held=held)
        count = -(-total // target)
        rounds = count // max(self.slots, 1)
        fewer = next(m for m in range(1, rounds + 2) if m * (m + 1) // 2 >= rounds)
        if total <= self.max_task_s * self.scan_bytes_per_s * self.slots:
            fewer = 1
        shares = fewer * (fewer + 1) // 2
        is_short = rounds * target * fewer <= shares * self.max_task_s * self.scan_bytes_per_s
        is_tiny = self.min_task_s <= self.rates.dispatch_s
        if is_heavy or is_tiny or result > self.result_bytes or rounds < 2 or not is_short:
            return np.arange(1, count, dtype=np.int64) * target
        weights = np.repeat(np.arange(fewer, 0, -1), self.slots)
        ends: npt.NDArray[np.int64] = np.cumsum(weights) * total // (shares * self.slots)
        return ends[:-1]

    def seconds(self, total: int) -> float:
        """Return the estimated time to read `total` bytes on all slots."""
        return total / (self.scan_bytes_per_s * max(self.slots, 1))


def used_fraction(table: Table, columns: Iterable[str]) -> float:
    """Return the share of a row's bytes that the named columns take, by the width of their types."""
    used = set(columns)
    widths = {c.name: width(c.type) for c in table.columns}
    return sum(w for name, w in widths.items() if name in used) / max(sum(widths.values()), 1)


def width(found: SqlType) -> int:
    """Return about how many bytes a value takes."""
    narrow = {"BOOLEAN": 1, "TINYINT": 1, "UTINYINT": 1, "SMALLINT": 2, "USMALLINT": 2, "INTEGER": 4, "UINTEGER": 4, "FLOAT": 4}
    return narrow.get(found.name, 16 if found.name in ("VARCHAR", "BLOB") or found.name.endswith("[]") else 8)
