"""Learns how fast things go from finished queries, for estimates of time.

A finished fragment shows the rate on which its work mainly depends: scans the bytes per second of one slot; joins by distance and
grouping their rows per second in the time that is left after the scan. Observations are gathered in memory and now and then, in
the background, written to the registry (`catalog.rates`), which averages over all coordinators; then the averages are read again.
A store that cannot be written to, a busy database, an odd measurement: none of it concerns a query.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from qengine.catalog.rates import Observed, is_plausible
from qengine.coordinator.report import DispatchReport
from qengine.coordinator.result import AnswerTimes
from qengine.coordinator.started import StartedQuery
from qengine.errors import QEngineError
from qengine.plan.cost import Rates
from qengine.plan.forecast import work_seconds
from qengine.plan.fragment import LeafFragment, PhysicalPlan

log = logging.getLogger(__name__)

_EVERY_S = 10.0
_WORTH_S = 0.5
_LEAST_WORK_S = 0.05
_LEAST_SHARE = 0.2
_DISPATCH_WEIGHT_S = 0.02
_LEAST_BYTES = 8 << 20
_LEAST_ROWS = 100_000
_CLOSE_S = 2.0


class RateStore(Protocol):
    """Where rates are kept: the registry."""

    def rates(self) -> Mapping[str, float]: ...
    def record_rates(self, observed: Mapping[str, Observed], defaults: Mapping[str, float]) -> None: ...


class RateKeeper:
    """The measured rates as this coordinator knows them. Used on one event loop."""

    def __init__(self, store: RateStore) -> None:
        self._store = store
        self._defaults = Rates().to_mapping()
        self._pending: dict[str, Observed] = {}
        self._written_at = time.monotonic()
        self._writing: asyncio.Task[None] | None = None
        self.rates = self._read()

    def learn(self, plan: PhysicalPlan, reports: Sequence[DispatchReport]) -> None:
        """Take notice of a plan that has run to its end."""
        for leaf, report in zip(plan.leaves, reports, strict=False):
            if len(report.tasks) == report.task_count and not report.is_limit_met:
                self._learn(leaf, report, plan)
        self._maybe_write()

    def learn_answer(self, *, gathered: int, merge_s: float, exported: int, export_s: float) -> None:
        """Take notice of a merge of so many rows, and of so many bytes that came out of it while the reader was asking for them."""
        if gathered >= _LEAST_ROWS and merge_s > 0:
            self._add("merge_rows_per_s", gathered / merge_s, merge_s)
        if exported >= _LEAST_BYTES and export_s > 0:
            self._add("export_bytes_per_s", exported / export_s, export_s)

    async def close(self) -> None:
        """Write what is worth it, and do not wait long."""
        if self._writing is None and self._worth_s < _WORTH_S:
            return
        self._start()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=_CLOSE_S)

    def _learn(self, leaf: LeafFragment, report: DispatchReport, plan: PhysicalPlan) -> None:
        spent = sum(task.elapsed_s for task in report.tasks)
        quick = [task.overhead_s for task in report.tasks if not task.is_spooled and task.attempt == 1]
        if quick:
            self._add("dispatch_s", sum(quick) / len(quick), _DISPATCH_WEIGHT_S * len(quick))
        if spent < _LEAST_WORK_S:
            return
        expected = work_seconds(leaf, plan.cost)
        others = [name for name in expected if name != "scan_bytes_per_s"]
        left = spent - expected["scan_bytes_per_s"]
        if not others:
            # The expectation is work by the rate in use; what was spent instead corrects the rate.
            self._add("scan_bytes_per_s", plan.cost.rates.scan_bytes_per_s * expected["scan_bytes_per_s"] / spent, spent)
        elif left > _LEAST_SHARE * spent:
            self._add(others[0], leaf.estimate.rows / left, left)

    def _add(self, name: str, value: float, weight_s: float) -> None:
        if is_plausible(value, self._defaults[name]):
            seen = Observed(value, weight_s)
            before = self._pending.get(name)
            self._pending[name] = seen if before is None else before.joined(seen)

    @property
    def _worth_s(self) -> float:
        return sum(seen.weight_s for seen in self._pending.values())

    def _maybe_write(self) -> None:
        if self._worth_s >= _WORTH_S and time.monotonic() - self._written_at > _EVERY_S:
            self._start()

    def _start(self) -> None:
        if self._writing is None and self._pending:
            observed, self._pending = self._pending, {}
            self._writing = asyncio.create_task(self._write(observed))

    async def _write(self, observed: Mapping[str, Observed]) -> None:
        try:
            self.rates = await asyncio.to_thread(self._exchange, observed)
        finally:
            self._written_at = time.monotonic()
            self._writing = None

    def _exchange(self, observed: Mapping[str, Observed]) -> Rates:
        try:
            self._store.record_rates(observed, self._defaults)
        except QEngineError as error:
            log.info("measured rates are not kept: %s", error)
        return self._read()

    def _read(self) -> Rates:
        try:
            known = self._store.rates()
        except QEngineError as error:
            log.info("measured rates cannot be read: %s", error)
            known = {}
        plausible = {name: value for name, value in known.items() if is_plausible(value, self._defaults.get(name, 0.0))}
        return Rates.measured(plausible)


def learn(keeper: RateKeeper, started: StartedQuery, times: AnswerTimes) -> None:
    """Take notice of a query whose answer has been read to its end."""
    if not started.is_planned:
        return
    plan, reports = started.plan, started.reports
    if plan.final_sql is not None:
        found = started.times(times, 0.0)
        gathered = sum(report.rows for report in reports)
        keeper.learn_answer(gathered=gathered, merge_s=found["merge"], exported=times.bytes, export_s=times.waited_s)
    keeper.learn(plan, reports)
