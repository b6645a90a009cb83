"""Jobs in the registry's database: what was asked for, how far it is, and which process runs it.

A job is a row that changes as a whole: `edit` reads it, applies a pure function, and writes what that returns, in a transaction
that excludes other writers. So what a transition checks (`tap.jobs`) still holds when it is written, in any number of processes.

A process that runs a job holds a *lease* on it, which it renews (`renew`) as long as it lives. `claim` gives out jobs that are
queued, and executing ones whose lease has run out; each claim raises the job's *epoch*. What a runner has to say it says under its
epoch (`edit` with `Claim`): one that was taken for dead and wakes up later is refused with `LostClaimError`. Leases that ran out
are counted, so that a job that ends every process that touches it is not tried for ever.

Owners take turns: a job is claimed for the owner who has the fewest running, the oldest first. Times are in UTC without a zone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa

from qengine.catalog.database import Database, now
from qengine.catalog.migrations.tables import JOBS
from qengine.errors import ConflictError, LimitError, TooManyRequestsError, UnknownNameError

Json = Mapping[str, Any]


class Phase(Enum):
    """The phases of UWS 1.1 that a job can be in here."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    EXECUTING = "EXECUTING"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"
    ABORTED = "ABORTED"
    HELD = "HELD"
    ARCHIVED = "ARCHIVED"

    @property
    def is_active(self) -> bool:
        """Whether it changes by itself: the phases in which UWS lets clients wait."""
        return self in (Phase.PENDING, Phase.QUEUED, Phase.EXECUTING)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one process to run a job, as long as the job has this holder and epoch."""

    job: str
    holder: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. `owner` is empty for anybody, `identity` the rest of what is known of who asked. `parameters` are the values of each
    parameter by upper-case name, `uploads` says where uploaded tables are kept. `duration_s` bounds one execution, 0: unlimited.
    `result`, `error` and `progress` are empty until there is one. `losses` counts leases that ran out."""

    id: str
    owner: str = ""
    run_id: str = ""
    phase: Phase = Phase.PENDING
    created: datetime
    queued: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    destruction: datetime
    quote: datetime | None = None
    duration_s: int = 0
    identity: Json = field(default_factory=dict)
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    uploads: Json = field(default_factory=dict)
    result: Json = field(default_factory=dict)
    error: Json = field(default_factory=dict)
    progress: Json = field(default_factory=dict)
    holder: str = ""
    epoch: int = 0
    losses: int = 0
    lease_until: datetime | None = None

    @property
    def claim(self) -> Claim:
        """Return the right to run it as it is now."""
        return Claim(self.id, self.holder, self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsage:
    """What the jobs of an owner take: how many have not ended, how many of these run, and the bytes of all results."""

    active: int
    running: int
    bytes: int


class UnknownJobError(UnknownNameError):
    """There is no such job, or it is somebody else's."""

    code = "unknown_job"


class LostClaimError(ConflictError):
    """A job was taken from the process that ran it: it was aborted, deleted, or given to another."""

    code = "lost_claim"


_ID = re.compile(r"[0-9a-f]{32}")
_RETRY_S = 60
_JSON = ("identity", "parameters", "uploads", "result", "error", "progress")


class JobStore:
    """The jobs of one registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, job: Job, *, active_limit: int = 0) -> None:
        """Add a job. Raise `TooManyRequestsError` if its owner has so many already that have not ended (0: no limit)."""
        with self._database.writing() as connection:
            if active_limit:
                active = [phase.value for phase in Phase if phase.is_active]
                query = sa.select(sa.func.count()).where(JOBS.c.owner == job.owner, JOBS.c.phase.in_(active))
                if connection.execute(query).scalar_one() >= active_limit:
                    raise TooManyRequestsError(
                        f"{active_limit} jobs of {job.owner or 'users without a name'} have not ended",
                        hint="wait for them, or abort or delete some",
                        details={"retry_after_s": _RETRY_S},
                    )
            connection.execute(sa.insert(JOBS).values(_row(job)))

    def kept_bytes(self, owner: str) -> int:
        """Return how many bytes the results and uploaded tables of an owner's jobs have."""
        with self._database.reading() as connection:
            return _kept(connection, owner)

    def find(self, job: str) -> Job:
        """Return a job. Raise `UnknownJobError` if there is none."""
        with self._database.reading() as connection:
            return _find(connection, job)

    def edit(self, job: str, change: Callable[[Job], Job], *, claim: Claim | None = None, may_keep: float = math.inf) -> Job:
        """Replace a job by what `change` makes of it, and return that. What `change` raises leaves the job as it is; and so does a
        `LimitError`, if the jobs of its owner would have more than `may_keep` bytes then.

        Raise `UnknownJobError` if there is none, `LostClaimError` if it is not executing under `claim`.
        """
        with self._database.writing() as connection:
            try:
                old = _find(connection, job)
            except UnknownJobError as error:
                raise error if claim is None else LostClaimError(f"job {job} is gone") from error
            if claim is not None and (old.claim != claim or old.phase is not Phase.EXECUTING):
                raise LostClaimError(f"job {job} is {old.phase.value} and no longer run under epoch {claim.epoch}")
            new = change(old)
            if new != old:
                before = _row(old)
                changed = {name: value for name, value in _row(new).items() if value != before[name]}
                connection.execute(sa.update(JOBS).where(JOBS.c.id == job).values(changed))
            if may_keep < math.inf and (kept := _kept(connection, new.owner)) > may_keep:
                raise LimitError(
                    f"your jobs would have {kept / 1e9:.3f} GB, and you may still keep {max(may_keep, 0) / 1e9:.3f} GB",
                    hint="delete jobs or tables first, or name fewer columns",
                )
        return new

    def remove(self, job: str) -> None:
        """Delete a job. Raise `UnknownJobError` if there is none."""
        with self._database.writing() as connection:
            if connection.execute(sa.delete(JOBS).where(JOBS.c.id == job)).rowcount != 1:
                raise unknown_job(job)

    def listed(
        self, owner: str, *, phases: Collection[Phase] = (), after: datetime | None = None, last: int | None = None
    ) -> tuple[Job, ...]:
        """Return the jobs of an owner in order of creation: in one of `phases` (none named: all but archived ones), created later
        than `after`, and of these the `last` ones, the newest first then."""
        query = sa.select(JOBS).where(JOBS.c.owner == owner)
        if phases:
            query = query.where(JOBS.c.phase.in_([phase.value for phase in phases]))
        else:
            query = query.where(JOBS.c.phase != Phase.ARCHIVED.value)
        if after is not None:
            query = query.where(JOBS.c.created > after)
        if last is None:
            query = query.order_by(JOBS.c.created, JOBS.c.id)
        else:
            query = query.order_by(JOBS.c.created.desc(), JOBS.c.id.desc()).limit(last)
        with self._database.reading() as connection:
            return tuple(_job(row) for row in connection.execute(query))

    def phases(self, jobs: Collection[str]) -> Mapping[str, Phase]:
        """Return the phase of each of these jobs that is there."""
        query = sa.select(JOBS.c.id, JOBS.c.phase).where(JOBS.c.id.in_(sorted(jobs)))
        with self._database.reading() as connection:
            return {row.id: Phase(row.phase) for row in connection.execute(query)}

    def known(self) -> frozenset[str]:
        """Return the ids of all jobs."""
        with self._database.reading() as connection:
            return frozenset(connection.execute(sa.select(JOBS.c.id)).scalars())

    def due(self) -> tuple[Job, ...]:
        """Return the jobs whose time of destruction has come."""
        with self._database.reading() as connection:
            return tuple(_job(row) for row in connection.execute(sa.select(JOBS).where(JOBS.c.destruction <= now())))

    def usage(self, owner: str) -> JobUsage:
        """Return what the jobs of an owner take."""
        query = sa.select(JOBS.c.phase, JOBS.c.result).where(JOBS.c.owner == owner)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        active = sum(Phase(row.phase).is_active for row in rows)
        running = sum(row.phase == Phase.EXECUTING.value for row in rows)
        return JobUsage(active=active, running=running, bytes=sum(json.loads(row.result).get("bytes", 0) for row in rows))

    def ahead(self, job: Job) -> int:
        """Return how many jobs have waited longer than this one, if it waits; owners take turns, so not all go first."""
        if job.phase is not Phase.QUEUED or job.queued is None:
            return 0
        before = sa.or_(JOBS.c.queued < job.queued, sa.and_(JOBS.c.queued == job.queued, JOBS.c.id < job.id))
        query = sa.select(sa.func.count()).where(JOBS.c.phase == Phase.QUEUED.value, before)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def counts(self) -> Mapping[Phase, int]:
        """Return how many jobs are in each phase."""
        query = sa.select(JOBS.c.phase, sa.func.count().label("jobs")).group_by(JOBS.c.phase)
        with self._database.reading() as connection:
            found = {Phase(row.phase): row.jobs for row in connection.execute(query)}
        return {phase: found.get(phase, 0) for phase in Phase}

    # -- running --------------------------------------------------------------------------------------------------------------

    def claim(
        self, holder: str, count: int, *, lease_s: float, dead: Collection[str] = (), allowed: Callable[[Job], float] | None = None
    ) -> tuple[Job, ...]:
        """Give up to `count` jobs to `holder` and return them as they are then, EXECUTING under a new epoch.

        Jobs of the holders in `dead` count as if their leases had run out. `allowed` returns how many jobs the owner of one may
        have running at a time, at whatever holders; one they may have anyhow.
        """
        if count < 1:
            return ()
        with self._database.reading() as connection:  # nothing to do is the usual case, and need not exclude writers
            turns = _turns(connection, holder, dead)
            crowded = {turn.owner: turn.job for turn in turns if turn.running} if allowed is not None else {}
            asked = tuple(map(_job, connection.execute(sa.select(JOBS).where(JOBS.c.id.in_(sorted(crowded.values()))))))
        limits = None if allowed is None else {job.owner: allowed(job) for job in asked}
        if not _first(turns, count, limits):
            return ()
        with self._database.writing() as connection:
            chosen = _first(_turns(connection, holder, dead), count, limits)
            rows = {row.id: row for row in connection.execute(sa.select(JOBS).where(JOBS.c.id.in_(chosen)))}
            return tuple(_take(connection, rows[job], holder, lease_s) for job in chosen)

    def renew(self, holder: str, progress: Mapping[str, Json], *, lease_s: float) -> Mapping[str, int]:
        """Extend the leases of a holder, keep how far its jobs are, and return the epoch of each that is still its own."""
        with self._database.writing() as connection:
            own = sa.and_(JOBS.c.holder == holder, JOBS.c.phase == Phase.EXECUTING.value)
            held = {row.id: row.epoch for row in connection.execute(sa.select(JOBS.c.id, JOBS.c.epoch).where(own))}
            if held:
                until = now() + timedelta(seconds=lease_s)
                connection.execute(sa.update(JOBS).where(own).values(lease_until=until))
            for job in held.keys() & progress.keys():
                text = _text(progress[job])
                connection.execute(sa.update(JOBS).where(own, JOBS.c.id == job).values(progress=text))
        return held

    def give_back(self, claims: Collection[Claim]) -> None:
        """Queue jobs again that their holder will not end, before all others: they have waited already."""
        for claim in claims:
            try:
                self.edit(claim.job, lambda job: replace(job, phase=Phase.QUEUED, holder="", lease_until=None), claim=claim)
            except LostClaimError:
                continue

    def holders(self) -> frozenset[str]:
        """Return who runs jobs, or did so when it died."""
        with self._database.reading() as connection:
            query = sa.select(JOBS.c.holder).where(JOBS.c.phase == Phase.EXECUTING.value).distinct()
            return frozenset(connection.execute(query).scalars())


def unknown_job(job: str) -> UnknownJobError:
    """Return the error of asking for a job that is not there."""
    return UnknownJobError(f"there is no job {job}", hint="it may have been deleted, or its time of destruction has come")


@dataclass(frozen=True, slots=True, order=True)
class _Turn:
    """A job that nobody runs; `running` jobs of its owner run already, or have a turn before."""

    running: int
    place: int
    job: str
    owner: str


def _turns(connection: sa.Connection, holder: str, dead: Collection[str]) -> list[_Turn]:
    """Return what nobody runs, in the order in which owners get a turn."""
    executing = JOBS.c.phase == Phase.EXECUTING.value
    # A holder that could not renew its leases in time still knows what it runs.
    ran_out = sa.and_(JOBS.c.lease_until < now(), JOBS.c.holder != holder)
    is_left = sa.and_(executing, sa.or_(ran_out, JOBS.c.holder.in_(sorted(dead))))
    free = sa.or_(JOBS.c.phase == Phase.QUEUED.value, is_left)
    found = list(connection.execute(sa.select(JOBS.c.id, JOBS.c.owner).where(free).order_by(JOBS.c.queued, JOBS.c.id)))
    if not found:
        return []
    running = sa.select(JOBS.c.owner, sa.func.count().label("jobs")).where(executing, sa.not_(is_left)).group_by(JOBS.c.owner)
    counts: dict[str, int] = {row.owner: row.jobs for row in connection.execute(running)}
    turns = []
    for place, row in enumerate(found):
        turns.append(_Turn(counts.get(row.owner, 0), place, row.id, row.owner))
        counts[row.owner] = counts.get(row.owner, 0) + 1
    return sorted(turns)


def _first(turns: Sequence[_Turn], count: int, limits: Mapping[str, float] | None) -> list[str]:
    """Return the jobs of the first turns that the limits of their owners let run: one of an owner whose limit is not known yet."""
    return [turn.job for turn in turns if limits is None or turn.running < max(limits.get(turn.owner, 1), 1)][:count]


def _take(connection: sa.Connection, row: sa.Row[Any], holder: str, lease_s: float) -> Job:
    job, at = _job(row), now()
    lost = job.phase is Phase.EXECUTING
    taken = replace(
        job, phase=Phase.EXECUTING, started=at, holder=holder, epoch=job.epoch + 1, losses=job.losses + lost, progress={},
        lease_until=at + timedelta(seconds=lease_s),
    )  # fmt: skip
    connection.execute(sa.update(JOBS).where(JOBS.c.id == job.id).values(_row(taken)))
    return taken


def _kept(connection: sa.Connection, owner: str) -> int:
    found = connection.execute(sa.select(JOBS.c.result, JOBS.c.uploads).where(JOBS.c.owner == owner)).all()
    results = sum(json.loads(result).get("bytes", 0) for result, _ in found)
    return int(results + sum(one["bytes"] for _, uploads in found for one in json.loads(uploads).values()))


def _find(connection: sa.Connection, job: str) -> Job:
    if not _ID.fullmatch(job):  # whatever a client may send
        raise unknown_job(job)
    row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job)).one_or_none()
    if row is None:
        raise unknown_job(job)
    return _job(row)


def _row(job: Job) -> dict[str, Any]:
    values = {one.name: getattr(job, one.name) for one in fields(job)}
    return {**values, "phase": job.phase.value, **{name: _text(values[name]) for name in _JSON}}


def _job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
    return Job(**{**values, "phase": Phase(row.phase), **{name: json.loads(values[name]) for name in _JSON}})


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
