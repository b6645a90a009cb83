"""Real processes that run jobs over a real store: killed with 20 of them at work, stopped, and two on one registry."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from qengine.app import connect
from qengine.catalog.jobs import Job, Phase
from qengine.catalog.registry import Registry
from qengine.demo import SCHEMA, gaia_table
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from tests.support.jobs_process import JobsProcess
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = [pytest.mark.slow, ON_BOTH]

COUNT = 20
_END_S = 180


def statement(number: int) -> str:
    """Half of them compute long, half of them write much."""
    if number % 2:
        return f"SELECT source_id, ra, dec, mag FROM demo.gaia WHERE MOD(source_id, {COUNT}) = {number} ORDER BY source_id"
    return (
        "SELECT COUNT(*) AS n FROM demo.gaia AS a JOIN demo.gaia AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 30.0 / 3600.0 "
        f"WHERE a.source_id < b.source_id AND a.mag > {number / 10}"
    )


@dataclass
class Site:
    """A store, its registry, and the processes over it."""

    store: Path
    registry_url: str | None
    registry: Registry
    http: httpx.Client
    started: list[JobsProcess]

    def start(self, *, running: int = COUNT) -> JobsProcess:
        log = self.store.parent / f"log-{len(self.started)}"
        process = JobsProcess.start(self.store, self.registry_url, log, running=running)
        self.started.append(process)
        return process

    def submit(self, url: str, number: int) -> str:
        given = {"LANG": "ADQL", "QUERY": statement(number), "FORMAT": "csv", "PHASE": "RUN", "RUNID": str(number)}
        response = self.http.post(f"{url}/async", data=given)
        assert response.status_code == 303
        return response.headers["location"].rpartition("/")[2]

    def jobs(self) -> list[Job]:
        return list(self.registry.jobs.listed(""))

    def until_all(self, *phases: Phase) -> list[Job]:
        deadline = time.monotonic() + _END_S
        while True:
            found = self.jobs()
            if {job.phase for job in found} <= set(phases):
                return found
            assert time.monotonic() < deadline, [(job.phase, job.epoch, job.error) for job in found]
            time.sleep(0.05)

    def check(self, url: str, expected: list[str]) -> None:
        """Every job there once, with the right rows, and nothing else on the disk."""
        jobs = self.jobs()
        assert sorted(int(job.run_id) for job in jobs) == list(range(COUNT))
        for job in jobs:
            response = self.http.get(f"{url}/async/{job.id}/results/result")
            assert response.text == expected[int(job.run_id)]
            files = [path.name for path in (self.store / "_results" / job.id).iterdir()]
            assert files == [job.result["file"]]
        assert {path.name for path in (self.store / "_results").iterdir()} == {job.id for job in jobs}


@pytest.fixture
def site(database: NewDatabase, tmp_path: Path, http: httpx.Client) -> Iterator[Site]:
    url, store = database(), tmp_path / "store"
    files, registry = open_store(store, create=True, registry_url=url)
    pq.write_table(gaia_table(), tmp_path / "gaia.parquet")
    load(LoadRequest(inputs=(tmp_path / "gaia.parquet",), catalog="demo", table="gaia", schema=SCHEMA), registry, files)
    with registry:
        found = Site(store, url, registry, http, [])
        yield found
        for one in found.started:
            one.kill()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The answers of a process that nobody disturbs."""
    from rich.console import Console

    from qengine.demo import prepare

    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    prepare(folder, Console(quiet=True))
    with connect(folder) as client:
        tables = [client.query(statement(number)).to_arrow() for number in range(COUNT)]
    found = []
    for table in tables:
        lines = [",".join(table.column_names), *(",".join(str(value) for value in row.values()) for row in table.to_pylist())]
        found.append("".join(f"{line}\r\n" for line in lines))
    return found


def test_killed_with_20_jobs_at_work(site: Site, expected: list[str]) -> None:
    first = site.start()
    ids = {site.submit(first.url, number) for number in range(COUNT)}
    site.until_all(Phase.EXECUTING, Phase.COMPLETED)
    first.kill()
    left = site.jobs()
    lost = [job for job in left if job.phase is Phase.EXECUTING]
    assert len(lost) > COUNT / 2, "it was killed too late to say anything"
    second = site.start()
    jobs = site.until_all(Phase.COMPLETED)
    assert {job.id for job in jobs} == ids
    assert {job.id: job.losses for job in jobs} == {job.id: int(job.phase is Phase.EXECUTING) for job in left}
    site.check(second.url, expected)


def test_killed_again_and_again(site: Site, expected: list[str]) -> None:
    process = site.start(running=6)
    for number in range(COUNT):
        site.submit(process.url, number)
    for number in range(4):
        time.sleep(0.4 + 0.7 * number)
        process.kill()
        process = site.start(running=6)
    site.until_all(Phase.COMPLETED)
    assert any(job.losses for job in site.jobs())
    site.check(process.url, expected)


def test_stopped_with_20_jobs_at_work(site: Site, expected: list[str]) -> None:
    first = site.start()
    for number in range(COUNT):
        site.submit(first.url, number)
    site.until_all(Phase.EXECUTING, Phase.COMPLETED)
    first.process.send_signal(signal.SIGINT)
    first.process.wait(30)
    left = site.jobs()
    assert {job.phase for job in left} <= {Phase.QUEUED, Phase.COMPLETED}
    assert Phase.QUEUED in {job.phase for job in left}
    second = site.start()
    jobs = site.until_all(Phase.COMPLETED)
    assert {job.losses for job in jobs} == {0}
    site.check(second.url, expected)


def test_two_processes_on_one_registry_and_one_dies(site: Site, expected: list[str]) -> None:
    processes = [site.start(running=4), site.start(running=4)]
    ids = [site.submit(processes[number % 2].url, number) for number in range(COUNT)]
    deadline = time.monotonic() + 30
    while len({job.holder for job in site.jobs() if job.phase is Phase.EXECUTING}) < 2:
        assert time.monotonic() < deadline
    assert site.http.get(f"{processes[1].url}/async/{ids[0]}/phase").status_code == 200
    processes[0].kill()
    site.until_all(Phase.COMPLETED)
    assert any(job.losses for job in site.jobs())
    site.check(processes[1].url, expected)
