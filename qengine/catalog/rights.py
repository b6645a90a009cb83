"""Who may read what.

A *grant* lets a group, a user or the public read a catalogue or one table of it. Grants add up:

* a catalogue *without* any grant is read by everybody when it is released or frozen (`catalog.releases`), by its groups while it
  is internal, and by nobody while it is staged;
* a catalogue *with* grants is read by those whom they name, and its tables by those whom a grant of the table names. What is
  granted to the public counts once the catalogue is released;
* the catalogue of a user's own tables (`user_catalog`) is read by its owner, and by those whom grants name;
* administrators read everything.

So the first grant closes a released catalogue for everybody else, and the last one that is taken away would open it again: who
wants that has to say so. Grants are kept in the store beside tags and states, so that a registry that is rebuilt opens nothing.

`visible` is the pure function that makes, of all that is published, what an identity may read. Everything that a statement can
name, find or be told comes from there, so what may not be read does not exist: TAP_SCHEMA and the system tables are those of the
rest. A view whose tables are not all visible is not, nor is a match table without its directors; a child does not know a director
that is hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import sqlalchemy as sa

from qengine.catalog import durable, published
from qengine.catalog.database import Database, now
from qengine.catalog.files import Files
from qengine.catalog.migrations.tables import GRANTS
from qengine.catalog.model import Catalog, Table, TableSnapshot
from qengine.catalog.releases import CatalogState, Releases, ReleaseState
from qengine.catalog.system_tables import NAME as SYSTEM
from qengine.catalog.system_tables import Facts
from qengine.catalog.tap_schema import NAME as TAP_SCHEMA
from qengine.catalog.tap_schema import tap_schema
from qengine.catalog.users import checked_group, checked_name, record_change
from qengine.catalog.who import Identity
from qengine.errors import ConfigError, ConflictError, RegistryError

PUBLIC = "public"
_FILE = "_rights.json"
_PLAIN = re.compile(r"[a-z0-9_]+")
_OWN = ("user_", "userx_")
_UPLOADS = "tap_upload"
_OPEN = (ReleaseState.RELEASED, ReleaseState.FROZEN)
_RELEASED = CatalogState(state=ReleaseState.RELEASED)


def user_catalog(user: str) -> str:
    """Return the name of the catalogue of a user's own tables: `user_ann`. Different users have different ones."""
    if _PLAIN.fullmatch(user):
        return f"user_{user}"
    # what a name of a catalogue cannot have, and what marks it, is written as its number
    return "userx_" + "".join(letter if letter.isalnum() else f"_{ord(letter):02x}" for letter in user)


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """`grantee` is public, group:<name> or user:<name>; an empty `table` is the whole catalogue."""

    catalog: str
    table: str
    grantee: str

    @property
    def what(self) -> str:
        """What may be read: `dp1` or `dp1.Object`."""
        return f"{self.catalog}.{self.table}" if self.table else self.catalog


