"""Golden plans over imaginary catalogues: each `*.txt` is a statement, a line of dashes, and its EXPLAIN.

`make golden` rewrites them; their change is reviewed like code.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.imaginary import survey
from tests.support.planning import explain_text

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*.txt"))
RULE = "-" * 80
CATALOG = survey(7)
"""Of 196,608 tiles of Object."""


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_plan_is_golden(case: Path) -> None:
    statement, _, expected = case.read_text().partition(f"\n{RULE}\n")
    actual = explain_text(statement, CATALOG)
    if os.environ.get("QENGINE_GOLDEN"):
        case.write_text(f"{statement}\n{RULE}\n{actual}\n")
    else:
        assert actual == expected.rstrip("\n")


def test_there_are_plans() -> None:
    assert len(CASES) >= 20
