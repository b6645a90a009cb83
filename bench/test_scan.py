"""Full scans: the FTSObj, FTSSrc and FTSFSrc classes, joins of director and child, and modern filters."""

from __future__ import annotations

import pytest

from bench.conftest import Bench, Racing
from bench.datagen import ASSOC_PER_OBJECT
from bench.statements import Statement, statements

CASES = statements("FTSObj", "FTSSrc", "FTSFSrc", "joinObjSrc", "joinObjFSrc", "modern")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_scan(race: Racing, case: Statement) -> None:
    race(case.name, case.adql, case.bare)


def test_one_percent_of_the_children(race: Racing, bench: Bench) -> None:
    (case,) = statements("children")
    if bench.tables["SourceAssoc"].rows < ASSOC_PER_OBJECT * bench.tables["Object"].rows:
        pytest.skip("the data were made by an older recipe: remove their folder to have them made again")
    race(case.name, case.adql, case.bare)
