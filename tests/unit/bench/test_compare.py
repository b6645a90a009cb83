from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.compare import Target, groups, main, table


def entry(group: str, engine: str | None, median_s: float, **extra: float) -> dict[str, Any]:
    stats = {"median": median_s, "min": median_s * 0.9}
    return {"group": group, "name": "x", "params": {"engine": engine} if engine else None, "stats": stats, "extra_info": extra}


def written(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"benchmarks": entries}))
    return path


def line(lines: list[str], start: str) -> str:
    return next(one for one in lines if one.split()[:2] == start.split())


def test_ratios_and_targets(tmp_path: Path) -> None:
    now = written(
        tmp_path / "now.json",
        entry("cone_1", "bare", 0.100), entry("cone_1", "qengine", 0.140), entry("cone_1", "workers", 0.160),
        entry("cone_0.01667", "bare", 0.003), entry("cone_0.01667", "qengine", 0.014), entry("cone_0.01667", "workers", 0.017),
        entry("plan_cone", None, 0.019),
    )  # fmt: skip
    lines = table(groups(now), {})
    assert "1.40" in line(lines, "cone_1 qengine")
    assert line(lines, "cone_1 qengine").endswith("1.5x met")
    assert line(lines, "cone_1 workers").endswith("1.5x MISSED")
    assert line(lines, "cone_0.01667 qengine").endswith("2x + 8 ms met")
    assert line(lines, "cone_0.01667 workers").endswith("2x + 8 ms MISSED")
    assert line(lines, "plan_cone qengine").endswith("20 ms met")


@pytest.mark.parametrize(("rate", "peak", "verdict"), [(5e5, 2e3, "met"), (3e5, 2e3, "MISSED"), (5e5, 5e3, "MISSED")])
def test_load(tmp_path: Path, rate: float, peak: float, verdict: str) -> None:
    now = written(
        tmp_path / "now.json", entry("load", "qengine", 30.0, rows_per_core_s=rate, peak_mb=peak), entry("load", "bare", 9.0)
    )
    assert table(groups(now), {})[-1].endswith(f"{verdict}]")


def test_an_earlier_run_stands_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = written(tmp_path / "now.json", entry("scan", "bare", 0.1), entry("scan", "workers", 0.1))
    before = written(tmp_path / "before.json", entry("scan", "bare", 0.1), entry("scan", "workers", 0.25))
    assert main([str(now), str(before)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("2.50")
    assert main([str(tmp_path / "none.json")]) == 2


def test_targets_in_words() -> None:
    assert [str(t) for t in (Target(factor=1.5), Target(plus_ms=20), Target(factor=2, plus_ms=8))] == ["1.5x", "20 ms", "2x + 8 ms"]
