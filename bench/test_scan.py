"""Full scans: the FTSObj, FTSSrc and FTSFSrc classes, joins of director and child, and modern filters."""

from __future__ import annotations

import pytest

from bench.conftest import Racing
from bench.statements import Statement, statements

CASES = statements("FTSObj", "FTSSrc", "FTSFSrc", "joinObjSrc", "joinObjFSrc", "modern")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_scan(race: Racing, case: Statement) -> None:
    race(case.name, case.adql, case.bare)
