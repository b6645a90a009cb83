"""taplint, the outside judge of TAP services, with all its stages on a live service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")

ALLOWED = Path(__file__).with_name("taplint.md")
STAGES = {"TMV", "TME", "TMS", "TMC", "CPV", "CAP", "AVV", "QGE", "QPO", "QAS", "UWS", "MDQ", "OBS", "LOC", "UPL", "EXA"}


def allowed() -> set[str]:
    codes = set(re.findall(r"^\| ([EFW]-\w+-\w+) \|", ALLOWED.read_text(), re.MULTILINE))
    assert codes
    return codes


def test_taplint_finds_nothing(live: str) -> None:
    command = ["stilts", "taplint", f"tapurl={live}", "format=json", "report=EWF"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    found = json.loads(done.stdout)
    sections = found["sections"]
    # The exit status says nothing, and a stage that taplint skips is not a section.
    assert "user_ann.marked" in httpx.get(f"{live}/tables", trust_env=False).text
    assert "UPL" in {section["code"] for section in sections}
    assert len(STAGES & {section["code"] for section in sections}) >= 14, [section["code"] for section in sections]
    reports = [(f"{r['level'][0]}-{section['code']}-{r['code']}", r) for section in sections for r in section["reports"]]
    known = allowed()
    assert [(code, report.get("text", "")) for code, report in reports if code not in known] == []
    assert found["totals"]["ERROR"] == sum(code.startswith("E-") for code, _ in reports)
    assert found["totals"]["FAILURE"] + found["totals"]["WARNING"] == len(reports)
