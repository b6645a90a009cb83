"""Turns of attempts on a worker: the order, and that none is lost in any history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qengine.transport.turns import Turn, Turns


def test_small_queries_come_first_and_scans_leave_a_slot() -> None:
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


def test_a_withdrawn_turn_is_woken_and_over() -> None:
    turns = Turns(1)
    running, waiting, last = (turns.ask(is_scan=True) for _ in range(3))
    turns.withdraw(waiting)
    assert waiting.is_over
    assert waiting.granted.is_set()
    turns.end(waiting)
    assert not last.granted.is_set(), "a turn that never came frees nothing"
    turns.end(running)
    assert last.granted.is_set()


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["ask", "end", "withdraw"]), st.booleans(), st.integers(0, 9))))
def test_any_history(slots: int, steps: list[tuple[str, bool, int]]) -> None:
    turns, held = Turns(slots), list[Turn]()
    for step, is_scan, place in steps:
        if step == "ask":
            held.append(turns.ask(is_scan=is_scan))
        elif held:
            turn = held.pop(place % len(held))
            (turns.end if step == "end" else turns.withdraw)(turn)
            turns.end(turn)
        running = [turn for turn in held if turn.granted.is_set()]
        scans = sum(turn.is_scan for turn in running)
        assert len(running) <= slots
        assert scans <= max(1, slots - 1)
        waiting = [turn for turn in held if not turn.granted.is_set()]
        if waiting and len(running) < slots:
            assert all(turn.is_scan for turn in waiting)
            assert scans == max(1, slots - 1)
