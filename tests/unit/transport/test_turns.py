"""Turns of attempts on a worker: the order, and that none is lost in any history."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from qengine.transport.turns import Turn, Turns


def test_small_queries_come_first_and_scans_leave_a_slot() -> None:
    async def run() -> None:
        turns = Turns(2)
        first, second = turns.ask(is_scan=True), turns.ask(is_scan=True)
        assert first.granted.is_set()
        assert not second.granted.is_set()
        small, later = turns.ask(is_scan=False), turns.ask(is_scan=False)
        assert small.granted.is_set()
        turns.end(first)
        assert later.granted.is_set()
        assert not second.granted.is_set()
        turns.end(small)
        assert second.granted.is_set()

    asyncio.run(run())


def test_a_small_query_does_not_wait_for_a_scan_that_has_the_only_slot() -> None:
    async def run() -> None:
        turns = Turns(1)
        scan, small, other = turns.ask(is_scan=True), turns.ask(is_scan=False), turns.ask(is_scan=False)
        assert small.granted.is_set()
        assert not other.granted.is_set(), "one, not all of them"
        turns.end(small)
        assert other.granted.is_set()
        turns.end(scan)
        waiting = turns.ask(is_scan=True)
        assert not waiting.granted.is_set()
        turns.end(other)
        assert waiting.granted.is_set()

    asyncio.run(run())


def test_long_work_is_that_of_a_scan_whatever_its_query_was_taken_for() -> None:
    async def run() -> None:
        turns = Turns(1, grown_s=0.05)
        long, small = turns.ask(is_scan=False), turns.ask(is_scan=False)
        assert not small.granted.is_set()
        await asyncio.wait_for(small.granted.wait(), 5)
        assert not long.is_over
        third = turns.ask(is_scan=False)
        await asyncio.sleep(0.2)
        assert not third.granted.is_set(), "the second has grown, too, but there are two already"
        turns.end(long)
        turns.end(small)
        assert third.granted.is_set()
        turns.end(third)
        again = [turns.ask(is_scan=True), turns.ask(is_scan=True)]
        assert [turn.granted.is_set() for turn in again] == [True, False]

    asyncio.run(run())


def test_a_withdrawn_turn_is_woken_and_over() -> None:
    async def run() -> None:
        turns = Turns(1)
        running, waiting, last = (turns.ask(is_scan=True) for _ in range(3))
        turns.withdraw(waiting)
        assert waiting.is_over
        assert waiting.granted.is_set()
        turns.end(waiting)
        assert not last.granted.is_set(), "a turn that never came frees nothing"
        turns.end(running)
        assert last.granted.is_set()

    asyncio.run(run())


@given(
    st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["ask", "end", "withdraw", "grow"]), st.booleans(), st.integers(0, 9)))
)
def test_any_history(slots: int, steps: list[tuple[str, bool, int]]) -> None:
    async def run() -> None:
        turns, held = Turns(slots), list[Turn]()
        for step, is_scan, place in steps:
            if step == "ask":
                held.append(turns.ask(is_scan=is_scan))
            elif step == "grow":
                young = [turn for turn in held if turn.granted.is_set() and not turn.is_scan]
                if young:
                    turns._grow(young[place % len(young)])
            elif held:
                turn = held.pop(place % len(held))
                (turns.end if step == "end" else turns.withdraw)(turn)
                turns.end(turn)
            running = [turn for turn in held if turn.granted.is_set()]
            small = sum(not turn.is_scan for turn in running)
            assert len(running) <= slots + 1
            assert len(running) <= slots or small <= 1 or step == "grow" or small <= slots
            waiting = [turn for turn in held if not turn.granted.is_set()]
            if any(not turn.is_scan for turn in waiting):
                assert len(running) >= slots
                assert small or len(running) > slots
            elif waiting and len(running) < slots:
                assert len(running) - small >= max(1, slots - 1)

    asyncio.run(run())
