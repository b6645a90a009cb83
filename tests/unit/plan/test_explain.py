"""EXPLAIN as JSON, and the model of cost."""

from __future__ import annotations

import json

import pytest

from qengine.catalog.model import Table
from qengine.plan.cost import CostModel, used_fraction
from qengine.plan.explain import Explanation
from tests.support.imaginary import survey
from tests.support.planning import plan_of

CATALOG = survey(3)


def explain(text: str, **more: object) -> Explanation:
    return Explanation(
        statement=text,
        language="adql",
        snapshots={"dp": 1},
        warnings=("mind",),
        plan=plan_of(text, CATALOG),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "text",
    [
        "SELECT objectId FROM dp.Object WHERE objectId = 3",
        "SELECT flags, COUNT(*) AS n FROM dp.Object GROUP BY flags",
        "SELECT o.mag FROM dp.Object o FULL JOIN ext.Star s ON o.mag = s.mag",
        "SELECT mag FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(3, 3, 0.1)) = 1 AND dec > 80",
        "SELECT COUNT(*) AS n FROM dp.Object",
        "SELECT TOP 3 band FROM dp.Filter",
    ],
)
def test_json_is_plain_and_agrees_with_itself(text: str) -> None:
    tree = explain(text).to_json()
    assert json.loads(json.dumps(tree)) == tree
    assert tree["statement"] == text
    assert tree["tasks"] == sum(leaf["tasks"] for leaf in tree["fragments"])
    assert tree["estimated"]["bytes"] == sum(leaf["bytes"] for leaf in tree["fragments"])
    for leaf in tree["fragments"]:
        assert 0 <= leaf["parts"] <= leaf["of_parts"]
        assert leaf["relation"] in (tree["final"] or leaf["relation"])
        assert {"alias", "table", "snapshot", "reads", "margin_arcsec", "columns", "of_columns"} == set(leaf["inputs"][0])


def test_text_says_what_json_says() -> None:
    found = explain("SELECT a.mag FROM dp.Object a JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.001")
    text = found.to_text()
    assert "ring of 3.6 arcsec" in text
    assert "warning: mind" in text
    assert "final: none" in text
    assert found.to_json()["final"] is None


def test_analyze_adds_what_happened() -> None:
    worker = {"worker": "w0", "tasks": 3, "attempts": 4, "failures": 1, "rows": 7, "result_bytes": 56}
    worker |= {"part_bytes": 99, "seconds": 0.5, "cpu_seconds": 0.25}
    actual = {
        "lane": "scan", "tasks": 3, "attempts": 4, "retries": 1, "backups": 0, "rows": 7, "result_bytes": 56, "part_bytes": 99,
        "seconds": 0.5, "first_row_s": 0.1, "worker_seconds": 0.5, "cpu_seconds": 0.25, "dispatch_ms_per_task": 1.25,
        "is_limit_met": False, "workers": [worker],
        "slowest": {"task": 2, "worker": "w0", "seconds": 0.4, "rows": 5, "part_bytes": 50},
    }  # fmt: skip
    times = {"planning": 0.01, "steps": 0.0, "leaves": 0.5, "merge": 0.0, "delivery": 0.02, "total": 0.53}
    found = explain("SELECT mag FROM dp.Object", actual=(actual,), times=times, answer_rows=7)
    assert found.to_json()["fragments"][0]["actual"] == actual
    assert found.to_json()["actual"] == {"rows": 7, "seconds": times}
    text = found.to_text()
    assert "actual: 3 tasks in 4 attempts, 1 retry, 7 rows, 56 B, 0.500 s (0.500 s on workers, 0.250 s CPU, dispatch 1.2 ms" in text
    assert "slowest: task 2 on w0, 0.400 s, 5 rows" in text
    assert "w0: 3 tasks in 4 attempts, 1 failure, 7 rows, 56 B, 0.500 s, 0.250 s CPU" in text
    assert "actual: 7 rows in the answer, 0.530 s (planning 0.010, leaves 0.500, delivery 0.020)" in text


@pytest.mark.parametrize(
    ("total", "slots", "expected"),
    [
        (0, 1, 5_000_000),  # no task is worth less than `least_task_s`
        (40_000_000, 4, 10_000_000),  # a small query uses all slots
        (10**9, 4, 10**9 // 24),
        (10**12, 4, 250_000_000),
        (170_000_000, 2, 21_250_000),  # eight of them, where seven would leave one slot idle at the end
        (60_000_000, 2, 15_000_000),
        (10**9, 0, 10**9 // 6),
    ],
)
def test_a_task_is_a_share_between_bounds(total: int, slots: int, expected: int) -> None:
    assert CostModel(slots=slots).task_bytes(total, is_heavy=False) == expected


def test_tasks_with_many_rows_are_small_enough_to_hold_them() -> None:
    cost = CostModel(slots=2, result_bytes=20_000_000)
    assert cost.task_bytes(10**9, is_heavy=False, result=10**9) == 20_000_000
    assert cost.task_bytes(10**9, is_heavy=False, result=10**8) == cost.task_bytes(10**9, is_heavy=False)
    assert cost.task_bytes(10**8, is_heavy=False, result=10**12) == int(0.02 * 250e6)  # a task is worth its dispatch
    assert cost.task_bytes(10**8, is_heavy=False, result=19_000_000) == cost.task_bytes(10**8, is_heavy=False)


def test_heavy_tasks_are_smaller_and_time_is_bytes_by_slots() -> None:
    cost = CostModel(slots=4)
    assert cost.task_bytes(10**12, is_heavy=True) * 6 == pytest.approx(cost.task_bytes(10**12, is_heavy=False), rel=1e-6)
    assert cost.seconds(10**9) == 1.0
    assert CostModel(slots=1, min_task_s=0.0, max_task_s=0.0).task_bytes(10, is_heavy=False) == 1


def test_used_fraction_counts_widths() -> None:
    found = CATALOG.find("dp", "Object")
    assert found is not None
    table: Table = found.table
    assert used_fraction(table, [c.name for c in table.columns]) == 1.0
    assert used_fraction(table, []) == 0.0
    assert used_fraction(table, ["flags"]) < used_fraction(table, ["mag"]) < used_fraction(table, ["name"])
    assert used_fraction(table, ["nothing"]) == 0.0
