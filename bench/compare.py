"""Prints ratios out of pytest-benchmark's JSON: every engine of a group against the bare one, by medians of the same run.

    python -m bench.compare RESULT.json [OTHER.json]

A second file is an earlier run; the last column then says how the engine's own ratio has changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGETS = {
    "aggregate_narrow": "1.25x", "cone_1": "1.5x", "cone_0.01667": "2x + 8 ms", "key_1": "2x + 8 ms", "plan_cone": "20 ms",
    "plan_full_sky": "1 s", "load": "400 k rows/s/core, 4 GB",
}  # fmt: skip


def groups(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the benchmarks of a file by group and engine."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in json.loads(path.read_text())["benchmarks"]:
        engine = (entry.get("params") or {}).get("engine") or ("bare" if "bare" in entry["name"] else "qengine")
        found.setdefault(entry["group"] or entry["name"], {})[engine] = entry
    return found


def lines(now: dict[str, dict[str, dict[str, Any]]], before: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the table as text."""
    table = [f"{'group':34} {'engine':8} {'median ms':>10} {'bare ms':>10} {'ratio':>7}  {'target':24} before"]
    for name, engines in now.items():
        bare = engines.get("bare")
        for engine, entry in engines.items():
            if engine == "bare":
                continue
            median = entry["stats"]["median"] * 1e3
            base = bare["stats"]["median"] * 1e3 if bare else None
            ratio = f"{median / base:7.2f}" if base else f"{'':7}"
            old = before.get(name, {})
            earlier = (
                f"{old[engine]['stats']['median'] / old['bare']['stats']['median']:.2f}" if {engine, "bare"} <= old.keys() else ""
            )
            shown = f"{base:10.1f}" if base else f"{'':10}"
            target = TARGETS.get(name, "")
            table.append(f"{name:34} {engine:8} {median:10.1f} {shown} {ratio}  {target:24} {earlier}")
            if extra := entry.get("extra_info"):
                table.append("    " + ", ".join(f"{key} {value:,.0f}" for key, value in extra.items()))
    return table


def main(arguments: list[str]) -> int:
    """The command line."""
    if not 1 <= len(arguments) <= 2 or not all(Path(a).is_file() for a in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    now, *before = (groups(Path(argument)) for argument in arguments)
    print("\n".join(lines(now, before[0] if before else {})))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