@dataclass(frozen=True)
class Rights:
    """What was granted, and the states of catalogues that were given one; the others have the state `unstated`."""

    grants: tuple[Grant, ...] = ()
    states: Mapping[str, CatalogState] = field(default_factory=dict)
    unstated: ReleaseState = ReleaseState.RELEASED

    @cached_property
    def _granted(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        found: dict[str, dict[str, frozenset[str]]] = {}
        for grant in self.grants:
            tables = found.setdefault(grant.catalog.lower(), {})
            tables[grant.table.lower()] = tables.get(grant.table.lower(), frozenset()) | {grant.grantee}
        return found

    @cached_property
    def _states(self) -> Mapping[str, CatalogState]:
        return {
            name.lower(): CatalogState(state=one.state, groups=frozenset(group.lower() for group in one.groups))
            for name, one in self.states.items()
        }

    @cached_property
    def _named(self) -> frozenset[str]:
        """All grantees, those of states too."""
        groups = {f"group:{group}" for one in self._states.values() for group in one.groups}
        return frozenset(grant.grantee for grant in self.grants) | groups

    def subjects(self, identity: Identity) -> frozenset[str]:
        """Return what makes a difference between two identities that are not administrators; their own catalogues do, too."""
        return _subjects(identity) & self._named

    def may_read(self, identity: Identity, catalog: str, table: str) -> bool:
        """Return whether an identity may read a table, which need not exist."""
        name = catalog.lower()
        if identity.is_admin or name in (TAP_SCHEMA.lower(), SYSTEM):
            return True
        if name.startswith(_UPLOADS):  # those who upload are given what is theirs with their query
            return False
        state = self._states.get(name) or CatalogState(state=self.unstated)
        is_open = state.state in _OPEN
        granted = self._granted.get(name, {})
        named = granted.get("", frozenset()) | granted.get(table.lower(), frozenset())
        if not named.isdisjoint(_subjects(identity) - (frozenset() if is_open else {PUBLIC})):
            return True
        if name.startswith(_OWN):
            return bool(identity.user) and name == user_catalog(identity.user)
        if state.state is ReleaseState.INTERNAL and not state.groups.isdisjoint(identity.groups):
            return True
        return is_open and not granted


Needs = Callable[[Table], Iterable[tuple[str, str]] | None]
"""Returns (schema or empty, table) of all that a view names, None if it cannot be read."""


def visible(catalog: Catalog, identity: Identity, rights: Rights, needs: Needs) -> Catalog:
    """Return what an identity may read of a catalogue: itself if that is everything."""
    if identity.is_admin:
        return catalog
    stored = [one for one in catalog if one.facts is None and one.table.schema != TAP_SCHEMA]
    shown = [one for one in stored if rights.may_read(identity, one.table.schema, one.table.name)]
    while len(kept := _standing(shown, catalog, needs)) < len(shown):
        shown = kept
    has_all = len(shown) == len(stored)
    seen = _Seen(identity, rights, {_name(one) for one in shown}, {_name(one) for one in stored})
    meta = [seen.of(one) for one in catalog if one.facts is not None]
    if has_all:  # rows of loads of what is not published may still have to be hidden
        return Catalog((*stored, *meta, *(one for one in catalog if one.table.schema == TAP_SCHEMA))) if meta else catalog
    tables = [_without_hidden(one, seen.shown) for one in shown]
    return Catalog((*tables, *meta, *tap_schema((*tables, *meta))))


Name = tuple[str, str]


def _name(one: TableSnapshot) -> Name:
    return one.table.schema.lower(), one.table.name.lower()


def _standing(shown: Collection[TableSnapshot], catalog: Catalog, needs: Needs) -> list[TableSnapshot]:
    """Return the tables without those that stand on something which is not among them."""
    names = {_name(one) for one in shown}

    def stands(table: Table) -> bool:
        if table.match is not None and not all(_is_among(family, names) for family in (table.family, table.match.family)):
            return False
        if not table.view:
            return True
        needed = needs(table)
        return needed is not None and all(_resolves(schema, name, table, catalog, names) for schema, name in needed)

    return [one for one in shown if stands(one.table)]


def _is_among(full_name: str, names: Collection[Name]) -> bool:
    schema, _, name = full_name.lower().rpartition(".")
    return (schema, name) in names


def _resolves(schema: str, name: str, view: Table, catalog: Catalog, names: Collection[Name]) -> bool:
    """Return whether all that a name in a view can mean is visible; a name that means nothing there (of a WITH) is."""
    own = catalog.find(schema or view.schema, name)
    found = [own] if own is not None or schema else catalog.find_unqualified(name)
    return all(one is None or one.facts is not None or one.table.schema == TAP_SCHEMA or _name(one) in names for one in found)


def _without_hidden(one: TableSnapshot, names: Collection[Name]) -> TableSnapshot:
    """Return a table that does not tell of others which are not among `names`."""
    table = one.table

    def is_shown(name: str) -> bool:
        return (table.schema.lower(), name.lower()) in names

    keys = tuple(key for key in table.foreign_keys if is_shown(key.target))
    director = table.director if table.match is not None or is_shown(table.director) else ""
    if (keys, director) == (table.foreign_keys, table.director):
        return one
    return replace(one, table=replace(table, foreign_keys=keys, director=director))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an identity sees of the system tables: `shown` are the tables that it may read, `stored` those that there are."""

    identity: Identity
    rights: Rights
    shown: Collection[Name]
    stored: Collection[Name]

    def of(self, one: TableSnapshot) -> TableSnapshot:
        """Return a system table that says nothing about what is not seen."""
        read = one.facts
        assert read is not None

        def facts(asked: Collection[str]) -> Facts:
            return replace(read(asked), is_visible=self.is_visible)

        return replace(one, facts=facts)

    def is_visible(self, catalog: str, table: str) -> bool:
        """Rows about a whole catalogue, such as its loads, may name all of its tables: who sees them has to see all of these. A
        catalogue that is not published yet is nobody's business."""
        name = catalog.lower()
        if not self.rights.may_read(self.identity, catalog, table):
            return False
        own = {known for known in self.stored if known[0] == name}
        if table:
            return bool(own) and ((name, table.lower()) in self.shown or (name, table.lower()) not in own)
        return bool(own) and own <= set(self.shown)


def _subjects(identity: Identity) -> frozenset[str]:
    user = {f"user:{identity.user}"} if identity.user else set()
    return frozenset({PUBLIC, *user, *(f"group:{group.lower()}" for group in identity.groups)})


def grantee_of(*, user: str = "", group: str = "", is_public: bool = False) -> str:
    """Return the grantee that is meant. Raise `ConfigError` unless it is exactly one."""
    if sum((bool(user), bool(group), is_public)) != 1:
        raise ConfigError("a grant is to a user, a group or the public", hint="name one of them: --user, --group, --public")
    if is_public:
        return PUBLIC
    return f"user:{checked_name(user)}" if user else f"group:{checked_group(group)}"


class RightsStore:
    """The grants of one registry."""

    def __init__(self, files: Files, database: Database) -> None:
        self._files = files
        self._database = database
        self._read: tuple[int, Rights] = (-1, Rights())

    def current(self, unstated: ReleaseState = ReleaseState.RELEASED) -> Rights:
        """Return the rights as they are now; they are read again only when something has changed. Catalogues that were given no
        state are taken as `unstated`."""
        version = self._database.newest_change()
        if version is None or version != self._read[0] or self._read[1].unstated is not unstated:
            # Read after its number was: what changes in between is read once more.
            rights = Rights(self.listed(), Releases(self._files, self._database).states(), unstated)
            if version is None:
                return rights
            self._read = version, rights
        return self._read[1]

    def listed(self) -> tuple[Grant, ...]:
        """Return all grants."""
        with self._database.reading() as connection:
            if not sa.inspect(connection).has_table(GRANTS.name):
                return ()
            return tuple(sorted(Grant(row.catalog, row.table_name, row.grantee) for row in connection.execute(sa.select(GRANTS))))

    def grant(self, catalog: str, table: str, grantee: str) -> Grant:
        """Let a grantee (`grantee_of`) read a catalogue or a table of it. Raise `RegistryError` if there is no such thing."""
        with self._database.writing() as connection:
            made = _known(connection, catalog, table, grantee)
            if connection.execute(_rows(made)).first() is None:
                values = {"catalog": made.catalog, "table_name": made.table, "grantee": grantee, "made": now()}
                folded = {"folded_catalog": made.catalog.lower(), "folded_table": made.table.lower()}
                connection.execute(sa.insert(GRANTS).values({**values, **folded}))
                self._changed(connection, made, "granted to")
        return made

    def revoke(self, catalog: str, table: str, grantee: str, *, is_opening: bool = False) -> Grant:
        """Take a grant back. Raise `RegistryError` if there is none, `ConflictError` if it is the last one of a catalogue that
        everybody could read then, unless `is_opening` says that they shall."""
        with self._database.writing() as connection:
            rows = connection.execute(sa.select(GRANTS).where(GRANTS.c.folded_catalog == catalog.lower())).all()
            found = [row for row in rows if row.folded_table == table.lower() and row.grantee == grantee]
            if not found:
                raise RegistryError(f"{Grant(catalog, table, grantee).what} is not granted to {grantee}", hint="see qengine grants")
            old = Grant(found[0].catalog, found[0].table_name, grantee)
            if len(rows) == 1 and grantee != PUBLIC and not is_opening and not old.catalog.lower().startswith(_OWN):
                states = Releases(self._files, self._database).states()
                if states.get(old.catalog, _RELEASED).state in _OPEN:
                    raise ConflictError(
                        f"without its last grant everybody reads {old.catalog}, which is released",
                        hint=f"qengine promote {old.catalog} staged hides it; --open says that everybody shall read it",
                    )
            connection.execute(_rows(old, is_deleting=True))
            self._changed(connection, old, "taken from")
        return old

    def _changed(self, connection: sa.Connection, grant: Grant, how: str) -> None:
        record_change(connection, f"{grant.what} {how} {grant.grantee}")
        query = sa.select(GRANTS).where(GRANTS.c.folded_catalog == grant.catalog.lower())
        words = sorted([row.table_name, row.grantee] for row in connection.execute(query))
        path = self._files.root / grant.catalog / _FILE
        with durable.writing(path) as temporary:
            temporary.write_text(json.dumps(words, indent=1, ensure_ascii=False))
        self._files.keep([path])


def restore_rights(connection: sa.Connection, files: Files, catalog: str) -> None:
    """Give a catalogue of a rebuilt registry the grants that its file in the store says."""
    path = files.root / catalog / _FILE
    if files.is_far:
        path.unlink(missing_ok=True)  # the near copy may be older
    if not files.need(path).is_file():
        return
    try:
        grants = [Grant(catalog, str(table), str(grantee)) for table, grantee in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(f"{path} cannot be read: {error}", hint="remove it, and grant again before the service runs") from error
    connection.execute(sa.delete(GRANTS).where(GRANTS.c.folded_catalog == catalog.lower()))
    for grant in grants:
        values = {"catalog": catalog, "table_name": grant.table, "grantee": grant.grantee, "made": now()}
        folded = {"folded_catalog": catalog.lower(), "folded_table": grant.table.lower()}
        connection.execute(sa.insert(GRANTS).values({**values, **folded}))
    record_change(connection, f"grants of {catalog} restored")


def _known(connection: sa.Connection, catalog: str, table: str, grantee: str) -> Grant:
    row = published.catalog_row(connection, catalog)
    if row is None:
        raise RegistryError(f"there is no catalogue {catalog}", hint="load it first, staged if nobody shall see it yet")
    if not table:
        return Grant(row.name, "", grantee)
    names = [manifest.table for manifest in published.manifests_of(connection, row.name, row.latest, is_any=True)]
    found = next((name for name in names if name.lower() == table.lower()), None)
    if found is None:
        raise RegistryError(f"{row.name} has no table {table}", hint=f"it has {', '.join(sorted(names))}")
    return Grant(row.name, found, grantee)


def _rows(grant: Grant, *, is_deleting: bool = False) -> sa.Select[tuple[object, ...]] | sa.Delete:
    where = (
        GRANTS.c.folded_catalog == grant.catalog.lower(), GRANTS.c.folded_table == grant.table.lower(),
        GRANTS.c.grantee == grant.grantee,
    )  # fmt: skip
    return sa.delete(GRANTS).where(*where) if is_deleting else sa.select(GRANTS).where(*where)
