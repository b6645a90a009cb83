"""The state machine of asynchronous queries."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.jobs import Job, Phase
from qengine.catalog.who import ANONYMOUS, Identity
from qengine.errors import QueryError, QueryTimeoutError
from qengine.tap import jobs
from qengine.tap.jobs import JobSettings
from qengine.tap.parameters import Parameters

AT = datetime(2030, 1, 1, 12)
SETTINGS = JobSettings(duration_s=100, duration_limit_s=1000, retention_s=3600, retention_limit_s=7200)
ENDS = (Phase.COMPLETED, Phase.ERROR, Phase.ABORTED, Phase.ARCHIVED)


def new(**values: str) -> Job:
    return jobs.create(Parameters.gather(values.items()), ANONYMOUS, SETTINGS, at=AT)


def in_phase(phase: Phase) -> Job:
    return replace(new(QUERY="SELECT 1"), phase=phase)


def test_a_new_job_has_what_was_asked_and_the_defaults() -> None:
    ann = Identity("ann", groups=frozenset({"b", "a"}), is_admin=True, method="token")
    pairs = [("query", "SELECT 1"), ("PHASE", "RUN"), ("Lang", "ADQL"), ("RUNID", "mine"), ("SNAPSHOT", "a:1"), ("SNAPSHOT", "b:2")]
    job = jobs.create(Parameters.gather(pairs), ann, SETTINGS, at=AT)
    assert (job.phase, job.owner, job.run_id) == (Phase.PENDING, "ann", "mine")
    assert job.parameters == {"QUERY": ("SELECT 1",), "LANG": ("ADQL",), "SNAPSHOT": ("a:1", "b:2")}
    assert (job.created, job.destruction, job.duration_s) == (AT, AT + timedelta(hours=1), 100)
    assert jobs.identity_of_job(job) == ann
    assert jobs.query_parameters(job).one("LANG") == "ADQL"
    assert len(job.id) == 32


def test_parameters_are_replaced_while_pending() -> None:
    job = new(QUERY="SELECT 1", LANG="ADQL")
    job = jobs.add_parameters(
        job, Parameters.gather([("QUERY", "SELECT 2"), ("DESTRUCTION", "2030-01-01T12:30:00Z")]), SETTINGS, at=AT
    )
    assert job.parameters == {"QUERY": ("SELECT 2",), "LANG": ("ADQL",)}
    assert job.destruction == AT + timedelta(minutes=30)
    with pytest.raises(QueryError, match="is QUEUED and cannot get parameters"):
        jobs.add_parameters(jobs.run(job, at=AT), Parameters.gather([("QUERY", "SELECT 3")]), SETTINGS, at=AT)


def test_run_twice_is_run_once() -> None:
    queued = jobs.run(new(), at=AT)
    assert (queued.phase, queued.queued) == (Phase.QUEUED, AT)
    assert jobs.run(queued, at=AT + timedelta(1)) == queued
    executing = in_phase(Phase.EXECUTING)
    assert jobs.run(executing, at=AT) == executing
    for phase in ENDS:
        with pytest.raises(QueryError, match=f"is {phase.value} and cannot run any more"):
            jobs.run(in_phase(phase), at=AT)
    assert jobs.run(in_phase(Phase.HELD), at=AT).phase is Phase.QUEUED


def test_abort_ends_what_has_not_ended() -> None:
    for phase in (Phase.PENDING, Phase.QUEUED, Phase.EXECUTING, Phase.HELD):
        gone = jobs.abort(replace(in_phase(phase), holder="p", lease_until=AT), at=AT)
        assert (gone.phase, gone.ended, gone.holder, gone.lease_until) == (Phase.ABORTED, AT, "", None)
    for phase in ENDS:
        ended = in_phase(phase)
        assert jobs.abort(ended, at=AT) == ended


def test_only_what_is_run_is_ended() -> None:
    done = jobs.complete(in_phase(Phase.EXECUTING), {"rows": 1}, at=AT)
    assert (done.phase, done.result, done.ended) == (Phase.COMPLETED, {"rows": 1}, AT)
    failed = jobs.fail(in_phase(Phase.EXECUTING), QueryTimeoutError("too long", hint="narrow it"), at=AT)
    assert failed.phase is Phase.ERROR
    assert (failed.error["code"], failed.error["summary"]) == ("timeout", "too long (narrow it)")
    for phase in set(Phase) - {Phase.EXECUTING}:
        with pytest.raises(QueryError):
            jobs.complete(in_phase(phase), {}, at=AT)
        with pytest.raises(QueryError):
            jobs.fail(in_phase(phase), QueryTimeoutError(""), at=AT)


@pytest.mark.parametrize(("asked", "got"), [("5", 5), ("5.7", 5), (" 60 ", 60), ("0", 1000), ("99999", 1000)])
def test_duration_is_cut_to_the_limit(asked: str, got: int) -> None:
    assert jobs.set_duration(new(), asked, SETTINGS).duration_s == got


def test_duration_without_limit() -> None:
    free = replace(SETTINGS, duration_limit_s=0)
    assert jobs.set_duration(new(), "0", free).duration_s == 0
    assert jobs.set_duration(new(), "123456789", free).duration_s == 123456789


@pytest.mark.parametrize("text", ["-1", "soon", "1e3", "", "٣", "9" * 40])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(QueryError, match="not a number of seconds"):
        jobs.set_duration(new(), text, SETTINGS)
    with pytest.raises(QueryError, match="cannot get another"):
        jobs.set_duration(in_phase(Phase.EXECUTING), "5", SETTINGS)


def test_destruction() -> None:
    assert jobs.set_destruction(new(), "2030-01-01T13:00:00+01:00", SETTINGS, at=AT).destruction == AT
    assert jobs.set_destruction(in_phase(Phase.COMPLETED), "2099-01-01", SETTINGS, at=AT).destruction == AT + timedelta(hours=2)
    for text in ("tomorrow", "", "9999-12-31T23:59:59-23:59", "2030-13-01"):
        with pytest.raises(QueryError, match="is not a time"):
            jobs.set_destruction(new(), text, SETTINGS, at=AT)


def test_phases() -> None:
    assert jobs.parse_phases(("executing", "ERROR")) == (Phase.EXECUTING, Phase.ERROR)
    with pytest.raises(QueryError, match="phases are PENDING"):
        jobs.parse_phases(("RUNNING",))


def test_a_long_run_id() -> None:
    with pytest.raises(QueryError, match="65 letters"):
        new(RUNID="x" * 65)


def test_times() -> None:
    assert jobs.to_time(AT) == "2030-01-01T12:00:00.000Z"
    assert jobs.parse_time(jobs.to_time(AT), "AFTER") == AT
    assert jobs.expected_end(new(), 1e300, at=AT).quote is not None


@given(st.lists(st.sampled_from(["run", "abort", "complete", "fail", "claim"]), max_size=8))
def test_an_end_is_for_good(actions: list[str]) -> None:
    job, ended = new(), None
    for action in actions:
        try:
            match action:
                case "run":
                    job = jobs.run(job, at=AT)
                case "abort":
                    job = jobs.abort(job, at=AT)
                case "complete":
                    job = jobs.complete(job, {}, at=AT)
                case "fail":
                    job = jobs.fail(job, QueryError("no"), at=AT)
                case "claim" if job.phase is Phase.QUEUED:
                    job = replace(job, phase=Phase.EXECUTING)
        except QueryError:
            pass
        assert ended is None or job == ended
        ended = job if job.phase in ENDS else ended
