"""Sizes of tasks: equal ones, and those of short scans, which become smaller."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qengine.plan.cost import CostModel


def sizes(model: CostModel, total: int, **options: bool) -> list[int]:
    cuts = model.cuts(total, is_heavy=options.get("is_heavy", False))
    return np.diff(np.r_[0, cuts, total]).tolist()


def test_tasks_of_a_short_scan_become_smaller() -> None:
    found = sizes(CostModel(slots=2), 600_000_000)
    assert len(found) == 6
    assert found == sorted(found, reverse=True)
    assert found[0] == found[1] == 150_000_000
    assert found[-1] == 50_000_000


def test_a_scan_of_a_task_for_each_slot_is_one() -> None:
    assert sizes(CostModel(slots=2), 240_000_000) == [120_000_000] * 2
    assert sizes(CostModel(slots=5), 240_000_000) == [48_000_000] * 5


def test_tasks_of_long_heavy_and_tiny_scans_are_equal() -> None:
    assert len(set(sizes(CostModel(slots=2), 20_000_000_000))) == 1
    assert len(set(sizes(CostModel(slots=2), 240_000_000, is_heavy=True))) == 1
    assert len(set(sizes(CostModel(slots=2, min_task_s=1e-9), 240_000_000))) == 1


@given(st.integers(1, 10**11), st.integers(1, 40), st.booleans())
def test_all_is_read_in_tasks_that_are_short_enough(total: int, slots: int, is_heavy: bool) -> None:
    model = CostModel(slots=slots)
    found = sizes(model, total, is_heavy=is_heavy)
    assert sum(found) == total
    assert min(found) > 0
    assert max(found) <= model.max_task_s * model.scan_bytes_per_s + slots
