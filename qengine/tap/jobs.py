"""The life of an asynchronous query, UWS 1.1, as pure functions from job to job.

                   RUN             a runner claims it          its end
        PENDING ---------> QUEUED -------------------> EXECUTING -----> COMPLETED or ERROR
           |                  |  <--- given back ----      |
           +------------------+----------- ABORT ----------+----------> ABORTED

* Parameters change while the job is PENDING, and so does `executionduration`, until it is claimed; the time of destruction changes
  at any time.
* RUN of a job that is queued or runs already, and ABORT of one that has ended, change nothing: a client whose connection broke may
  send the same again, and one that aborts a job which has just ended sees its end. RUN of a job that has ended is refused.
* What is asked beyond the service's limits (`JobSettings`) is cut to them, as UWS has it; the job's document says what holds.
* Nothing here judges the query: that is done when it runs, so that a wrong one is an ERROR of the job.

Functions take the time as an argument (UTC without a zone), check what they are given, and raise `QueryError`; `JobStore.edit`
applies them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from qengine.catalog.jobs import Job, Json, Phase
from qengine.catalog.who import Identity
from qengine.errors import LimitError, QEngineError, QueryError
from qengine.tap.parameters import Parameters

_RUN_ID_LETTERS = 64
_PARAMETER_LETTERS = 4_000_000
_CONTROL = ("PHASE", "RUNID", "ACTION", "WAIT", "DESTRUCTION", "EXECUTIONDURATION")
"""Parameters that say what becomes of the job; all others are those of its query."""

_LATER_S = 10 * 366 * 86400
_DIGITS = 18
_INT = 2**31 - 1
"""The most that the schema of UWS takes as a duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """How asynchronous queries are run and kept.

    `running` is how many a process runs at once. An execution may take `duration_s` unless the client says otherwise, and at most
    `duration_limit_s` (0: no limit). Results are kept `retention_s` from the creation of the job, and at most `retention_limit_s`
    from the time when that is asked for. A process that says nothing for `lease_s` is taken for dead; a job is given up after
    `losses` of its processes died.
    An owner may have `active_limit` jobs that have not ended, all who do not say who they are together (0: no limit).
    `wait_s` is the longest that a request waits for a change. With `lists_anonymous` those who do not say who they are see each
    other's jobs in the list: for services of one person.
    """

    running: int = 4
    duration_s: int = 4 * 3600
    duration_limit_s: int = 24 * 3600
    retention_s: int = 7 * 86400
    retention_limit_s: int = 31 * 86400
    lease_s: float = 20.0
    losses: int = 5
    active_limit: int = 1000
    wait_s: float = 8.0
    lists_anonymous: bool = False


def create(parameters: Parameters, identity: Identity, settings: JobSettings, *, at: datetime, base_url: str = "") -> Job:
    """Return a new job with what a request to the list of jobs asked for, still PENDING. `base_url` is the address by which its
    client knows the service, for links in results."""
    who = {"groups": sorted(identity.groups), "is_admin": identity.is_admin, "method": identity.method, "base_url": base_url}
    destruction = at + timedelta(seconds=settings.retention_s)
    job = Job(
        id=uuid4().hex, owner=identity.user, identity=who, created=at, destruction=destruction,
        duration_s=limited_duration(settings.duration_s, settings),
    )  # fmt: skip
    return add_parameters(job, parameters, settings, at=at)


def identity_of_job(job: Job) -> Identity:
    """Return who asked for the job, as they were known then."""
    who = job.identity
    return Identity(
        job.owner, groups=frozenset(who.get("groups", ())), is_admin=bool(who.get("is_admin")), method=who.get("method", "")
    )


def base_url_of_job(job: Job) -> str:
    """Return the address of the service that the job's client knows, empty if that was not kept."""
    return str(job.identity.get("base_url", ""))


def add_parameters(job: Job, parameters: Parameters, settings: JobSettings, *, at: datetime) -> Job:
    """Return the job with parameters of its query and of itself set; those of its query replace what they were before, and
    tables are added to those that it has."""
    job = _check(job, (Phase.PENDING,), "get parameters")
    if run_id := parameters.one("RUNID"):
        job = set_run_id(job, run_id)
    if duration := parameters.one("EXECUTIONDURATION"):
        job = set_duration(job, duration, settings)
    if destruction := parameters.one("DESTRUCTION"):
        job = set_destruction(job, destruction, settings, at=at)
    given = {name: values for name, values in parameters.values.items() if name not in _CONTROL}
    if "UPLOAD" in given:
        given["UPLOAD"] = (*job.parameters.get("UPLOAD", ()), *given["UPLOAD"])
    size = sum(len(text) for values in given.values() for text in values)
    if size > _PARAMETER_LETTERS:
        raise LimitError(f"the parameters have {size} letters", hint=f"a job keeps at most {_PARAMETER_LETTERS}")
    return replace(job, parameters={**job.parameters, **given})


