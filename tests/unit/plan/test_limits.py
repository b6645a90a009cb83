"""Limits on cost, what a refusal advises, and the guesses under both."""

from __future__ import annotations

import pytest

from qengine.errors import ConfigError, QueryTooExpensiveError
from qengine.plan.cost import CostModel, Rates
from qengine.plan.forecast import forecast
from qengine.plan.limits import CostLimit, CostMeter
from qengine.plan.optimize import optimize
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from tests.support.imaginary import survey
from tests.support.planning import plan_of

CATALOG = survey(4)


def refusal(text: str, limit: str) -> QueryTooExpensiveError:
    tree = optimize(bind(parse(text, "adql"), CATALOG).tree, CATALOG)
    with pytest.raises(QueryTooExpensiveError) as caught:
        CostLimit.parse(limit).check(plan_of(text, CATALOG), tree)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", CostLimit()),
        ("10GB", CostLimit(bytes=1e10)),
        (" 1.5 min , 2tb ", CostLimit(seconds=90.0, bytes=2e12)),
        ("60s", CostLimit(seconds=60.0)),
        (".5h", CostLimit(seconds=1800.0)),
    ],
)
def test_amounts(text: str, expected: CostLimit) -> None:
    assert CostLimit.parse(text) == expected


@pytest.mark.parametrize("text", ["10", "GB", "10GB,20GB", "ten s", "-1GB", "1GB 2s", "5 parsec", "10GB,"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(ConfigError, match="is no limit of cost"):
        CostLimit.parse(text)


def test_the_smaller_limit_counts() -> None:
    assert CostLimit(bytes=5, seconds=9) & CostLimit(seconds=3) == CostLimit(bytes=5, seconds=3)
    assert not CostLimit() & CostLimit()


def test_a_refusal_names_the_position_columns_and_the_estimate() -> None:
    error = refusal("SELECT objectId, mag FROM dp.Object", "1GB,1s")
    assert "estimated to read" in error.message
    assert "allowed are 1.0 GB and 1 s" in error.message
    assert "CONTAINS(POINT(ra, dec), CIRCLE(ra, dec, radius)) = 1" in error.hint
    assert "TOP 1000" in error.hint
    assert error.details["bytes"] > 1e9


def test_a_refusal_of_a_child_names_its_director() -> None:
    assert (
        "join dp.ForcedSource with its director dp.Object by objectId"
        in refusal("SELECT AVG(flux) AS f FROM dp.ForcedSource", "1MB").hint
    )


def test_who_has_a_region_or_groups_is_told_something_else() -> None:
    error = refusal(
        "SELECT flags, COUNT(*) AS n FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(3, 3, 20)) = 1 GROUP BY flags", "1kB"
    )
    assert "CONTAINS" not in error.hint
    assert "TOP" not in error.hint
    assert "EXPLAIN" in error.hint


def test_cheap_queries_pass() -> None:
    text = "SELECT mag FROM dp.Object WHERE objectId = 7"
    CostLimit.parse("1GB,1min").check(plan_of(text, CATALOG), parse(text, "adql").tree)


def test_guesses_follow_the_statement() -> None:
    def rows(text: str) -> int:
        return forecast(plan_of(text, CATALOG)).result_rows

    whole = rows("SELECT mag FROM dp.Object")
    assert rows("SELECT mag FROM dp.Object WHERE flags = 3") < whole / 10
    assert rows("SELECT mag FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(30, 30, 1)) = 1") < whole / 1000
    assert rows("SELECT mag FROM dp.Object WHERE objectId IN (1, 2, 3)") <= 3
    assert rows("SELECT TOP 5 mag FROM dp.Object") <= 5
    limited, unlimited = (
        forecast(plan_of("SELECT TOP 5 mag FROM dp.Object", CATALOG)),
        forecast(plan_of("SELECT mag FROM dp.Object", CATALOG)),
    )
    assert limited.seconds < unlimited.seconds / 10


def test_measured_rates_move_plans_a_little_and_estimates_as_they_are() -> None:
    usual = CostModel(slots=4)
    far = usual.with_rates(Rates.measured({"scan_bytes_per_s": 250e6 * 100, "of another version": 1.0}))
    assert far.scan_bytes_per_s == 4 * usual.scan_bytes_per_s
    assert far.rates.scan_bytes_per_s == 250e8
    slow = usual.with_rates(Rates(scan_bytes_per_s=1.0))
    assert slow.scan_bytes_per_s == usual.scan_bytes_per_s / 4
    assert slow.task_bytes(10**12, is_heavy=False) == pytest.approx(usual.task_bytes(10**12, is_heavy=False) / 4, rel=1e-6)


def test_parts_of_a_statement_count_together() -> None:
    text = "SELECT objectId FROM dp.Object WHERE mag > 5"
    plan, tree = plan_of(text, CATALOG), parse(text, "adql").tree
    meter = CostMeter(CostLimit(bytes=int(2.5 * forecast(plan).bytes)))
    meter.check(plan, tree)
    meter.check(plan, tree)
    with pytest.raises(QueryTooExpensiveError) as caught:
        meter.check(plan, tree)
    assert caught.value.details["bytes"] == 3 * forecast(plan).bytes
