"""What work costs: bytes of the columns that are read, and how much of it makes a task.

Rates are settings that the registry may replace by measured ones. Decoding is the cost of a scan, so bytes of Parquet are the
measure; a task should take between `min_task_s` and `max_task_s`: long enough that dispatch is noise, short enough for progress and
retry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qengine.catalog.model import Table
from qengine.catalog.types import SqlType


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """`slots` is how many tasks run at once in the cluster; `scan_bytes_per_s` is per slot, of compressed columns read.

    Opening a part costs as much as reading `part_bytes` (0.17 ms). A task takes `min_task_s` to `max_task_s`; a small query is
    spread over the slots in tasks of `least_task_s` or more.
    """

    slots: int = 2
    scan_bytes_per_s: float = 250e6
    min_task_s: float = 0.1
    max_task_s: float = 1.0
    least_task_s: float = 0.02
    tasks_per_slot: int = 6
    heavy_factor: float = 6.0
    part_bytes: int = 40_000

    def task_bytes(self, total: int, *, is_heavy: bool) -> int:
        """Return how many bytes make one task of a fragment that reads `total`; heavy fragments join by distance."""
        rate = self.scan_bytes_per_s / (self.heavy_factor if is_heavy else 1.0)
        share = total / (self.tasks_per_slot * max(self.slots, 1))
        target = min(max(share, self.min_task_s * rate), self.max_task_s * rate)
        # A query of a few tasks' time still uses all slots, as long as a task is worth its dispatch.
        even = max(total / max(self.slots, 1), self.least_task_s * rate)
        target = max(1, int(min(target, even)))
        tasks = -(-total // target)
        if self.slots < tasks < self.tasks_per_slot * self.slots:
            # As many for each slot: of seven equal tasks on two slots the last one would run alone.
            return -(-total // (-(-tasks // self.slots) * self.slots))
        return target

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
