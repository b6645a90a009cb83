"""Nodes, disks and days for DP2, DR1 and DR11 out of measured rates.

    python -m bench.sizing RATES.json [--nodes 30] [--cores 32] [--disk-tb 60] [--copies 2] [--days 2] [--json]

RATES.json is what a load has kept (`qengine loads ID --json`; several in a list), or by table
`{"Object": {"rows_per_s_core": 500000, "row_bytes": 2900}}`, where `row_bytes` may be left out. A load's rate is the rows read over
the seconds of the table's stages, with its share by rows of what the whole load did, and over the cores of its host: a lower bound
where the load did not keep all cores busy. Its row width is that of what was written, margins and all. A table without a rate of
its own cannot be sized, and is an error.

Rows: knowledge/pipelines.md, section 6 (DP2 as published; DR1 and DR11 of the planning documents). Widths, where no load says one:
DP1's Parquet there, Object 2.9 kB, Source 595 B, ForcedSource 28 B a row. Two days for a release is the target of section 5.

Disk is rows times width times copies, with a fifth kept free. Nodes are as many as the disks need, or as the load needs to be done
in time, whichever is more; with --nodes, the days are those of as many nodes. All cores of all nodes are taken to load at the rate
of one: a network or a store that cannot feed them makes it longer.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROWS: Mapping[str, Mapping[str, float]] = {
    "DP2": {"Object": 786_420_720, "Source": 17_566_180_086, "ForcedSource": 44_727_948_693},
    "DR1": {"Object": 2.75e10, "Source": 9.01e11, "ForcedSource": 2.91e12},
    "DR11": {"Object": 4.74e10, "Source": 9.01e12, "ForcedSource": 5.01e13},
}
ROW_BYTES: Mapping[str, float] = {"Object": 2900, "Source": 595, "ForcedSource": 28}

_DAY_S = 86_400.0
_FILL = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What was measured of a table: rows per second and core, and bytes of a row on disk."""

    rows_per_s_core: float
    row_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The machines: `nodes` of zero asks how many are needed for a load in `days`."""

    nodes: int = 0
    cores: int = 32
    disk_bytes: float = 60e12
    copies: int = 2
    days: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a release needs: all copies on disk, core days of its load, nodes, and the days that they load for."""

    release: str
    rows: float
    disk_tb: float
    core_days: float
    nodes_for_disk: int
    nodes_for_load: int
    nodes: int
    days: float
    is_too_small: bool


def rates_of(words: Any) -> dict[str, Rate]:
    """Return the rates by table that a file holds. Raise `ValueError` if there are none in it."""
    found: dict[str, Rate] = {}
    loads = words if isinstance(words, list) else [words] if "context" in words else []
    for load in loads:
        summary = load["context"]["summary"]
        for table, counts in summary["tables"].items():
            share = counts["read"] / max(1, sum(one["read"] for one in summary["tables"].values()))
            seconds = sum(
                stage["seconds"] * (share if not stage["table"] else stage["table"] == table) for stage in summary["stages"]
            )
            if counts["read"] and counts["stored"] and seconds > 0:
                rate = counts["read"] / seconds / summary["cores"]
                found[table] = Rate(rows_per_s_core=rate, row_bytes=counts["bytes"] / counts["stored"])
    if not loads:
        for table, one in words.items():
            width = one.get("row_bytes", ROW_BYTES.get(table, 0))
            found[table] = Rate(rows_per_s_core=float(one["rows_per_s_core"]), row_bytes=float(width))
    if not found:
        raise ValueError("no rates of tables in the file")
    return found


def size_of(release: str, rates: Mapping[str, Rate], hosts: Hosts) -> Size:
    """Return what a release needs. Raise `ValueError` if the rate of one of its tables is unknown."""
    rows = ROWS[release]
    if missing := sorted(rows.keys() - rates.keys()):
        raise ValueError(f"{release}: no rate of {', '.join(missing)}")
    disk = sum(count * rates[table].row_bytes for table, count in rows.items()) * hosts.copies / _FILL
    core_days = sum(count / rates[table].rows_per_s_core for table, count in rows.items()) / _DAY_S
    for_disk = math.ceil(disk / hosts.disk_bytes)
    for_load = math.ceil(core_days / hosts.cores / hosts.days)
    nodes = hosts.nodes or max(for_disk, for_load)
    return Size(
        release=release, rows=sum(rows.values()), disk_tb=disk / 1e12, core_days=core_days, nodes_for_disk=for_disk,
        nodes_for_load=for_load, nodes=nodes, days=core_days / hosts.cores / nodes, is_too_small=nodes < for_disk,
    )  # fmt: skip


def table(sizes: Sequence[Size]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        f"{'release':8} {'rows':>10} {'disk TB':>10} {'core days':>11} {'for disk':>9} {'for load':>9} {'nodes':>7} {'days':>8}"
    ]
    for one in sizes:
        note = "  disks too small" if one.is_too_small else ""
        lines.append(
            f"{one.release:8} {one.rows:10.3g} {one.disk_tb:10,.1f} {one.core_days:11,.1f} {one.nodes_for_disk:9,} "
            f"{one.nodes_for_load:9,} {one.nodes:7,} {one.days:8.2f}{note}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the releases need."""
    parser = argparse.ArgumentParser(description="Nodes, disks and days for DP2, DR1 and DR11.")
    parser.add_argument("rates", type=Path)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--cores", type=int, default=32)
    parser.add_argument("--disk-tb", type=float, default=60.0)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    said = parser.parse_args(arguments)
    hosts = Hosts(nodes=said.nodes, cores=said.cores, disk_bytes=said.disk_tb * 1e12, copies=said.copies, days=said.days)
    rates = rates_of(json.loads(said.rates.read_text()))
    sizes = [size_of(release, rates, hosts) for release in ROWS]
    print(json.dumps([asdict(one) for one in sizes], indent=1) if said.json else "\n".join(table(sizes)))


if __name__ == "__main__":
    main()
