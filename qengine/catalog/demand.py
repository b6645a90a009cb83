"""How many queries run or wait under which name at the processes of a service that share a registry.

Each process tells its own and hears those of the others, about once a second. A process that has said nothing for `LEASE_S` is
taken for dead, and its queries do not count any more; the clocks of machines must agree that far. While there is one process only,
a sign of its life every few seconds is all that is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

import sqlalchemy as sa

from qengine.catalog.database import Database, now
from qengine.catalog.migrations.tables import DEMANDS

LEASE_S = 10.0

_LETTERS = 256
_ALIVE = ""
"""Name of the row that says when a process has told something."""


class DemandStore:
    """One process among those of a service."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s
        self._process = uuid4().hex
        self._told: Mapping[str, int] = {}
        self._told_at = float("-inf")

    def exchange(self, mine: Mapping[str, int]) -> dict[str, int]:
        """Tell how many queries of whom are here, and return how many are elsewhere. Raise `RegistryError`."""
        since = now() - timedelta(seconds=self._lease_s)
        alive = sa.select(DEMANDS.c.process).where(
            DEMANDS.c.name == _ALIVE, DEMANDS.c.told > since, DEMANDS.c.process != self._process
        )
        wanted = (
            sa.select(DEMANDS.c.name, sa.func.sum(DEMANDS.c.queries)).where(DEMANDS.c.process.in_(alive)).group_by(DEMANDS.c.name)
        )
        with self._database.reading() as connection:
            found = {str(name): int(count) for name, count in connection.execute(wanted)}
        is_alone = found.pop(_ALIVE, None) is None
        tell = {} if is_alone else {name[:_LETTERS]: count for name, count in mine.items() if count}
        if tell != self._told or time.monotonic() - self._told_at > self._lease_s / 3:
            self._tell(tell)
        return {name: count for name, count in found.items() if count}

    def leave(self) -> None:
        """Say that this process has no queries any more. Raise `RegistryError`."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(DEMANDS).where(DEMANDS.c.process == self._process))

    def _tell(self, mine: Mapping[str, int]) -> None:
        at = now()
        dead = sa.select(DEMANDS.c.process).where(
            DEMANDS.c.name == _ALIVE, DEMANDS.c.told < at - timedelta(seconds=10 * self._lease_s)
        )
        rows = [
            {"process": self._process, "name": name, "queries": count, "told": at}
            for name, count in ({_ALIVE: 0} | dict(mine)).items()
        ]
        with self._database.writing() as connection:
            connection.execute(sa.delete(DEMANDS).where((DEMANDS.c.process == self._process) | DEMANDS.c.process.in_(dead)))
            connection.execute(sa.insert(DEMANDS), rows)
        self._told, self._told_at = dict(mine), time.monotonic()
