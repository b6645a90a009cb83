"""A run of TOP n stops only when no task that is left could hold one of the rows, whatever the statistics do not know."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.model import NO_PARTS, ColumnStats, Parts, RowGroups, Table, TableKind, TableSnapshot
from qengine.catalog.types import DOUBLE
from qengine.coordinator.top import TopWatch
from qengine.plan.top import TopSpec, narrowed, order_of
from qengine.sky.cells import BEYOND_END, RangeSet

TABLE = Table(schema="s", name="t", kind=TableKind.DIRECTOR, columns=())
VALUES = st.one_of(st.none(), st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf]), st.integers(-3, 3).map(float))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[float | None]], Parts]:
    """Rows per part, and parts of which some bounds, some NULLs and some exactness are not known."""
    rows = draw(st.lists(st.lists(VALUES, max_size=5), min_size=1, max_size=8))
    count = len(rows)
    low, high, nulls, known, exact = [], [], [], [], []
    for part in rows:
        held = [value for value in part if value is not None]
        is_known = bool(held) and draw(st.integers(0, 4)) > 0
        slack = draw(st.sampled_from([0.0, 0.0, 0.5])) if is_known else 0.0
        low.append(min(held) - slack if is_known else 0.0)
        high.append(max(held) + slack if is_known else 0.0)
        nulls.append(len(part) - len(held) if draw(st.booleans()) else -1)
        known.append(is_known)
        exact.append(is_known and slack == 0)
    start = np.arange(count, dtype=np.int64) * 10
    none = np.zeros(0, np.int64)
    parts = Parts(
        digest=pa.array([""] * count), uri=pa.array([str(n) for n in range(count)]), rows=np.array([len(p) for p in rows], np.int64),
        bytes=np.ones(count, np.int64), start=start, stop=start + 10, lowest=start, highest=start + 9,
        row_groups=RowGroups(np.zeros(count + 1, np.int64), none, none, none, none),
        stats={"x": ColumnStats(np.array(low), np.array(high), np.array(nulls, np.int64), np.array(known), np.array(exact))},
    )  # fmt: skip
    return rows, parts


Row = tuple[float | None, int]


def best(rows: list[Row], n: int, *, is_descending: bool) -> list[Row]:
    """Return the n first rows by value, NULLs last, then by number."""

    def place(row: Row) -> tuple[bool, float, int]:
        value = 0.0 if row[0] is None else row[0]
        return row[0] is None, -value if is_descending else value, row[1]

    return sorted(rows, key=place)[:n]


@given(tables(), st.integers(1, 6), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 7))
def test_rows_that_are_left_out_do_not_matter(
    table: tuple[list[list[float | None]], Parts], n: int, is_descending: bool, is_only: bool, is_bare: bool, width: int
) -> None:
    rows, parts = table
    snapshot = TableSnapshot(table=TABLE, number=1, home=parts, orphan=NO_PARTS, margin=NO_PARTS)
    spec = TopSpec(
        table=snapshot, output="x", column="x", type=DOUBLE, rows=n, is_descending=is_descending, is_only=is_only, is_bare=is_bare
    )
    work = narrowed(spec, RangeSet.whole())
    cuts = np.arange(0, 10 * len(rows), 10 * (1 + width), dtype=np.int64)
    bounds = np.r_[cuts, BEYOND_END].astype(np.int64)
    order = order_of(spec, work, bounds)
    assert sorted(order.tasks.tolist()) == list(range(len(cuts)))
    numbers = iter(np.random.default_rng(0).permutation(sum(map(len, rows))).tolist())
    numbered: list[list[Row]] = [[(value, next(numbers)) for value in part] for part in rows]
    watch = TopWatch(order)
    seen: list[Row] = []
    for number, task in enumerate(order.tasks.tolist()):
        met = [p for p in parts.meeting(work).tolist() if bounds[task] <= parts.start[p] < bounds[task + 1]]
        sent = best([row for p in met for row in numbered[p]], n, is_descending=is_descending)
        seen += sent
        watch.see(pa.record_batch({"x": pa.array([value for value, _ in sent], pa.float64())}))
        if watch.is_enough([number]):
            break
    found = best(seen, n, is_descending=is_descending)
    expected = best([row for part in numbered for row in part], n, is_descending=is_descending)
    assert [value for value, _ in found] == [value for value, _ in expected]
    if not is_only:
        assert found == expected, "the second column decides between equal values"
