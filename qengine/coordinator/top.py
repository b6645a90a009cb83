"""Stops a run of TOP n ORDER BY once nothing that is still to be read can be among the n first rows.

The tasks of such a run start in the order of `plan.top.TopOrder`. `TopWatch` keeps the n best values of the rows that have come.
The worst of them is compared with what every task can hold at best whose rows are not here yet: when it is better than all, they
need not run. With fewer than n values that are not NULL, any task may still matter.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.plan.top import TopOrder


class TopWatch:
    """Watches one run. `see` it every batch; `is_enough` says whether the rest may be left out."""

    def __init__(self, order: TopOrder) -> None:
        self._order = order
        self._is_open = np.ones(len(order.tasks), np.bool_)
        self._best: NDArray[Any] = order.best[:0]

    def see(self, batch: pa.RecordBatch) -> None:
        """Take notice of rows that have come."""
        spec = self._order.spec
        values = _values(batch.column(batch.schema.get_field_index(spec.output)))
        known = np.concatenate([self._best, values.astype(self._best.dtype)])
        if len(known) <= spec.rows:
            self._best = known
        elif known.dtype == object:
            choose = heapq.nlargest if spec.is_descending else heapq.nsmallest
            self._best = np.array(choose(spec.rows, known.tolist()), object)
        elif spec.is_descending:
            self._best = np.partition(known, len(known) - spec.rows)[len(known) - spec.rows :]
        else:
            self._best = np.partition(known, spec.rows - 1)[: spec.rows]

    def is_enough(self, done: Iterable[int]) -> bool:
        """Say whether no task but those that are `done` can hold one of the n first rows."""
        order, spec = self._order, self._order.spec
        self._is_open[list(done)] = False
        if len(self._best) < spec.rows:
            return False
        matters = np.flatnonzero(self._is_open & ~(order.is_null & order.is_known))
        if not order.is_known[matters].all():
            return False
        best = order.best[matters]
        if spec.is_descending:
            worst = self._best.min()
            return not (best >= worst if not spec.is_only else best > worst).any()
        worst = self._best.max()
        return not (best <= worst if not spec.is_only else best < worst).any()


def _values(column: pa.Array) -> NDArray[Any]:
    """Return the values that are not NULL, as statistics have them."""
    column = column.drop_null()
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if pa.types.is_floating(column.type):
        column = column.filter(pc.invert(pc.is_nan(column)))
    return np.asarray(column.to_numpy(zero_copy_only=False))
