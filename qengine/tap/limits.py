"""How much somebody may ask for: queries at a time, rows, bytes, time, storage.

Limits are written as words, `queries=50 rows=1e6 bytes=10GB seconds=600`, for nobody in particular, for users, for groups and for
single people. Members of groups have the most that one of these or being a user gives them; words for a person replace what they
name. What is not named is not limited, but for rows.

Queries that wait for their answer are counted for each user, and for each address of those who do not say who they are. One more
than allowed waits for a turn, and is told to come again later when it does not get one: most clients send what they have at once,
and a short queue serves them better than refusals.

Processes of one service share what is allowed: each lets in so many as its part of all queries that run or wait (`tap.sharing`),
and one at least. What they know of each other is about a second old. So for a moment somebody who turns to another process may have
more queries running than allowed, at most as many times as there are processes.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace

from qengine.catalog.who import Identity
from qengine.errors import ConfigError, LimitError, QueryTooLargeError, TooManyRequestsError
from qengine.plan.limits import CostLimit
from qengine.tap.parameters import SyncRequest
from qengine.tap.service import TapSettings

_WORD = re.compile(r"([a-z_]+)=([0-9]+(?:\.[0-9]*)?(?:[eE][0-9]+)?)([A-Za-z]*)")
_UNITS = {"": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUEUE = 4
"""For each query that may run, so many may wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What somebody may ask for; None: as much as they like.

    `queries` may wait for their answers at a time. An answer has `maxrec` rows at most unless more are asked for, and never more
    than `rows`; it has `bytes` at most, in its format, and what it reads is estimated at `reads` bytes at most. `seconds` is how
    long /sync takes at most, `job_seconds` a job. `jobs` may be there that have not ended, and `running` of them, or one, run at a
    time. `storage` is for results and tables that are kept, in bytes; tables that are uploaded with a request have `upload` bytes
    at most.
    """

    queries: float | None = None
    maxrec: float | None = None
    rows: float | None = None
    bytes: float | None = None
    reads: float | None = None
    seconds: float | None = None
    job_seconds: float | None = None
    jobs: float | None = None
    running: float | None = None
    storage: float | None = None
    upload: float | None = None

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Read words such as `queries=4 bytes=1GB`. Raise `ConfigError`."""
        found: dict[str, float] = {}
        names = {one.name for one in fields(cls)}
        for word in text.split():
            match = _WORD.fullmatch(word)
            if match is None or match[1] not in names or match[3].lower() not in _UNITS or match[1] in found:
                raise ConfigError(
                    f"{word!r} is no limit",
                    hint=f"for example queries=4 bytes=1GB seconds=600; known are {', '.join(sorted(names))}",
                )
            found[match[1]] = float(match[2]) * _UNITS[match[3].lower()]
        return cls(**found)

    def __or__(self, other: Limits) -> Limits:
        """Return the larger of each."""
        larger = {}
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            larger[one.name] = None if mine is None or theirs is None else max(mine, theirs)
        return Limits(**larger)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Limits of `anonymous` ones and of `users`; `groups` and `people` have entries such as `dp1: queries=100 rows=1e9`. A query
    waits for its turn for `patience_s`."""

    anonymous: str = "queries=50 rows=1e6 seconds=3600 upload=64MB"
    users: str = "queries=50 maxrec=1e8 rows=1e8 seconds=3600"
    groups: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    patience_s: float = 10.0


UNLIMITED = LimitSettings(anonymous="", users="")
"""Nothing but what the service itself is set to."""


class Slot:
    """The right of one query to run. Release it when the answer is sent; more than once does no harm."""

    def __init__(self, gate: Gate, key: str) -> None:
        self._gate = gate
        self._key = key

    def release(self) -> None:
        """Let the next one in."""
        if self._key:
            self._gate.free(self._key)
            self._key = ""


class _Counter:
    """Who runs and waits under one name here; `elsewhere` is how many do at other processes."""

    def __init__(self, allowed: int, elsewhere: int) -> None:
        self.allowed = allowed
        self.elsewhere = elsewhere
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    @property
    def wanted(self) -> int:
        return self.running + len(self.waiting)

    async def turn(self) -> None:
        """Wait until one more may run, and count it."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(mine)
        self.deal()
        try:
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self.running -= 1
            elif mine in self.waiting:
                self.waiting.remove(mine)
            self.deal()
            raise

    def deal(self) -> None:
        """Let in as many of those that wait as there is room for."""
        share = max(1, self.allowed * self.wanted // (self.wanted + self.elsewhere)) if self.wanted else 0
        while self.waiting and self.running < share:
            mine = self.waiting.popleft()
            if not mine.cancelled():
                self.running += 1
                mine.set_result(None)


class Gate:
    """Says who may ask for how much, and counts queries. Used on one event loop."""

    def __init__(self, settings: LimitSettings, tap: TapSettings | None = None) -> None:
        self._settings = settings
        self._tap = tap or TapSettings()
        self._anonymous, self._users = Limits.parse(settings.anonymous), Limits.parse(settings.users)
        self._groups = _named(settings.groups, "groups")
        self._people = _named(settings.people, "people")
        self._counters: dict[str, _Counter] = {}
        self._elsewhere: Mapping[str, int] = {}

    @property
    def limits_running_jobs(self) -> bool:
        """Whether there is anybody who may not have as many jobs running as the service can run."""
        every = (self._anonymous, self._users, *self._groups.values(), *self._people.values())
        return any(one.running is not None for one in every)

    def limits_of(self, identity: Identity) -> Limits:
        """Return what somebody may ask for; administrators are limited by what the service can do."""
        if identity.is_anonymous:
            found = self._anonymous
        elif identity.is_admin:
            found = Limits(maxrec=math.inf)
        else:
            found = self._users
            for group in identity.groups:
                if (more := self._groups.get(group)) is not None:
                    found |= _completed(more, self._users)
        if identity.user and (own := self._people.get(identity.user)) is not None:
            found = _completed(own, found)
        hard = self._tap.maxrec_limit if found.rows is None else min(found.rows, self._tap.maxrec_limit)
        default = min(self._tap.maxrec if found.maxrec is None else found.maxrec, hard)
        return replace(found, rows=hard, maxrec=default)

    def settings_for(self, identity: Identity) -> TapSettings:
        """Return the service's settings with the rows that somebody may ask for."""
        limits = self.limits_of(identity)
        assert limits.maxrec is not None
        assert limits.rows is not None
        return replace(self._tap, maxrec=int(limits.maxrec), maxrec_limit=int(limits.rows))

    async def take(self, identity: Identity, address: str) -> Slot:
        """Return the right to run a query, when it is its turn. Raise `TooManyRequestsError` when it takes too long."""
        allowed = self.limits_of(identity).queries
        if allowed is None:
            return Slot(self, "")
        key = f"user {identity.user}" if identity.user else f"address {address}"
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(0, self._elsewhere.get(key, 0))
        counter.allowed = max(int(allowed), 0)
        try:
            if not allowed or len(counter.waiting) >= _QUEUE * allowed:
                raise self._refusal(identity, allowed)
            async with asyncio.timeout(self._settings.patience_s):
                await counter.turn()
        except TimeoutError:
            raise self._refusal(identity, allowed) from None
        finally:
            self._drop(key)
        return Slot(self, key)

    def demand(self) -> dict[str, int]:
        """Return how many queries run or wait here, by whose they are."""
        return {key: counter.wanted for key, counter in self._counters.items()}

    def hear(self, elsewhere: Mapping[str, int]) -> None:
        """Know from here on how many run or wait at other processes."""
        self._elsewhere = elsewhere
        for key, counter in self._counters.items():
            counter.elsewhere = elsewhere.get(key, 0)
            counter.deal()

    def _refusal(self, identity: Identity, allowed: float) -> TooManyRequestsError:
        whose = "from your address" if identity.is_anonymous else f"of {identity.user}"
        return TooManyRequestsError(
            f"{allowed:.0f} queries {whose} are running, which is what is allowed at a time",
            hint="wait for their answers, or use /async",
            details={"retry_after_s": self._settings.patience_s},
        )

    def free(self, key: str) -> None:
        """Count one query less; slots do this."""
        counter = self._counters[key]
        counter.running -= 1
        counter.deal()
        self._drop(key)

    def _drop(self, key: str) -> None:
        counter = self._counters[key]
        if not counter.wanted:
            del self._counters[key]


def limited(checked: SyncRequest, limits: Limits) -> SyncRequest:
    """Return a request that does not read more than is allowed."""
    if limits.reads is None:
        return checked
    cost = CostLimit.parse(checked.max_cost) & CostLimit(bytes=limits.reads)
    words = [f"{cost.bytes:.0f}B"] + ([f"{cost.seconds:.3f}s"] if cost.seconds is not None else [])
    return replace(checked, max_cost=",".join(words))


def check_bytes(written: int, allowed: float | None) -> None:
    """Raise `QueryTooLargeError` if an answer has become too large."""
    if allowed is not None and written > allowed:
        raise QueryTooLargeError(
            f"the answer has more than {allowed:.0f} bytes, which is what is allowed", hint="name fewer columns, or use MAXREC"
        )


def check_storage(kept: Callable[[], int], limits: Limits) -> None:
    """Raise `LimitError` if somebody keeps as much as they may; `kept` returns how many bytes that are."""
    if limits.storage is None:
        return
    found = kept()
    if found >= limits.storage:
        raise LimitError(
            f"{found / 1e9:.3f} GB are kept, and {limits.storage / 1e9:.3f} GB are allowed", hint="delete jobs or tables first"
        )


def check_room(written: int, room: float) -> None:
    """Raise `LimitError` if a result has become larger than what its owner may still keep."""
    if written > room:
        raise LimitError(
            f"the result has more than the {max(room, 0) / 1e9:.3f} GB that you may still keep",
            hint="delete jobs or tables first, or name fewer columns",
        )


def _named(entries: Iterable[str], what: str) -> Mapping[str, Limits]:
    found = {}
    for entry in entries:
        name, colon, words = entry.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"limits.{what}: {entry!r} has no name", hint="for example dp1: queries=100")
        found[name.strip().lower()] = Limits.parse(words)
    return found


def _completed(limits: Limits, base: Limits) -> Limits:
    """Return `limits` with what they do not name as in `base`."""
    missing = {one.name: getattr(base, one.name) for one in fields(limits) if getattr(limits, one.name) is None}
    return replace(limits, **missing)
