"""Slot accounting: the promises of the two lanes, in examples and for any history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qengine.coordinator.lanes import Lane, Slot, SlotPool
from qengine.plan.physical import WorkerId

A, B = WorkerId("a"), WorkerId("b")


def pool_of(**slots: int) -> SlotPool:
    pool = SlotPool()
    for worker, count in slots.items():
        pool.add(WorkerId(worker), count)
    return pool


def fill(pool: SlotPool, lane: Lane, *, is_scan_waiting: bool = False) -> list[Slot]:
    taken = []
    while free := pool.free(lane, is_scan_waiting=is_scan_waiting):
        taken.append(pool.take(free[0], lane))
    return taken


def test_scans_leave_one_slot_of_each_worker() -> None:
    pool = pool_of(a=4, b=2)
    assert [slot.worker for slot in fill(pool, Lane.SCAN)].count(A) == 3
    assert sorted(slot.worker for slot in fill(pool, Lane.INTERACTIVE)) == [A, B]


def test_a_worker_with_one_slot_takes_one_interactive_attempt_beside_a_scan() -> None:
    pool = pool_of(a=1)
    assert len(fill(pool, Lane.SCAN)) == 1
    assert len(fill(pool, Lane.INTERACTIVE, is_scan_waiting=True)) == 1
    assert not fill(pool, Lane.SCAN)


def test_interactive_attempts_use_everything_unless_a_scan_waits() -> None:
    assert len(fill(pool_of(a=3), Lane.INTERACTIVE)) == 3
    pool = pool_of(a=3)
    assert len(fill(pool, Lane.INTERACTIVE, is_scan_waiting=True)) == 2
    assert len(fill(pool, Lane.SCAN)) == 1


def test_scans_may_wait_on_busy_workers_and_take_nothing_from_small_queries() -> None:
    pool = SlotPool()
    pool.add(A, 3, 3)
    pool.add(B, 1)
    assert pool.ahead() == ()
    fill(pool, Lane.SCAN)
    assert pool.ahead() == (A,), "the other worker lets nothing wait"
    waiting = [pool.take(A, Lane.SCAN) for _ in range(2)]
    assert pool.ahead() == ()
    assert len(fill(pool, Lane.INTERACTIVE)) == 2
    for slot in waiting:
        assert not pool.free(Lane.SCAN, is_scan_waiting=True)
        pool.give_back(slot)
    assert not pool.free(Lane.SCAN, is_scan_waiting=True)


def test_the_least_loaded_worker_comes_first() -> None:
    pool = pool_of(a=4, b=4)
    pool.take(A, Lane.SCAN)
    assert pool.free(Lane.SCAN, is_scan_waiting=True) == (B, A)


def test_slots_of_an_earlier_incarnation_do_not_count() -> None:
    pool = pool_of(a=2)
    old = pool.take(A, Lane.INTERACTIVE)
    pool.remove(A)
    assert pool.count == 0
    pool.give_back(old)
    pool.add(A, 2)
    pool.give_back(old)
    pool.move(old, Lane.SCAN)
    assert len(fill(pool, Lane.INTERACTIVE)) == 2


@given(
    st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["take", "give", "move"]), st.sampled_from(list(Lane)), st.booleans()))
)
def test_any_history_keeps_the_promises(count: int, steps: list[tuple[str, Lane, bool]]) -> None:
    pool = pool_of(a=count)
    held: list[Slot] = []
    has_moved = False
    for step, lane, is_scan_waiting in steps:
        if step == "take" and pool.free(lane, is_scan_waiting=is_scan_waiting):
            held.append(pool.take(A, lane))
        elif step == "give" and held:
            pool.give_back(held.pop(0))
        elif step == "move" and held:
            pool.move(held[0], lane)
            has_moved = True
        scans = sum(slot.lane is Lane.SCAN for slot in held)
        assert len(held) <= max(count, 2)
        if not has_moved:
            assert scans <= max(1, count - 1)
            if scans == len(held):
                assert pool.free(Lane.INTERACTIVE, is_scan_waiting=True), "an interactive attempt waits only for its like"
    while held:
        pool.give_back(held.pop())
    assert len(fill(pool, Lane.INTERACTIVE)) == count


def test_scans_count_the_slots_that_they_use_at_once() -> None:
    pool = pool_of(a=3, b=1, c=2)
    assert pool.scan_count == 2 + 1 + 1
    assert len(fill(pool, Lane.SCAN)) == pool.scan_count
