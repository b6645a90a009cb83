"""Aggregates over the whole of Object."""

from __future__ import annotations

import pytest

from bench.conftest import Racing
from bench.statements import Statement, statements

CASES = statements("aggregate")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_aggregate(race: Racing, case: Statement) -> None:
    race(case.name, case.adql, case.bare)
