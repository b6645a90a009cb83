from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.compare import groups, main, table
from bench.targets import Limit, Target


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
        entry("aggregate_narrow", "bare", 0.100), entry("aggregate_narrow", "qengine", 0.109), entry("aggregate_narrow", "workers", 0.111),
        entry("cone_0.01667", "bare", 0.003), entry("cone_0.01667", "qengine", 0.012), entry("cone_0.01667", "workers", 0.017),
        entry("cone_0.01667", "url", 0.018), entry("key_1", "qengine", 0.008), entry("key_2700_field", "qengine", 0.081),
        entry("key_2700_field", "workers", 0.081), entry("plan_cone", None, 0.019),
    )  # fmt: skip
    lines = table(groups(now), {})
    assert "1.09" in line(lines, "aggregate_narrow qengine")
    assert line(lines, "aggregate_narrow qengine").endswith("1.1x met")
    assert line(lines, "aggregate_narrow workers").endswith("1.1x MISSED")
    assert line(lines, "cone_0.01667 qengine").endswith("2x + 6 ms met")
    assert line(lines, "cone_0.01667 workers").endswith("5.67")
    assert line(lines, "cone_0.01667 url").endswith("2x + 11 ms MISSED")
    assert line(lines, "key_2700_field qengine").endswith("10x key_1 MISSED")
    assert line(lines, "key_2700_field workers").endswith("10x key_1 not measured")
    assert line(lines, "plan_cone qengine").endswith("20 ms met")


def test_verdicts_are_about_medians(tmp_path: Path) -> None:
    lucky = entry("aggregate_narrow", "workers", 0.2)
    lucky["stats"]["min"] = 0.01
    now = written(tmp_path / "now.json", entry("aggregate_narrow", "bare", 0.1), lucky)
    assert line(table(groups(now), {}), "aggregate_narrow workers").endswith("MISSED")


@pytest.mark.parametrize(("rate", "peak", "verdicts"), [(5e5, 2e3, "met met"), (3e5, 2e3, "MISSED met"), (5e5, 7e3, "met MISSED")])
def test_load(tmp_path: Path, rate: float, peak: float, verdicts: str) -> None:
    now = written(
        tmp_path / "now.json", entry("load", "qengine", 30.0, rows_per_core_s=rate, peak_mb=peak), entry("load", "bare", 9.0)
    )
    last = table(groups(now), {})[-1]
    assert [word for word in last.replace("]", "").replace(",", "").split() if word in ("met", "MISSED")] == verdicts.split()


def test_an_earlier_run_stands_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = written(tmp_path / "now.json", entry("scan", "bare", 0.1), entry("scan", "workers", 0.1))
    before = written(tmp_path / "before.json", entry("scan", "bare", 0.1), entry("scan", "workers", 0.25))
    assert main([str(now), str(before)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("2.50")
    assert main([str(tmp_path / "none.json")]) == 2


def test_targets_in_words() -> None:
    assert str(Limit(figure="peak_mb", most=1024)) == "peak_mb <= 1,024"
    assert str(Target(factor=10, group="key_1")) == "10x key_1"
    assert [str(t) for t in (Target(factor=1.5), Target(plus_ms=20), Target(factor=2, plus_ms=8))] == ["1.5x", "20 ms", "2x + 8 ms"]
