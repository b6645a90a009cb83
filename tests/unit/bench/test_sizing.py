from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.sizing import ROWS, Hosts, Rate, main, rates_of, size_of

EVEN = {name: Rate(rows_per_s_core=1e6, row_bytes=100.0) for name in ("Object", "Source", "ForcedSource")}


def test_disks_and_days_of_a_release() -> None:
    rows = sum(ROWS["DP2"].values())
    size = size_of("DP2", EVEN, Hosts(cores=10, disk_bytes=1e12, copies=2, days=0.01))
    assert size.disk_tb == pytest.approx(rows * 100 * 2 / 0.8 / 1e12)
    assert size.core_days == pytest.approx(rows / 1e6 / 86_400)
    assert (size.nodes_for_disk, size.nodes_for_load, size.nodes) == (16, 8, 16)
    assert size.days == pytest.approx(size.core_days / 160)


def test_nodes_that_are_given_are_taken_and_called_too_small() -> None:
    size = size_of("DP2", EVEN, Hosts(nodes=3, cores=10, disk_bytes=1e12))
    assert (size.nodes, size.is_too_small) == (3, True)


def test_rates_of_loads_are_rows_over_seconds_and_cores() -> None:
    stages = [{"table": "Object", "seconds": 2.0}, {"table": "Object", "seconds": 3.0}, {"table": "", "seconds": 5.0}]
    summary = {"tables": {"Object": {"read": 1000, "stored": 500, "bytes": 50_000}}, "stages": stages, "cores": 2}
    assert rates_of({"context": {"summary": summary}}) == {"Object": Rate(rows_per_s_core=50.0, row_bytes=100.0)}


def test_a_table_without_a_rate_is_an_error() -> None:
    with pytest.raises(ValueError, match="DR1: no rate of ForcedSource, Source"):
        size_of("DR1", {"Object": EVEN["Object"]}, Hosts())
    with pytest.raises(ValueError, match="no rates"):
        rates_of({})


def test_the_releases_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({name: {"rows_per_s_core": 5e5} for name in EVEN}))
    main([str(path)])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["release", *ROWS]
    main([str(path), "--json"])
    assert [one["release"] for one in json.loads(capsys.readouterr().out)] == list(ROWS)
