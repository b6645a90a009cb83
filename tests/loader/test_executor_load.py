"""A load is the same whoever does its heavy tasks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.errors import InputError
from qengine.loader.executor import Processes
from qengine.loader.sources.open import open_sources
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.tasks_scan import pieces_of
from tests.loader.executed import change_family, counts, digests, load_family, load_with, objects, sources
from tests.loader.stores import Site

Make = Callable[[Path], Site]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as executor:
        yield executor


def test_a_family_loaded_by_processes_is_that_of_threads(tmp_path: Path, make_site: Make, processes: Processes) -> None:
    one, two = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    by_threads = load_family(one, None)
    unfinished = two.store.root / "demo" / "obj" / "parts" / ".of-a-worker-that-died.tmp"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    by_processes = load_family(two, processes)
    assert not unfinished.exists()
    assert [counts(report) for report in by_processes] == [counts(report) for report in by_threads]
    assert digests(two) == digests(one)
    assert all(digests(one)["obj"].values())


@pytest.mark.slow
def test_changes_by_processes_are_those_of_threads(tmp_path: Path, make_site: Make, processes: Processes) -> None:
    one, two = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    for site in (one, two):
        load_family(site, None, rows=3000)
    by_threads = change_family(one, None)
    by_processes = change_family(two, processes)
    assert [counts(report) for report in by_processes] == [counts(report) for report in by_threads]
    assert digests(two) == digests(one)


KILLED = """
import sys, time
from pathlib import Path
from qengine.catalog.registry import Registry
from qengine.loader.executor import Processes
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.storage.objects import Store
root, path, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def progress(stage, done, total):
    if stage == last:
        print(stage, flush=True)
        time.sleep(60)
with Registry.open(root) as registry, Processes(2) as executor:
    request = LoadRequest(inputs=(path,), catalog="demo", table="obj", key="sid", rows_per_tile=100, workers=2, ra="ra", dec="dec")
    load(request, registry, Store(root), executor=executor, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["locate", "read", "write", "margin"])
@pytest.mark.parametrize("by_processes", [False, True])
def test_a_load_that_is_killed_is_resumed_by_another_executor(
    tmp_path: Path, make_site: Make, processes: Processes, stage: str, by_processes: bool
) -> None:
    one, two = make_site(tmp_path / "one"), Site(tmp_path / "two")
    path = sources(one, 20_000)
    rng = np.random.default_rng(1)
    table = pq.read_table(path)
    for name, values in (("ra", rng.uniform(0, 20, len(table))), ("dec", rng.uniform(-10, 10, len(table)))):
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path, row_group_size=1000)
    words = {"key": "sid", "ra": "ra", "dec": "dec"}
    load_with(one, None, path, **words)
    command = [sys.executable, "-c", KILLED, str(two.store.root), str(path), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == f"{stage}\n"
        program.kill()
    time.sleep(0.5)  # for the workers to end
    load_with(two, processes if by_processes else None, path, resume=True, **words)
    assert digests(two) == digests(one)
    left = {name for name in two.files() if "/_loads/" in name and not name.endswith(("lock", "report.json"))}
    assert not left
    assert not [name for name in two.files() if name.endswith(".tmp")]
    two.registry.close()


def test_rows_that_are_put_aside_are_the_same(tmp_path: Path, make_site: Make, processes: Processes) -> None:
    kept = []
    for name, executor in (("one", None), ("two", processes)):
        site = make_site(tmp_path / name)
        report = load_with(site, executor, site.write("obj.parquet", objects(300)), key="id")
        rows = pq.read_table(site.store.path(report.quarantine)).to_pylist()
        kept.append([row | {"_file": Path(row["_file"]).name} for row in rows])
    assert kept[0] == kept[1]
    assert [row["_row"] for row in kept[0]] == [12]


def test_an_error_in_a_worker_is_that_of_the_load(site: Site, processes: Processes) -> None:
    path = site.write("obj.parquet", objects(300))
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"obj\.parquet: cannot read past row 1") as error:
        load_with(site, processes, path, key="id")
    assert error.value.hint
    assert site.registry.catalog().find("demo", "obj") is None


def test_pieces_are_all_rows_once_and_in_order(site: Site) -> None:
    path = sources(site, 60_000)
    opened = open_sources([path])
    pieces = pieces_of(opened, workers=2, budget_bytes=1 << 20)
    assert len(pieces) > 2
    source = opened[0]
    assert isinstance(source, ParquetSource)
    rows = [
        row for one in pieces for batch in source.piece(one.first, one.last).batches(["sid"]) for row in batch["sid"].to_pylist()
    ]
    assert rows == pq.read_table(path)["sid"].to_pylist()
    assert [piece.place for piece in pieces] == [sum(source.group_rows[: piece.first]) for piece in pieces]
