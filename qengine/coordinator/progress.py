"""How far a query is, and when it may end: a pure estimator over what its runs say.

*Fraction.* Work is counted in estimated bytes of all tasks, running ones by the share that their workers report; statements that
run first (steps) count with the rest, and as long as the main statement is only outlined its estimate stands for it. A final merge
has the share of the whole that its expected time has; it cannot be watched, so it approaches its end without reaching it:
`t / (t + expected)`. The fraction never falls: when an attempt is lost and its work is done again, or a plan turns out larger, it
stands still until the work has caught up. It is 1 only when the query has ended.

*ETA.* From the rates of this query itself: the mean of what its rate since it began says and what its recent rate says (an
exponential mean over a few seconds, longer for long queries). It is unknown (None) before there is something to measure, and when a
merge outlasts its estimate. Something that has not moved for n seconds is not about to end: then the ETA is at least n seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from qengine.coordinator.report import RunProgress
from qengine.plan.physical import QueryId

_LEAST_S = 1.0
_LEAST_FRACTION = 0.01
_RECENT_S = 4.0
_LEAST_RECENT = 0.1
_RECENT_SHARE = 0.2
_STALL_S = 2.0
_MERGE_SHARE = (0.01, 0.5)


class QueryPhase(Enum):
    """What a query is doing. The last three are its ends."""

    PLANNING = "planning"
    WAITING = "waiting"
    STEPS = "steps"
    RUNNING = "running"
    MERGING = "merging"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        return self in (QueryPhase.FINISHED, QueryPhase.FAILED, QueryPhase.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All runs of a query together, in estimated bytes. `has_all` says that nothing more will be planned, `is_gathered` that no run
    needs more tasks, so that only the merge is left."""

    done: float = 0.0
    total: float = 0.0
    tasks_done: int = 0
    tasks: int = 0
    tasks_running: int = 0
    has_all: bool = False
    is_gathered: bool = False

    @classmethod
    def of(cls, runs: Iterable[RunProgress], *, pending: float = 0.0, has_all: bool = True) -> Work:
        """Add runs up; `pending` is the estimate of what has no run yet."""
        known = tuple(runs)
        return cls(
            done=sum(run.done_cost for run in known),
            total=sum(run.total_cost for run in known) + pending,
            tasks_done=sum(run.finished for run in known),
            tasks=sum(run.tasks for run in known),
            tasks_running=sum(run.running for run in known),
            has_all=has_all,
            is_gathered=has_all and all(run.is_over for run in known),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryProgress:
    """One query at one moment. `rows` is how many of the answer were delivered; `eta_s` is None where nothing honest can be said;
    bytes are estimates of what the columns take in the files."""

    query: QueryId
    statement: str
    language: str
    phase: QueryPhase
    began: datetime
    elapsed_s: float
    fraction: float
    eta_s: float | None
    bytes_done: int
    bytes_total: int
    tasks_done: int
    tasks: int
    tasks_running: int
    rows: int
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "query": self.query,
            "statement": self.statement,
            "language": self.language,
            "phase": self.phase.value,
            "began": self.began.isoformat(timespec="milliseconds"),
            "elapsed_s": round(self.elapsed_s, 3),
            "fraction": round(self.fraction, 4),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "tasks_done": self.tasks_done,
            "tasks": self.tasks,
            "tasks_running": self.tasks_running,
            "rows": self.rows,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> QueryProgress:
        """Return what `to_json` wrote."""
        values = {name: plain[name] for name in cls.__slots__}
        return cls(**{**values, "phase": QueryPhase(plain["phase"]), "began": datetime.fromisoformat(plain["began"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Expected time of the final merge (None if the rows of the workers are the answer), and of everything before it."""

    merge_s: float | None = None
    leaf_s: float = 0.0


class ProgressEstimator:
    """Turns a query's work so far into a fraction that never falls and an ETA. `began_at` is when the work began, on the clock
    that `observe` is given."""

    def __init__(self, expected: Expected, *, began_at: float) -> None:
        merge_s, leaf_s = expected.merge_s, expected.leaf_s
        self._merge_s = merge_s
        self._share = 0.0
        if merge_s is not None:
            self._share = min(max(merge_s / max(merge_s + leaf_s, 1e-9), _MERGE_SHARE[0]), _MERGE_SHARE[1])
        self._began_at = began_at
        self._seen_at = began_at
        self._moved_at = began_at
        self._gathered_at: float | None = None
        self._fraction = 0.0
        self._recent: float | None = None

    @property
    def has_merge(self) -> bool:
        """Whether something is left to do when all rows are gathered."""
        return self._merge_s is not None

    def observe(self, work: Work, at: float) -> tuple[float, float | None]:
        """Take notice of the work at a time that does not go back; return fraction and ETA in seconds."""
        at = max(at, self._seen_at)
        if not work.is_gathered:
            self._gathered_at = None
        elif self._gathered_at is None:
            self._gathered_at = at
        raw = (1.0 - self._share) * self._leaf_fraction(work)
        if self._gathered_at is not None and self._merge_s is not None:
            spent = at - self._gathered_at
            raw += self._share * spent / (spent + max(self._merge_s, 0.1))
        self._advance(min(raw, 0.999), at)
        return self._fraction, self._eta_s(work, at)

    @staticmethod
    def _leaf_fraction(work: Work) -> float:
        if work.total <= 0:
            return 1.0 if work.is_gathered else 0.0
        return min(1.0, max(0.0, work.done / work.total))

    def _advance(self, fraction: float, at: float) -> None:
        step = at - self._seen_at
        gain = max(0.0, fraction - self._fraction)
        if step > 0:
            window = max(_RECENT_S, _RECENT_SHARE * (at - self._began_at))
            weight = 1.0 if self._recent is None else 1.0 - math.exp(-step / window)
            self._recent = (self._recent or 0.0) * (1.0 - weight) + gain / step * weight
        if gain > 0:
            self._moved_at = at
        self._fraction += gain
        self._seen_at = at

    def _eta_s(self, work: Work, at: float) -> float | None:
        elapsed = at - self._began_at
        if self._gathered_at is not None:
            if self._merge_s is None:
                return None  # only the reader decides now
            left = self._gathered_at + self._merge_s - at
            return left if left > 0 else None
        if elapsed < _LEAST_S or self._fraction < _LEAST_FRACTION or not work.has_all or self._recent is None:
            return None
        mean = self._fraction / elapsed
        left = 1.0 - self._fraction
        eta = (left / mean + left / max(self._recent, _LEAST_RECENT * mean)) / 2
        stalled = at - self._moved_at
        return max(eta, stalled) if stalled > _STALL_S else eta
