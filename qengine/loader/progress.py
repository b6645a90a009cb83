"""How far a load is, and how long its stages took.

Stages report (stage, rows done, rows in all) where they stand; they know neither their table nor a clock. A `Meter` takes these
reports, adds table, rate and what is left, and hands on a `LoadProgress` for each. The time between two reports is that of the
stage that reports second: stages of a load run one after the other, so their seconds add up to those of the load.

Bytes are those of the rows as the inputs say them (bytes of all inputs over their rows): good enough for MB/s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from qengine.loader.request import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """Where a stage of a load stands. `rows_total` is an estimate, 0 if unknown; `eta_s` is what is left of the stage, None if
    that cannot be said. `table` is empty for what concerns the whole load."""

    table: str
    stage: str
    rows: int
    rows_total: int
    bytes: int
    bytes_total: int
    seconds: float
    rows_per_s: float
    eta_s: float | None

    @property
    def is_done(self) -> bool:
        """Say whether the stage has done all that it knows of."""
        return self.rows >= self.rows_total

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        left = None if self.eta_s is None else round(self.eta_s, 1)
        return asdict(self) | {"seconds": round(self.seconds, 3), "rows_per_s": round(self.rows_per_s), "eta_s": left}


Tell = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What a stage of a table did in how many seconds."""

    table: str
    stage: str
    rows: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


@dataclass(slots=True)
class _Stage:
    seconds: float = 0.0
    before: int = 0
    done: int = 0

    @property
    def rows(self) -> int:
        return self.before + self.done


@dataclass(slots=True)
class Meter:
    """Takes reports of stages (it is a `Progress`) and hands records to `tell` and the reports to `also`.

    `clock` says the time in seconds.
    """

    tell: Tell | None = None
    also: Progress | None = None
    clock: Callable[[], float] = time.monotonic
    _stages: dict[tuple[str, str], _Stage] = field(default_factory=dict)
    _row_bytes: dict[str, float] = field(default_factory=dict)
    _last: float | None = None

    def begin(self) -> None:
        """Let the time that counts begin now."""
        self._last = self.clock()

    def of(self, table: str, row_bytes: float = 0.0) -> Progress:
        """Return what the stages of a table report to; a row of its inputs has `row_bytes`."""
        self._row_bytes[table] = row_bytes
        return partial(self._report, table)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report that is of no table."""
        self._report("", stage, done, total)

    def mark(self, stage: str) -> None:
        """Count the time since the last report for `stage`, without telling anybody."""
        now = self.clock()
        self._stages.setdefault(("", stage), _Stage()).seconds += now - self._last if self._last is not None else 0.0
        self._last = now

    def times(self) -> tuple[StageTime, ...]:
        """Return what the stages have done so far, in the order in which they began."""
        return tuple(
            StageTime(
                table=table, stage=stage, rows=one.rows, bytes=round(one.rows * self._row_bytes.get(table, 0.0)),
                seconds=one.seconds,
            )
            for (table, stage), one in self._stages.items()
        )  # fmt: skip

    def _report(self, table: str, stage: str, done: int, total: int) -> None:
        now = self.clock()
        found = self._stages.setdefault((table, stage), _Stage())
        found.seconds += now - self._last if self._last is not None else 0.0
        self._last = now
        if done < found.done:  # the same stage of the table's other layout
            found.before += found.done
        found.done = done
        if self.also is not None:
            self.also(stage, done, total)
        if self.tell is not None:
            width = self._row_bytes.get(table, 0.0)
            rate = found.rows / found.seconds if found.seconds > 0 else 0.0
            self.tell(
                LoadProgress(
                    table=table, stage=stage, rows=done, rows_total=total, bytes=round(done * width),
                    bytes_total=round(total * width), seconds=found.seconds, rows_per_s=rate,
                    eta_s=max(0, total - done) / rate if rate > 0 and total else None,
                )
            )  # fmt: skip


def metered(progress: Progress | None) -> Meter:
    """Return a meter that reports to `progress`, which may be one itself."""
    return progress if isinstance(progress, Meter) else Meter(also=progress)


def for_table(progress: Progress, table: str, row_bytes: float = 0.0) -> Progress:
    """Return what the stages of a table report to."""
    return progress.of(table, row_bytes) if isinstance(progress, Meter) else progress
