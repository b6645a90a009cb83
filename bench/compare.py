"""Prints ratios out of pytest-benchmark's JSON: every engine of a group against the bare one, of the same run.

    python -m bench.compare RESULT.json [OTHER.json]

Ratios are of medians, and so are verdicts (`bench.targets`); `best` is the ratio of the fastest rounds, which says how much others
used the machine too. A second file is an earlier run, whose ratio of medians stands in the last column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.targets import LIMITS, TARGETS, Target

Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]


HEAD = f"{'group':34} {'engine':8} {'median ms':>10} {'best ms':>10} {'bare ms':>10} {'ratio':>7} {'best':>6}  {'target':28} before"


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
        for engine, entry in engines.items():
            if engine != "bare":
                lines.append(_line(name, engine, now, before.get(name, {})))
            if extra := entry.get("extra_info"):
                figures = ", ".join(f"{key} {value:,.4g}" if value < 10 else f"{key} {value:,.0f}" for key, value in extra.items())
                lines.append(f"    {engine}: {figures}{_verdicts(name, engine, extra)}")
    return lines


def _line(name: str, engine: str, now: Groups, old: Mapping[str, Mapping[str, Any]]) -> str:
    entry, bare = now[name][engine], now[name].get("bare")
    median, best = _ms(entry, "median"), _ms(entry, "min")
    bare_median, bare_best = (_ms(bare, "median"), _ms(bare, "min")) if bare else (0.0, 0.0)
    ratios = f"{bare_median:10.2f} {median / bare_median:7.2f} {best / bare_best:6.2f}" if bare else f"{'':10} {'':7} {'':6}"
    earlier = f"{_ms(old[engine], 'median') / _ms(old['bare'], 'median'):.2f}" if {engine, "bare"} <= old.keys() else ""
    target = next((t for t in TARGETS.get(name, ()) if t.engine in ("", engine)), None)
    verdict = "" if target is None else f"{target} {_verdict(target, median, engine, now, bare_median)}"
    return f"{name:34} {engine:8} {median:10.2f} {best:10.2f} {ratios}  {verdict:28} {earlier}".rstrip()


def _verdict(target: Target, median: float, engine: str, now: Groups, bare_median: float) -> str:
    if target.group:
        other = now.get(target.group, {}).get(engine)
        if other is None:
            return "not measured"
        bare_median = _ms(other, "median")
    return "met" if target.is_met(median, bare_median) else "MISSED"


def _ms(entry: Mapping[str, Any], word: str) -> float:
    return float(entry["stats"][word]) * 1e3


def _verdicts(name: str, engine: str, extra: Mapping[str, float]) -> str:
    limits = [limit for limit in LIMITS.get(name, ()) if engine != "bare" and limit.figure in extra]
    said = ", ".join(f"{limit} {'met' if limit.is_met(extra[limit.figure]) else 'MISSED'}" for limit in limits)
    return f"  [{said}]" if said else ""


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
