"""Runners of jobs on one registry: results, ends of every kind, processes that stop, die, or wake up again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from qengine.catalog.database import now
from qengine.catalog.jobs import Job, Phase
from qengine.catalog.registry import Registry
from qengine.catalog.who import Identity
from qengine.errors import RegistryError
from qengine.tap import jobs
from qengine.tap.jobs import JobSettings
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.parameters import Parameters
from qengine.tap.results import ResultFolder
from qengine.tap.runner import JobRunner, running
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = ON_BOTH

TAP = TapSettings(maxrec=500, maxrec_limit=5000)
SETTINGS = JobSettings(running=3)


class Bench:
    """A registry with its results, and processes that run jobs on it."""

    def __init__(self, registry: Registry) -> None:
        self.store = registry.jobs
        self.folder = ResultFolder(registry.files)
        self.service = FakeService()

    def put(self, text: str, *, run: bool = True, **parameters: str) -> Job:
        given = Parameters.gather({"QUERY": text, "LANG": "ADQL", "RESPONSEFORMAT": "csv", **parameters}.items())
        job = jobs.create(given, Identity("ann"), SETTINGS, at=now())
        job = jobs.run(job, at=now()) if run else job
        self.store.insert(job)
        return job

    @contextlib.asynccontextmanager
    async def process(self, gate: Gate | None = None, **settings: Any) -> AsyncIterator[JobRunner]:
        chosen = replace(SETTINGS, **settings)
        async with running(JobRunner(self.store, self.service, self.folder, tap=TAP, settings=chosen, gate=gate)) as runner:
            yield runner

    async def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def ended(self, *given: Job) -> list[Job]:
        await self.until(lambda: not any(self.store.find(job.id).phase.is_active for job in given))
        return [self.store.find(job.id) for job in given]

    async def executing(self, *given: Job) -> None:
        await self.until(lambda: all(self.store.find(job.id).phase is Phase.EXECUTING for job in given))

    def text(self, job: Job) -> str:
        return self.folder.result(job).read_bytes().decode()

    def files(self, job: Job) -> list[str]:
        return sorted(path.name for path in self.folder.of(job).glob("*"))


@pytest.fixture
def bench(database: NewDatabase, tmp_path: Path) -> Iterator[Bench]:
    with Registry.open(tmp_path, url=database()) as registry:
        yield Bench(registry)


HANG = "SELECT source_id FROM demo.stars /* hang after 200 rows */"


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_results_errors_and_overflow(bench: Bench) -> None:
    async def work() -> None:
        good = bench.put("SELECT TOP 3 source_id FROM demo.stars ORDER BY source_id")
        cut = bench.put("SELECT source_id FROM demo.stars", MAXREC="7", RESPONSEFORMAT="votable/td")
        none = bench.put("SELECT source_id FROM demo.stars", MAXREC="0")
        default = bench.put("SELECT source_id FROM demo.stars")
        wrong = bench.put("SELECT brightness FROM demo.stars")
        format_ = bench.put("SELECT 1", RESPONSEFORMAT="xlsx")
        breaks = bench.put("SELECT source_id FROM demo.stars /* fail after 200 rows */")
        crashes = bench.put("SELECT 1 /* crash */")
        waiting = bench.put("SELECT 1", run=False)
        async with bench.process():
            good, cut, none, default, wrong, format_, breaks, crashes = await bench.ended(
                good, cut, none, default, wrong, format_, breaks, crashes
            )
        assert bench.text(good) == "source_id\r\n0\r\n1\r\n2\r\n"
        assert (good.phase, good.result["rows"], good.result["is_overflow"]) == (Phase.COMPLETED, 3, False)
        assert good.result["bytes"] == len(bench.text(good))
        assert (cut.result["rows"], cut.result["is_overflow"], cut.result["maxrec"]) == (7, True, 7)
        assert 'value="OVERFLOW"' in bench.text(cut)
        assert (none.result["rows"], none.result["is_overflow"]) == (0, True)
        assert (default.result["rows"], default.result["is_overflow"]) == (500, True)
        assert {job.phase for job in (wrong, format_, breaks, crashes)} == {Phase.ERROR}
        assert "line 1, column 8" in wrong.error["summary"]
        assert "'xlsx' is not offered" in format_.error["summary"]
        assert breaks.error["code"] == "timeout"
        assert "secret" not in str(crashes.error)
        assert bench.files(breaks) == []
        assert bench.store.find(waiting.id).phase is Phase.PENDING
        assert all(answer.is_closed for answer in bench.service.answers)

    go(work())


def test_execution_duration_ends_a_job(bench: Bench) -> None:
    async def work() -> None:
        job = bench.put(HANG, EXECUTIONDURATION="1")
        async with bench.process():
            (job,) = await bench.ended(job)
        assert (job.phase, job.error["code"]) == (Phase.ERROR, "timeout")
        assert "longer than its limit of 1 s (set a longer executionduration" in job.error["summary"]
        assert bench.files(job) == []

    go(work())


def test_a_job_that_is_aborted_or_deleted_anywhere_stops_here(bench: Bench) -> None:
    async def work() -> None:
        aborted, deleted, asked = bench.put(HANG), bench.put(HANG), bench.put(HANG)
        async with bench.process() as runner:
            await bench.executing(aborted, deleted, asked)
            await bench.until(lambda: len(bench.service.answers) == 3)
            bench.store.edit(aborted.id, lambda job: jobs.abort(job, at=now()))
            bench.store.remove(deleted.id)
            runner.cancel(asked.id)  # of the same process: at once
            await bench.until(lambda: all(answer.is_closed for answer in bench.service.answers))
            assert bench.store.find(aborted.id).phase is Phase.ABORTED
        assert bench.files(aborted) == bench.files(deleted) == []

    go(work())


def test_a_runner_that_stops_gives_its_jobs_back(bench: Bench) -> None:
    async def work() -> None:
        job = bench.put(HANG)
        async with bench.process(lease_s=3600):
            await bench.executing(job)
        given = bench.store.find(job.id)
        assert (given.phase, given.holder, given.losses) == (Phase.QUEUED, "", 0)
        bench.store.edit(job.id, lambda old: replace(old, parameters={**old.parameters, "QUERY": ("SELECT 7 AS x",)}))
        async with bench.process():
            (job,) = await bench.ended(job)
        assert (job.phase, job.epoch, bench.text(job)) == (Phase.COMPLETED, 2, "x\r\n7\r\n")

    go(work())


def test_only_so_many_run_at_once(bench: Bench) -> None:
    async def work() -> None:
        made = [bench.put(HANG) for _ in range(4)]
        async with bench.process(running=2):
            await bench.executing(*made[:2])
            await asyncio.sleep(0.7)
            assert [bench.store.find(job.id).phase for job in made[2:]] == [Phase.QUEUED] * 2
            bench.store.edit(made[0].id, lambda job: jobs.abort(job, at=now()))
            await bench.executing(made[2])

    go(work())


def test_only_so_many_of_somebody_run_at_all_processes(bench: Bench) -> None:
    def gate() -> Gate:
        return Gate(LimitSettings(people=("ann: running=2",)), TAP)

    async def work() -> None:
        made = [bench.put(HANG) for _ in range(5)]
        async with bench.process(gate=gate()), bench.process(gate=gate()):
            await bench.executing(*made[:2])
            await asyncio.sleep(1.2)
            assert [bench.store.find(job.id).phase for job in made[2:]] == [Phase.QUEUED] * 3
            bench.store.edit(made[0].id, lambda job: jobs.abort(job, at=now()))
            await bench.executing(made[2])
            assert bench.store.usage("ann").running == 2

    go(work())


def test_storage_holds_for_those_that_end_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    together, publish = threading.Barrier(4), bench.folder.publish

    def late(*given: Any) -> None:
        together.wait(20)  # all have seen that there is room
        publish(*given)

    monkeypatch.setattr(bench.folder, "publish", late)

    def gate() -> Gate:
        return Gate(LimitSettings(people=("ann: storage=25",)), TAP)

    async def work() -> None:
        made = [bench.put("SELECT 1234567 AS x") for _ in range(4)]
        async with bench.process(gate=gate(), running=2), bench.process(gate=gate(), running=2):
            ended = await bench.ended(*made)
        whole = [job for job in ended if job.phase is Phase.COMPLETED]
        refused = [job for job in ended if job.phase is Phase.ERROR]
        assert (len(whole), len(refused)) == (2, 2)
        assert bench.store.kept_bytes("ann") == 24
        for job in whole:
            assert bench.text(job) == "x\r\n1234567\r\n"
        for job in refused:
            assert "may still keep" in job.error["message"]
            assert (job.result, bench.files(job)) == ({}, [])

    go(work())


def test_what_the_dead_have_left_is_finished(bench: Bench) -> None:
    async def work() -> None:
        elsewhere, here = bench.put("SELECT 1 AS x"), bench.put("SELECT 2 AS x")
        (one,) = bench.store.claim("othermachine:17:1:x", 1, lease_s=1.5)
        from qengine.tap.runner import _machine

        (two,) = bench.store.claim(f"{_machine()}:{2**22 + 5}:1:x", 1, lease_s=3600)
        for job in (one, two):
            bench.folder.target(job, "csv").parent.mkdir(parents=True)
            bench.folder.target(job, "csv").write_text("what the dead had just finished")
        async with bench.process():
            (second,) = await bench.ended(here)
            assert bench.store.find(elsewhere.id).epoch == 1  # its lease holds
            (first,) = await bench.ended(elsewhere)
        assert [bench.text(job) for job in (first, second)] == ["x\r\n1\r\n", "x\r\n2\r\n"]
        assert [(job.epoch, job.losses, bench.files(job)) for job in (first, second)] == [(2, 1, ["result-2.csv"])] * 2

    go(work())


def test_one_that_was_taken_for_dead_publishes_nothing(bench: Bench) -> None:
    async def work() -> None:
        slow = bench.put(HANG)
        async with bench.process():
            await bench.executing(slow)
            taken = bench.store.edit(slow.id, lambda job: replace(job, holder="another:1:1:x", epoch=2))
            bench.folder.of(taken).mkdir(parents=True, exist_ok=True)
            bench.folder.target(taken, "csv").write_text("of the other")
            await bench.until(lambda: all(answer.is_closed for answer in bench.service.answers))
        assert (bench.store.find(slow.id).epoch, bench.store.find(slow.id).phase) == (2, Phase.EXECUTING)
        assert bench.files(slow) == ["result-2.csv"]

    go(work())


def test_one_that_ends_its_job_too_late_publishes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        job = bench.put("SELECT 1 AS x")
        query = bench.service.query

        async def slow(*given: Any, **named: Any) -> Any:
            bench.store.edit(job.id, lambda old: replace(old, holder="another:1:1:x", epoch=2))
            return await query(*given, **named)

        monkeypatch.setattr(bench.service, "query", slow)
        async with bench.process():
            await bench.until(lambda: bool(bench.service.answers) and bench.service.answers[0].is_closed)
        assert (bench.store.find(job.id).phase, bench.store.find(job.id).result) == (Phase.EXECUTING, {})
        assert bench.files(job) == []

    go(work())


def test_a_job_that_ends_processes_is_given_up(bench: Bench) -> None:
    async def work() -> None:
        job = bench.put("SELECT 1")
        for number in range(SETTINGS.losses):
            bench.store.claim(f"p{number}", 1, lease_s=-1)
        async with bench.process():
            (job,) = await bench.ended(job)
        assert (job.phase, job.error["code"], job.losses) == (Phase.ERROR, "poison", SETTINGS.losses)

    go(work())


def test_the_time_of_destruction(bench: Bench) -> None:
    async def work() -> None:
        old, young, hangs = bench.put("SELECT 1 AS x"), bench.put("SELECT 1 AS x"), bench.put(HANG)
        async with bench.process():
            old, young = await bench.ended(old, young)
        for job in (old, hangs):
            bench.store.edit(job.id, lambda one: replace(one, destruction=now() - timedelta(seconds=1)))
        async with bench.process():
            await bench.until(lambda: bench.store.known() == {young.id})
        assert not bench.folder.of(old).exists()
        assert bench.text(young)

    go(work())


def test_a_registry_that_is_away_for_a_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        job = bench.put("SELECT 1 AS x")
        failures = iter([True, True, False])
        edit = bench.store.edit

        def sometimes(*given: Any, **named: Any) -> Job:
            if next(failures, False):
                raise RegistryError("away")
            return edit(*given, **named)

        monkeypatch.setattr(bench.store, "edit", sometimes)
        async with bench.process():
            (job,) = await bench.ended(job)
        assert job.phase is Phase.COMPLETED

    go(work())


def test_two_runners_share_the_work(bench: Bench) -> None:
    async def work() -> None:
        made = [bench.put(f"SELECT {n} AS x") for n in range(20)]
        async with bench.process(), bench.process():
            ended = await bench.ended(*made)
        assert [bench.text(job) for job in ended] == [f"x\r\n{n}\r\n" for n in range(20)]
        assert {job.epoch for job in ended} == {1}
        assert len(bench.service.answers) == 20

    go(work())