def add_uploads(job: Job, uploads: Json) -> Job:
    """Return the job with more uploaded tables, which replace those of the same names."""
    names = {name.lower() for name in uploads}
    return replace(job, uploads={**{name: one for name, one in job.uploads.items() if name.lower() not in names}, **uploads})


def query_parameters(job: Job) -> Parameters:
    """Return the parameters of the job's query."""
    return Parameters({name: tuple(values) for name, values in job.parameters.items()})


def set_run_id(job: Job, run_id: str) -> Job:
    """Return the job with the client's own name for it."""
    if len(run_id) > _RUN_ID_LETTERS:
        raise QueryError(f"RUNID has {len(run_id)} letters", hint=f"give at most {_RUN_ID_LETTERS}")
    if not run_id.isprintable():
        raise QueryError("RUNID has letters that cannot be shown", hint="give words")
    return replace(job, run_id=run_id)


def set_duration(job: Job, text: str, settings: JobSettings) -> Job:
    """Return the job with another time for one execution, in seconds; 0 asks for as much as there is."""
    job = _check(job, (Phase.PENDING, Phase.QUEUED, Phase.HELD), "get another execution duration")
    if re.fullmatch(rf"[0-9]{{1,{_DIGITS}}}(\.[0-9]*)?", text.strip()) is None:
        raise QueryError(f"EXECUTIONDURATION={text} is not a number of seconds", hint="give a whole number, 0 or larger")
    return replace(job, duration_s=limited_duration(int(text.strip().partition(".")[0]), settings))


def limited_duration(wanted_s: int, settings: JobSettings) -> int:
    """Return the time that an execution gets, of what is wanted; 0 is no limit."""
    wanted_s = min(wanted_s, _INT)
    if not settings.duration_limit_s:
        return wanted_s
    return min(wanted_s or settings.duration_limit_s, settings.duration_limit_s)


def set_destruction(job: Job, text: str, settings: JobSettings, *, at: datetime) -> Job:
    """Return the job with another time of destruction."""
    latest = at + timedelta(seconds=min(settings.retention_limit_s, _LATER_S))
    return replace(job, destruction=min(parse_time(text, "DESTRUCTION"), latest))


def run(job: Job, *, at: datetime) -> Job:
    """Return the job as it waits for a runner."""
    if job.phase in (Phase.QUEUED, Phase.EXECUTING):
        return job
    return replace(_check(job, (Phase.PENDING, Phase.HELD), "run"), phase=Phase.QUEUED, queued=at)


def abort(job: Job, *, at: datetime) -> Job:
    """Return the job as its client gave it up."""
    if job.phase.is_active or job.phase is Phase.HELD:
        return replace(job, phase=Phase.ABORTED, ended=at, holder="", lease_until=None)
    return job


def complete(job: Job, result: Json, *, at: datetime) -> Job:
    """Return the job as its runner has ended it."""
    return replace(_ended(job, Phase.COMPLETED, at), result=result)


def fail(job: Job, error: QEngineError, *, at: datetime) -> Job:
    """Return the job as its runner could not end it."""
    words = {"summary": str(error), "retryable": error.retryable}
    return replace(_ended(job, Phase.ERROR, at), error=error.to_json() | words)


def expected_end(job: Job, cost_s: float, *, at: datetime) -> Job:
    """Return the job with the time at which it should end: that is its quote."""
    return replace(job, quote=at + timedelta(seconds=min(max(cost_s, 0.0), _LATER_S)))


def parse_time(text: str, what: str) -> datetime:
    """Return the moment that an ISO-8601 text means, UTC if it names no zone, without a zone. Raise `QueryError`."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{what}={text} is not a time", hint="write it as 2031-12-31T23:59:59Z") from error


def to_time(moment: datetime) -> str:
    """Return a time as UWS writes it."""
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def parse_phases(values: tuple[str, ...]) -> tuple[Phase, ...]:
    """Return the phases that PHASE names. Raise `QueryError`."""
    found = []
    for value in values:
        try:
            found.append(Phase(value.strip().upper()))
        except ValueError:
            raise QueryError(
                f"PHASE={value} is no phase of a job", hint=f"phases are {', '.join(p.value for p in Phase)}"
            ) from None
    return tuple(found)


def _check(job: Job, allowed: tuple[Phase, ...], what: str) -> Job:
    if job.phase not in allowed:
        raise QueryError(f"job {job.id} is {job.phase.value} and cannot {what} any more", hint="make a new job")
    return job


def _ended(job: Job, phase: Phase, at: datetime) -> Job:
    if job.phase is not Phase.EXECUTING:
        raise QueryError(f"job {job.id} is {job.phase.value}: it is not being run")
    return replace(job, phase=phase, ended=at, holder="", lease_until=None)
