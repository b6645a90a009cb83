"""Prints ratios out of pytest-benchmark's JSON: every engine of a group against the bare one, of the same run.

    python -m bench.compare RESULT.json [OTHER.json]

Ratios are of medians; `best` is the ratio of the fastest rounds, which says more when others use the machine too. A second file is
an earlier run, whose ratio of medians stands in the last column. Targets are judged by the better of the two ratios and are stated
for 2e7 objects.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """At most `factor` times bare plus `plus_ms`."""

    factor: float = 0.0
    plus_ms: float = 0.0

    def is_met(self, ms: float, bare_ms: float) -> bool:
        return ms <= self.factor * bare_ms + self.plus_ms

    def __str__(self) -> str:
        parts = [f"{self.factor:g}x"] if self.factor else []
        return " + ".join([*parts, f"{self.plus_ms:g} ms"] if self.plus_ms else parts)


TARGETS = {
    "aggregate_narrow": Target(factor=1.25),
    "cone_1": Target(factor=1.5),
    "cone_0.01667": Target(factor=2, plus_ms=8),
    "key_1": Target(factor=2, plus_ms=8),
    "plan_cone": Target(plus_ms=20),
    "plan_full_sky": Target(plus_ms=1000),
}
LOAD_ROWS_PER_CORE_S, LOAD_PEAK_MB = 400_000, 4096
HEAD = f"{'group':34} {'engine':8} {'median ms':>10} {'best ms':>10} {'bare ms':>10} {'ratio':>7} {'best':>6}  {'target':18} before"


def groups(path: Path) -> Groups:
    """Return the benchmarks of a file by group and engine."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in json.loads(path.read_text())["benchmarks"]:
        engine = (entry.get("params") or {}).get("engine") or "qengine"
        found.setdefault(entry["group"] or entry["name"], {})[engine] = entry
    return found


def table(now: Groups, before: Groups) -> list[str]:
    """Return the lines of the table."""
    lines = [HEAD]
    for name, engines in now.items():
        bare = engines.get("bare")
        for engine, entry in engines.items():
            if engine != "bare":
                lines.append(_line(name, engine, entry, bare, before.get(name, {})))
            if extra := entry.get("extra_info"):
                figures = ", ".join(f"{key} {value:,.0f}" for key, value in extra.items())
                lines.append(f"    {engine}: {figures}{_load_verdict(engine, extra)}")
    return lines


def _line(name: str, engine: str, entry: Mapping[str, Any], bare: Mapping[str, Any] | None, old: Mapping[str, Any]) -> str:
    median, best = _ms(entry, "median"), _ms(entry, "min")
    bare_median, bare_best = (_ms(bare, "median"), _ms(bare, "min")) if bare else (0.0, 0.0)
    ratios = f"{bare_median:10.2f} {median / bare_median:7.2f} {best / bare_best:6.2f}" if bare else f"{'':10} {'':7} {'':6}"
    earlier = f"{_ms(old[engine], 'median') / _ms(old['bare'], 'median'):.2f}" if {engine, "bare"} <= old.keys() else ""
    target = TARGETS.get(name)
    verdict = ""
    if target is not None:
        is_met = target.is_met(median, bare_median) or target.is_met(best, bare_best)
        verdict = f"{target} {'met' if is_met else 'MISSED'}"
    return f"{name:34} {engine:8} {median:10.2f} {best:10.2f} {ratios}  {verdict:18} {earlier}".rstrip()


def _ms(entry: Mapping[str, Any], word: str) -> float:
    return float(entry["stats"][word]) * 1e3


def _load_verdict(engine: str, extra: Mapping[str, float]) -> str:
    if engine == "bare" or "rows_per_core_s" not in extra:
        return ""
    is_met = extra["rows_per_core_s"] >= LOAD_ROWS_PER_CORE_S and extra["peak_mb"] < LOAD_PEAK_MB
    return f"  [400 k rows/s/core, 4 GB: {'met' if is_met else 'MISSED'}]"


def main(arguments: list[str]) -> int:
    """The command line."""
    if not 1 <= len(arguments) <= 2 or not all(Path(a).is_file() for a in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    now, *before = (groups(Path(argument)) for argument in arguments)
    print("\n".join(table(now, before[0] if before else {})))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
