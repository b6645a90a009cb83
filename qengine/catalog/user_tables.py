"""The tables that users keep for themselves (MyDB): who has which, how large they are, who else may read them.

All tables of a user are one catalogue, `rights.user_catalog`, and each is an ordinary table of the store: loaded, published, joined
and verified as every other. So nothing is kept about them that the registry does not know already. Rows and bytes are those of the
parts, the time is that of the load, shares are grants of the table; whatever a crash leaves behind agrees with itself.

A table that is dropped is not in the next snapshot of its catalogue. Its shares end before, so that a later table of the same name
is nobody else's. Its inputs count as replaced, so that the same rows can be loaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from qengine.catalog.model import TableKind, TableSnapshot
from qengine.catalog.registry import Registry
from qengine.catalog.releases import ReleaseState
from qengine.catalog.rights import PUBLIC, user_catalog
from qengine.errors import QEngineError, RegistryError, UnknownNameError

ALIAS = "mydb"
"""What everybody calls the catalogue of their own tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTable:
    """A table of a user. `bytes` are those of all its parts, `grantees` who else reads it, `load` the load that made it."""

    catalog: str
    name: str
    rows: int
    bytes: int
    columns: tuple[str, ...]
    is_placed: bool
    created: datetime
    grantees: tuple[str, ...]
    load: str

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {
            "name": self.name, "table": f"{ALIAS}.{self.name}", "full_name": f"{self.catalog}.{self.name}", "rows": self.rows,
            "bytes": self.bytes, "columns": list(self.columns), "has_position": self.is_placed,
            "created": self.created.isoformat(), "public": PUBLIC in self.grantees,
            "groups": [one.removeprefix("group:") for one in self.grantees if one.startswith("group:")],
        }  # fmt: skip


class UserTables:
    """The users' tables of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def of(self, user: str) -> tuple[UserTable, ...]:
        """Return the tables of a user by name."""
        own = user_catalog(user)
        found = [one for one in self._registry.catalog() if one.table.schema.lower() == own.lower()]
        if not found:
            return ()
        made = self._made(own)
        shared = [one for one in self._registry.rights.listed() if one.catalog.lower() == own.lower()]
        tables = []
        for one in sorted(found, key=lambda one: one.table.name.lower()):
            name = one.table.name.lower()
            load, created = made[name]
            grantees = tuple(sorted({grant.grantee for grant in shared if grant.table.lower() in ("", name)}))
            tables.append(_user_table(one, load, created, grantees))
        return tuple(tables)

    def find(self, user: str, name: str) -> UserTable:
        """Return a table of a user. Raise `UnknownNameError` if there is none of this name."""
        found = next((one for one in self.of(user) if one.name.lower() == name.lower()), None)
        if found is None:
            raise UnknownNameError(f"there is no table {ALIAS}.{name}")
        return found

    def bytes_of(self, user: str) -> int:
        """Return the bytes of all tables of a user."""
        own = user_catalog(user).lower()
        return sum(_bytes(one) for one in self._registry.catalog() if one.table.schema.lower() == own)

    def share(self, user: str, name: str, grantee: str, *, is_ending: bool = False) -> UserTable:
        """Let a grantee (`rights.grantee_of`) read a table, or end that. Saying it again changes nothing."""
        found = self.find(user, name)
        if is_ending:
            if grantee in found.grantees:
                self._registry.rights.revoke(found.catalog, found.name, grantee)
        else:
            if grantee == PUBLIC:  # what is granted to the public counts for what is released
                self._registry.releases.promote(found.catalog, ReleaseState.RELEASED)
            self._registry.rights.grant(found.catalog, found.name, grantee)
        return self.find(user, name)

    def drop(self, user: str, name: str) -> UserTable:
        """Drop a table. Raise `UnknownNameError` if there is none of this name."""
        found = self.find(user, name)
        registry, full_name = self._registry, f"{found.catalog}.{found.name}".lower()
        for grant in registry.rights.listed():
            if grant.catalog.lower() == found.catalog.lower() and grant.table.lower() == found.name.lower():
                with suppress(RegistryError):  # another request ended it
                    registry.rights.revoke(found.catalog, grant.table, grant.grantee)
        digest = registry.manifest_digests().get(full_name, "")
        load = registry.open_load(found.catalog, {"operation": "drop", "drop": found.name, "by": user})
        try:
            registry.publish(
                load.id, found.catalog, (), base={full_name: digest}, dropped=(found.name,), is_final=True,
                replaced=registry.inputs(found.catalog, found.name),
            )  # fmt: skip
        except BaseException as error:
            with suppress(QEngineError):
                registry.abort_load(load.id, str(error))
            raise
        # Nobody has a right to what a user does not keep: older snapshots go, but for those that queries read.
        registry.releases.expire(found.catalog, keep=1)
        return found

    def _made(self, catalog: str) -> Mapping[str, tuple[str, datetime]]:
        """Return load and time of the latest change of each table, by name in lower case."""
        entries = {one.number: one for one in self._registry.snapshots(catalog)}
        found = {}
        for manifest in self._registry.latest_manifests(catalog):
            # the name of a manifest begins with the number of the snapshot that changed the table
            entry = entries[int(Path(manifest.uri).name.split("-")[0])]
            found[manifest.table.lower()] = (entry.load, entry.published)
        return found


def _user_table(one: TableSnapshot, load: str, created: datetime, grantees: tuple[str, ...]) -> UserTable:
    table = one.table
    return UserTable(
        catalog=table.schema, name=table.name, rows=one.rows, bytes=_bytes(one),
        columns=tuple(column.name for column in table.columns if not column.hidden),
        is_placed=table.kind is TableKind.DIRECTOR, created=created, grantees=grantees, load=load,
    )  # fmt: skip


def _bytes(one: TableSnapshot) -> int:
    return sum(int(parts.bytes.sum()) for parts in (one.home, one.orphan, one.margin))
