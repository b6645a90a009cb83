"""Jobs in the registry, in SQLite and PostgreSQL: whole changes, claims, leases and epochs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from qengine.catalog.database import now
from qengine.catalog.jobs import Job, JobStore, JobUsage, LostClaimError, Phase
from qengine.catalog.registry import Registry
from qengine.errors import UnknownNameError
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = ON_BOTH


@pytest.fixture
def registry(database: NewDatabase, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path, url=database()) as found:
        yield found


@pytest.fixture
def jobs(registry: Registry) -> JobStore:
    return registry.jobs


def new(jobs: JobStore, owner: str = "ann", *, phase: Phase = Phase.QUEUED, age_s: float = 0.0) -> Job:
    at = now() - timedelta(seconds=age_s)
    job = Job(
        id=uuid4().hex, owner=owner, phase=phase, created=at, queued=at, destruction=at + timedelta(days=1),
        parameters={"QUERY": ("SELECT 'ä' FROM t",), "LANG": ("ADQL",)},
    )  # fmt: skip
    jobs.insert(job)
    return job


def test_a_job_comes_back_as_it_was_put(jobs: JobStore) -> None:
    job = new(jobs)
    found = jobs.find(job.id)
    assert replace(found, parameters={name: tuple(values) for name, values in found.parameters.items()}) == job
    with pytest.raises(UnknownNameError, match="no job nothing"):
        jobs.find("nothing")
    jobs.remove(job.id)
    for call in (jobs.find, jobs.remove):
        with pytest.raises(UnknownNameError):
            call(job.id)
    with pytest.raises(UnknownNameError):
        jobs.edit(job.id, lambda old: old)


def test_a_change_that_is_refused_changes_nothing(jobs: JobStore) -> None:
    job = new(jobs)

    def refuse(old: Job) -> Job:
        raise KeyError(old.phase)

    with pytest.raises(KeyError):
        jobs.edit(job.id, refuse)
    assert jobs.find(job.id).phase is Phase.QUEUED
    assert jobs.edit(job.id, lambda old: replace(old, run_id="r")).run_id == "r"
    assert jobs.find(job.id).run_id == "r"


def test_lists(jobs: JobStore) -> None:
    old, middle, young = (new(jobs, age_s=age).id for age in (30, 20, 10))
    new(jobs, "bob")
    new(jobs, "")
    jobs.edit(middle, lambda job: replace(job, phase=Phase.ARCHIVED))
    jobs.edit(young, lambda job: replace(job, phase=Phase.ABORTED))
    assert [job.id for job in jobs.listed("ann")] == [old, young]
    assert [job.id for job in jobs.listed("ann", last=1)] == [young]
    assert [job.id for job in jobs.listed("ann", last=9)] == [young, old]
    assert [job.id for job in jobs.listed("ann", phases=[Phase.ARCHIVED, Phase.ABORTED])] == [middle, young]
    assert [job.id for job in jobs.listed("ann", after=now() - timedelta(seconds=15))] == [young]
    assert [job.id for job in jobs.listed("ann", after=now() - timedelta(seconds=15), phases=[Phase.QUEUED], last=3)] == []
    assert jobs.phases([old, middle, "nothing"]) == {old: Phase.QUEUED, middle: Phase.ARCHIVED}
    assert {old, middle, young} < jobs.known()


def test_a_claim_is_one_processs_until_its_lease_runs_out(jobs: JobStore) -> None:
    job = new(jobs)
    (first,) = jobs.claim("p1", 5, lease_s=0.05)
    assert (first.id, first.phase, first.epoch, first.losses) == (job.id, Phase.EXECUTING, 1, 0)
    assert jobs.renew("p1", {job.id: {"rows": 7}}, lease_s=60) == {job.id: 1}
    assert jobs.find(job.id).progress == {"rows": 7}
    assert jobs.claim("p2", 5, lease_s=60) == ()
    assert jobs.renew("p1", {}, lease_s=-1) == {job.id: 1}
    assert jobs.claim("p1", 5, lease_s=60) == ()  # it runs it already
    (second,) = jobs.claim("p2", 5, lease_s=60)
    assert (second.id, second.epoch, second.losses, second.progress) == (job.id, 2, 1, {})
    assert jobs.renew("p1", {job.id: {"rows": 8}}, lease_s=60) == {}
    with pytest.raises(LostClaimError):
        jobs.edit(job.id, lambda old: replace(old, phase=Phase.COMPLETED), claim=first.claim)
    assert jobs.edit(job.id, lambda old: replace(old, phase=Phase.COMPLETED), claim=second.claim).phase is Phase.COMPLETED
    with pytest.raises(LostClaimError):  # also whoever has the right epoch, when the job has ended
        jobs.edit(job.id, lambda old: replace(old, phase=Phase.ERROR), claim=second.claim)
    jobs.remove(job.id)
    with pytest.raises(LostClaimError):
        jobs.edit(job.id, lambda old: old, claim=second.claim)


def test_what_a_dead_process_ran_is_taken_at_once(jobs: JobStore) -> None:
    job = new(jobs)
    jobs.claim("dead", 1, lease_s=60)
    assert jobs.holders() == {"dead"}
    assert jobs.claim("p2", 1, lease_s=60) == ()
    (taken,) = jobs.claim("p2", 1, lease_s=60, dead=["dead"])
    assert (taken.id, taken.epoch, taken.losses) == (job.id, 2, 1)


def test_what_is_given_back_is_first_in_the_queue(jobs: JobStore) -> None:
    job = new(jobs, age_s=10)
    (mine,) = jobs.claim("p1", 1, lease_s=60)
    new(jobs, age_s=5)
    jobs.give_back([mine.claim])
    jobs.give_back([mine.claim])  # it is no longer ours: nothing happens
    (taken,) = jobs.claim("p2", 1, lease_s=60)
    assert (taken.id, taken.epoch, taken.losses) == (job.id, 2, 0)


def test_owners_take_turns(jobs: JobStore) -> None:
    many = [new(jobs, "ann", age_s=100 - n).id for n in range(5)]
    few = [new(jobs, "bob", age_s=10 - n).id for n in range(2)]
    assert [job.id for job in jobs.claim("p", 3, lease_s=60)] == [many[0], few[0], many[1]]
    assert [job.id for job in jobs.claim("p", 2, lease_s=60)] == [few[1], many[2]]


def test_owners_have_so_many_running_at_all_holders(jobs: JobStore) -> None:
    many = [new(jobs, "ann", age_s=100 - n).id for n in range(5)]
    few = [new(jobs, "bob", age_s=10 - n).id for n in range(3)]
    limits = {"ann": 2.0, "bob": 0.0}  # one may run all the same

    def claimed(holder: str, *dead: str) -> list[str]:
        return [job.id for job in jobs.claim(holder, 3, lease_s=60, dead=dead, allowed=lambda job: limits[job.owner])]

    assert claimed("p") == [many[0], few[0], many[1]]
    assert claimed("q") == []
    limits["ann"] = 3.0
    assert claimed("q") == [many[2]]
    assert claimed("r", "q") == [many[2]], "a job of the dead is taken over, and is not one more"
    jobs.edit(few[0], lambda old: replace(old, phase=Phase.COMPLETED))
    assert claimed("q") == [few[1]]
    limits["bob"] = float("inf")
    assert claimed("p") == [few[2]]


def test_holders_at_once_keep_the_limit_of_an_owner(registry: Registry) -> None:
    for _ in range(12):
        new(registry.jobs)
    taken: list[str] = []

    def work(holder: str) -> None:
        taken.extend(job.id for job in registry.jobs.claim(holder, 12, lease_s=60, allowed=lambda _: 5.0))

    threads = [threading.Thread(target=work, args=(f"p{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 5


def test_destruction_is_due(jobs: JobStore) -> None:
    job, _ = new(jobs), new(jobs)
    jobs.edit(job.id, lambda old: replace(old, destruction=now() - timedelta(seconds=1)))
    assert [one.id for one in jobs.due()] == [job.id]


def test_how_many_are_ahead(jobs: JobStore) -> None:
    first, second, other = new(jobs, age_s=3), new(jobs, "bob", age_s=2), new(jobs, phase=Phase.PENDING)
    assert [jobs.ahead(job) for job in (first, second, other)] == [0, 1, 0]


def test_what_jobs_take(jobs: JobStore) -> None:
    for phase in (Phase.PENDING, Phase.EXECUTING, Phase.COMPLETED, Phase.COMPLETED, Phase.ERROR):
        job = new(jobs, phase=phase)
        if phase is Phase.COMPLETED:
            jobs.edit(job.id, lambda old: replace(old, result={"bytes": 7}))
    new(jobs, "bob")
    assert jobs.usage("ann") == JobUsage(active=2, running=1, bytes=14)
    assert jobs.usage("nobody") == JobUsage(active=0, running=0, bytes=0)
    counts = jobs.counts()
    assert (counts[Phase.COMPLETED], counts[Phase.QUEUED], counts[Phase.HELD]) == (2, 1, 0)


@pytest.mark.slow
def test_many_claim_at_once_and_each_job_goes_to_one(registry: Registry) -> None:
    ids = [new(registry.jobs, f"user {n % 3}").id for n in range(40)]
    taken: list[str] = []

    def run(holder: str) -> None:
        while found := registry.jobs.claim(holder, 3, lease_s=60):
            taken.extend(job.id for job in found)

    threads = [threading.Thread(target=run, args=(f"p{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)
