"""The estimator of progress: a fraction that never falls, an ETA that is honest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.coordinator.progress import Expected, ProgressEstimator, QueryPhase, QueryProgress, Work
from qengine.coordinator.report import RunProgress
from qengine.plan.physical import QueryId

PASSED_ON = Expected(merge_s=None, leaf_s=10.0)
STEPS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1), st.floats(1, 1e12), st.booleans()), min_size=1, max_size=30)


def work(done: float, total: float = 100.0, *, has_all: bool = True, is_gathered: bool = False) -> Work:
    return Work(done=done, total=total, has_all=has_all, is_gathered=is_gathered)


@given(steps=STEPS, merge_s=st.none() | st.floats(0, 1e4))
def test_the_fraction_never_falls_and_never_says_done(steps: list[tuple[float, float, float, bool]], merge_s: float | None) -> None:
    estimator = ProgressEstimator(Expected(merge_s=merge_s, leaf_s=5.0), began_at=0.0)
    at, before = 0.0, 0.0
    for step, share, total, has_all in steps:
        at += step
        seen = work(share * total, total, has_all=has_all, is_gathered=has_all and share == 1.0)
        fraction, eta = estimator.observe(seen, at)
        assert before <= fraction < 1.0
        assert eta is None or eta > 0
        before = fraction


def test_a_steady_query_ends_when_it_says() -> None:
    estimator = ProgressEstimator(PASSED_ON, began_at=0.0)
    for second in range(1, 90):
        _, eta = estimator.observe(work(float(second)), float(second))
        if second > 3:
            assert eta == pytest.approx(100 - second, rel=0.05)


def test_nothing_is_told_before_there_is_something_to_measure() -> None:
    estimator = ProgressEstimator(PASSED_ON, began_at=0.0)
    assert estimator.observe(work(50.0), 0.5)[1] is None  # too early
    estimator = ProgressEstimator(PASSED_ON, began_at=0.0)
    assert estimator.observe(work(0.0), 50.0)[1] is None  # nothing done
    assert estimator.observe(work(50.0, has_all=False), 60.0)[1] is None  # steps run, the rest is not planned


def test_what_does_not_move_is_not_about_to_end() -> None:
    estimator = ProgressEstimator(PASSED_ON, began_at=0.0)
    estimator.observe(work(99.0), 10.0)
    for waited in (5.0, 50.0, 500.0):
        _, eta = estimator.observe(work(99.0), 10.0 + waited)
        assert eta is not None
        assert eta >= waited


def test_a_slower_rate_is_noticed() -> None:
    estimator = ProgressEstimator(PASSED_ON, began_at=0.0)
    for second in range(1, 11):
        estimator.observe(work(5.0 * second), float(second))
    _, before = estimator.observe(work(50.0), 10.0)
    for second in range(11, 41):
        _, after = estimator.observe(work(50.0 + 0.5 * (second - 10)), float(second))
    assert before == pytest.approx(10, rel=0.1)
    assert after is not None
    assert after > 40  # 35 bytes are left, and half a byte comes in a second


def test_a_merge_is_told_by_its_estimate_and_unknown_after_it() -> None:
    estimator = ProgressEstimator(Expected(merge_s=4.0, leaf_s=4.0), began_at=0.0)
    fraction, _ = estimator.observe(work(100.0, is_gathered=True), 4.0)
    assert fraction == pytest.approx(0.5)
    later, eta = estimator.observe(work(100.0, is_gathered=True), 6.0)
    assert fraction < later < 1.0
    assert eta == pytest.approx(2.0)
    last, eta = estimator.observe(work(100.0, is_gathered=True), 60.0)
    assert later < last < 1.0
    assert eta is None


def test_runs_add_up() -> None:
    def run(done: float, total: float, *, is_over: bool) -> RunProgress:
        return RunProgress(
            query=QueryId("q"), tasks=4, finished=1, running=2, rows=7, fraction=done / total, done_cost=done, total_cost=total,
            is_over=is_over,
        )  # fmt: skip

    half = Work.of([run(5, 10, is_over=False), run(30, 30, is_over=True)])
    assert (half.done, half.total, half.tasks, half.tasks_done, half.tasks_running) == (35, 40, 8, 2, 4)
    assert half.has_all
    assert not half.is_gathered
    assert Work.of([run(30, 30, is_over=True)]).is_gathered
    outlined = Work.of([run(30, 30, is_over=True)], pending=60.0, has_all=False)
    assert (outlined.total, outlined.is_gathered) == (90, False)


def test_progress_survives_json() -> None:
    progress = QueryProgress(
        query=QueryId("abc"), statement="SELECT 1", language="adql", phase=QueryPhase.MERGING, began=datetime.now(UTC).replace(microsecond=0),
        elapsed_s=1.5, fraction=0.25, eta_s=3.5, bytes_done=1, bytes_total=4, tasks_done=1, tasks=4, tasks_running=2, rows=9,
    )  # fmt: skip
    assert QueryProgress.from_json(progress.to_json()) == progress
