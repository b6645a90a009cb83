"""Progress and summaries of loads: records with rates, seconds that add up, rows that add up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.errors import IntegrityError
from qengine.loader.load import load
from qengine.loader.progress import LoadProgress, Meter
from qengine.loader.request import LoadRequest
from qengine.loader.summary import LoadSummary
from qengine.opening import open_store
from qengine.verbs_progress import JsonLines, words_of


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.sampled_from(["locate", "read", "write"]), st.integers(1, 50), st.floats(0, 9)), max_size=30))
def test_seconds_of_stages_add_up_to_those_of_the_load(steps: list[tuple[str, int, float]]) -> None:
    clock, told = Clock(), list[LoadProgress]()
    meter = Meter(tell=told.append, clock=clock)
    meter.begin()
    report = meter.of("obj", 10.0)
    for stage, done, seconds in steps:
        clock.now += seconds
        report(stage, done, 100)
    clock.now += 1
    meter.mark("records")
    assert sum(one.seconds for one in meter.times()) == pytest.approx(clock.now)
    assert [(one.table, one.stage, one.rows) for one in told] == [("obj", stage, done) for stage, done, _ in steps]


def test_a_record_says_rate_bytes_and_what_is_left() -> None:
    clock, told = Clock(), list[LoadProgress]()
    meter = Meter(tell=told.append, clock=clock)
    meter.begin()
    clock.now = 2.0
    meter.of("obj", 8.0)("read", 100, 400)
    assert (told[0].bytes, told[0].bytes_total, told[0].rows_per_s, told[0].eta_s) == (800, 3200, 50.0, 6.0)
    assert words_of(told[0]) == "100/400 rows, 800 B, 50 rows/s, about 6 s left"


def test_json_lines_come_once_a_second_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    lines = JsonLines(out, clock)
    meter = Meter(tell=lines.tell, clock=clock)
    meter.begin()
    for done in range(1, 26):
        clock.now += 0.125
        meter("read", done, 25)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["rows"] for one in found] == [1, 9, 17, 25]
    assert found[-1]["eta_s"] == 0
    assert found[-1]["rows_per_s"] == 8


def rows(ids: range, path: Path) -> Path:
    table = pa.table({"id": pa.array(ids), "ra": [number * 0.01 for number in range(len(ids))], "dec": [0.5] * len(ids)})
    pq.write_table(table, path)
    return path


def test_a_summary_is_kept_with_the_load_and_its_rows_add_up(tmp_path: Path) -> None:
    store, registry = open_store(tmp_path / "store", create=True)
    with registry:
        for number, first in enumerate((0, 1000)):
            path = rows(range(first, first + 1000), tmp_path / f"{number}.parquet")
            request = LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id", filter="id % 10 > 0")
            told: list[LoadProgress] = []
            report = load(request, registry, store, progress=Meter(tell=told.append))
            found = registry.load(report.load)
            words = json.loads(json.dumps(found.context["summary"]))
            summary = LoadSummary.from_json(words)
            table = summary.tables["obj"]
            assert (table["read"], table["stored"], table["filtered"]) == (1000, 900, 100)
            assert (table["rows_before"], table["rows_after"]) == (900 * number, 900 * (number + 1))
            assert (summary.before, found.snapshot) == (number, number + 1)
            assert (summary.inputs, summary.with_sha256, summary.input_bytes) == (1, 1, path.stat().st_size)
            assert {"obj"} == {one.table for one in told}
            assert {"locate", "read", "write"} <= {one["stage"] for one in summary.stages}
            text = summary.to_text(found.snapshot)
            assert "1,000 rows in = 900 stored + 0 quarantined + 100 filtered + 0 skipped" in text
            assert report.load in text
            assert "peak memory" in text


def test_rows_that_do_not_add_up_are_not_published() -> None:
    table = {"read": 10, "stored": 7, "quarantined": 1, "filtered": 1, "skipped": 0, "removed": 0}
    about: dict[str, Any] = {
        "load": "a", "catalog": "demo", "before": 0, "inputs": 1, "input_bytes": 1, "with_sha256": 1, "stages": (), "seconds": 1.0,
        "peak_bytes": 1, "cores": 1, "versions": {}, "warnings": (),
    }  # fmt: skip
    with pytest.raises(IntegrityError, match="10 rows were read, but 9"):
        LoadSummary(**about, tables={"obj": table}).check()
    lost = table | {"stored": 8, "rows_before": 5, "rows_after": 12}
    with pytest.raises(IntegrityError, match="do not make 12"):
        LoadSummary(**about, tables={"obj": lost}).check()
