"""What snapshots are for: tags, states of catalogues, expiry, leases, budgets, and the way back.

* A *tag* names a snapshot for all time, perhaps with a DOI; a tagged snapshot never expires.
* A catalogue is *staged* (only those who may load see it), *internal* (named groups, too), *released* (everybody), or *frozen*
  (everybody, and no load may change it).
* *Expired* snapshots cannot be queried any more. Their files go when nobody can still be reading them (`loader.collect`): a
  reader that stays holds a *lease*.
* *Rolling back* publishes the manifests of an older snapshot as a new one: history only ever grows.

Functions of the database are methods here; `Registry.releases` is the one that belongs to a registry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa

from qengine.catalog import durable, loads, published
from qengine.catalog.database import Database, now, utc
from qengine.catalog.files import Files
from qengine.catalog.loads import LoadState
from qengine.catalog.migrations.tables import BUDGETS, CATALOG_STATES, CATALOGS, EXPIRED, LEASES, SNAPSHOT_TABLES, SNAPSHOTS, TAGS
from qengine.catalog.records import InputName, SnapshotRecord, read_records, write_record
from qengine.catalog.users import record_change
from qengine.errors import ConfigError, ConflictError, RegistryError, UnknownSnapshotError

_FILE = "_release.json"
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class ReleaseState(Enum):
    """Who may read a catalogue, and whether it may change."""

    STAGED = "staged"
    INTERNAL = "internal"
    RELEASED = "released"
    FROZEN = "frozen"


def release_state(word: str) -> ReleaseState:
    """Return the state of this name. Raise `ConfigError` if there is none."""
    try:
        return ReleaseState(word.lower())
    except ValueError:
        raise ConfigError(f"{word!r} is no state of a catalogue", hint=f"use {', '.join(s.value for s in ReleaseState)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A name of a snapshot. `made` is in UTC."""

    catalog: str
    name: str
    number: int
    doi: str
    note: str
    made: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogState:
    """State of a catalogue; `groups` may read it while it is internal."""

    state: ReleaseState
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is kept of a catalogue: snapshots that can be read, those that expired and when, tags and leases."""

    latest: int
    kept: tuple[int, ...]
    expired: Mapping[int, datetime]
    tags: tuple[Tag, ...]
    leased: frozenset[int]


class Releases:
    """Tags, states, expiry, leases and budgets in one registry."""

    def __init__(self, files: Files, database: Database) -> None:
        self._files = files
        self._database = database

    # -- which snapshot is meant ----------------------------------------------------------------------------------------------

    def resolve(self, catalog: str, word: int | str) -> int:
        """Return the snapshot that a number, a tag or a time (ISO 8601, UTC unless it says otherwise) means: of a time the
        latest one published by then. Raise `RegistryError` if there is none, `SnapshotExpiredError` if it has expired."""
        with self._database.reading() as connection:
            row = published.catalog_row(connection, catalog)
            if row is None:
                raise UnknownSnapshotError(f"there is no catalogue {catalog}")
            number = _resolved(connection, row, word)
            published.check_kept(connection, row.name, number)
        return number

    def history(self, catalog: str) -> History:
        """Return what is kept of a catalogue. Raise `RegistryError` if there is none of this name."""
        with self._database.reading() as connection:
            row = _known(connection, catalog)
            numbers = connection.execute(sa.select(SNAPSHOTS.c.number).where(SNAPSHOTS.c.catalog == row.name)).scalars().all()
            gone = connection.execute(sa.select(EXPIRED).where(EXPIRED.c.catalog == row.name)).all()
            expired = {one.number: utc(one.at) for one in gone}
            return History(
                latest=row.latest, kept=tuple(sorted(set(numbers) - expired.keys())), expired=expired,
                tags=_tags(connection, row.name), leased=_leased(connection, row.name),
            )  # fmt: skip

    # -- tags and states ------------------------------------------------------------------------------------------------------

    def tag(self, catalog: str, number: int, name: str, *, doi: str = "", note: str = "") -> Tag:
        """Name a snapshot. Raise `ConflictError` if the name is taken: a tag never moves."""
        if not _TAG.fullmatch(name) or len(name) > 128:
            raise RegistryError(f"{name!r} cannot be a tag", hint="letters, digits, '.', '-' and '_', first a letter")
        with self._database.writing() as connection:
            row = _known(connection, catalog)
            published.check_kept(connection, row.name, number)
            if (known := _tag_row(connection, row.name, name)) is not None:
                raise ConflictError(
                    f"{name} is snapshot {known.number} of {row.name}", hint="tags do not move: choose another name"
                )
            made = now()
            values = {"catalog": row.name, "folded_name": name.lower(), "name": name, "number": number, "doi": doi, "note": note}
            connection.execute(sa.insert(TAGS).values(**values, made=made))
            _write_release(connection, self._files, row.name)
        return Tag(catalog=row.name, name=name, number=number, doi=doi, note=note, made=utc(made))

    def untag(self, catalog: str, name: str) -> None:
        """Forget a tag. Raise `RegistryError` if there is none, `ConflictError` if it has a DOI: that was promised to readers."""
        with self._database.writing() as connection:
            row = _known(connection, catalog)
            known = _tag_row(connection, row.name, name)
            if known is None:
                raise RegistryError(f"{row.name} has no tag {name}", hint=f"qengine snapshots {row.name} lists them")
            if known.doi:
                raise ConflictError(f"{name} has the DOI {known.doi}", hint="what a DOI names has to stay")
            connection.execute(sa.delete(TAGS).where(TAGS.c.catalog == row.name, TAGS.c.folded_name == name.lower()))
            _write_release(connection, self._files, row.name)

    def states(self) -> Mapping[str, CatalogState]:
        """Return the states of the catalogues that are not simply released."""
        with self._database.reading() as connection:
            if not sa.inspect(connection).has_table(CATALOG_STATES.name):
                return {}
            rows = connection.execute(sa.select(CATALOG_STATES)).all()
        return {row.catalog: CatalogState(state=ReleaseState(row.state), groups=frozenset(json.loads(row.groups))) for row in rows}

    def promote(self, catalog: str, state: ReleaseState, groups: Collection[str] = ()) -> None:
        """Set the state of a catalogue. Raise `ConflictError` when a frozen one would change: it is frozen for good."""
        if groups and state is not ReleaseState.INTERNAL:
            raise RegistryError(f"groups say who reads an internal catalogue; {state.value} is for "
                                f"{'nobody' if state is ReleaseState.STAGED else 'everybody'}")  # fmt: skip
        with self._database.writing() as connection:
            row = _known(connection, catalog)
            found = connection.execute(
                sa.select(CATALOG_STATES.c.state).where(CATALOG_STATES.c.catalog == row.name)
            ).scalar_one_or_none()
            if found == ReleaseState.FROZEN.value and state is not ReleaseState.FROZEN:
                raise ConflictError(f"{row.name} is frozen", hint="load changes into a new catalogue")
            connection.execute(sa.delete(CATALOG_STATES).where(CATALOG_STATES.c.catalog == row.name))
            values = {"catalog": row.name, "state": state.value, "groups": json.dumps(sorted(groups)), "changed": now()}
            connection.execute(sa.insert(CATALOG_STATES).values(values))
            record_change(connection, f"{row.name} is {state.value}" + (f" for {', '.join(sorted(groups))}" if groups else ""))
            _write_release(connection, self._files, row.name)

    # -- expiry ---------------------------------------------------------------------------------------------------------------

    def expire(self, catalog: str, *, keep: int | None = None, older_than: timedelta | None = None) -> tuple[int, ...]:
        """Expire snapshots and return their numbers: all but the newest `keep`, and of these only those published longer ago than
        `older_than`. The latest, tagged and leased ones stay."""
        if keep is None and older_than is None:
            raise RegistryError("nothing says which snapshots expire", hint="say how many to keep, or how old they may be")
        with self._database.writing() as connection:
            row = _known(connection, catalog)
            query = sa.select(SNAPSHOTS).where(SNAPSHOTS.c.catalog == row.name).order_by(SNAPSHOTS.c.number)
            rows = connection.execute(query).all()
            gone = set(connection.execute(sa.select(EXPIRED.c.number).where(EXPIRED.c.catalog == row.name)).scalars())
            held = {row.latest, *(tag.number for tag in _tags(connection, row.name)), *_leased(connection, row.name)}
            alive = [one for one in rows if one.number not in gone]
            old = alive[: max(len(alive) - keep, 0)] if keep is not None else alive
            if older_than is not None:
                limit = now() - older_than
                old = [one for one in old if one.published < limit]
            chosen = tuple(one.number for one in old if one.number not in held)
            if chosen:
                at = now()
                connection.execute(sa.insert(EXPIRED), [{"catalog": row.name, "number": n, "at": at} for n in chosen])
        return chosen

    def forget(self, catalog: str, *, older_than: timedelta) -> tuple[int, ...]:
        """Forget what snapshots consisted of that expired longer ago and that nobody leases, and return their numbers: what only
        they name can be removed then."""
        with self._database.writing() as connection:
            row = _known(connection, catalog)
            known = sa.select(SNAPSHOTS.c.id).join(
                EXPIRED, sa.and_(EXPIRED.c.catalog == SNAPSHOTS.c.catalog, EXPIRED.c.number == SNAPSHOTS.c.number)
            )
            query = known.add_columns(SNAPSHOTS.c.number, EXPIRED.c.at).where(
                SNAPSHOTS.c.catalog == row.name, EXPIRED.c.at <= now() - older_than
            )
            leased = _leased(connection, row.name)
            gone = {one.number: one for one in connection.execute(query).all() if one.number not in leased}
            has_tables = sa.select(SNAPSHOT_TABLES.c.snapshot_id).where(
                SNAPSHOT_TABLES.c.snapshot_id.in_([g.id for g in gone.values()])
            )
            left = set(connection.execute(has_tables).scalars())
            chosen = {number: one for number, one in gone.items() if one.id in left}
            for record in read_records(self._files, row.name) if chosen else ():
                if record.number in chosen:
                    at = utc(chosen[record.number].at).isoformat()
                    write_record(self._files, replace(record, manifests=(), expired=at))
            ids = [one.id for one in chosen.values()]
            connection.execute(sa.delete(SNAPSHOT_TABLES).where(SNAPSHOT_TABLES.c.snapshot_id.in_(ids)))
        return tuple(sorted(chosen))

    def hold(self, holder: str, reads: Collection[tuple[str, int]], *, seconds: float) -> None:
        """Lease snapshots for a while, in place of what the holder leased before; holding nothing ends its leases."""
        until = now() + timedelta(seconds=seconds)
        rows = [{"holder": holder, "catalog": catalog, "number": number, "until": until} for catalog, number in sorted(set(reads))]
        with self._database.writing() as connection:
            connection.execute(sa.delete(LEASES).where(sa.or_(LEASES.c.holder == holder, LEASES.c.until < now())))
            if rows:
                connection.execute(sa.insert(LEASES), rows)

    # -- budgets --------------------------------------------------------------------------------------------------------------

    def budgets(self) -> Mapping[str, int]:
        """Return how many bytes each catalogue with a budget may take; the empty name is the whole store."""
        with self._database.reading() as connection:
            if not sa.inspect(connection).has_table(BUDGETS.name):
                return {}
            return {row.catalog: row.bytes for row in connection.execute(sa.select(BUDGETS))}

    def set_budget(self, catalog: str, size: int | None) -> None:
        """Set or (None) lift the budget of a catalogue, in bytes."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(BUDGETS).where(BUDGETS.c.catalog == catalog))
            if size is not None:
                connection.execute(sa.insert(BUDGETS).values(catalog=catalog, bytes=size))

    # -- the way back ---------------------------------------------------------------------------------------------------------

    def rollback(self, catalog: str, number: int, *, why: str = "") -> int:
        """Publish the content of snapshot `number` as a new snapshot and return that one's number.

        Inputs that were loaded since can be loaded again, and inputs that were replaced since count as there again. Raise
        `ConflictError` for a frozen catalogue.
        """
        with self._database.writing() as connection:
            row = _known(connection, catalog)
            check_may_change(connection, row.name)
            published.check_kept(connection, row.name, number)
            if number == row.latest:
                raise RegistryError(f"{row.name} is at snapshot {number} already")
            manifests = tuple(published.manifests_of(connection, row.name, number))
            context = {"kind": "rollback", "to": number, "why": why}
            load = loads.insert_load(connection, row.name, context)
            lived, lives = (_live(self._files, row.name, n) for n in (row.latest, number))
            record = SnapshotRecord(
                row.name, row.latest + 1, load.id, manifests, made_by=replace(load, snapshot=row.latest + 1),
                replaced=tuple(sorted(lived - lives)), restored=tuple(sorted(lives - lived)),
            )  # fmt: skip
            write_record(self._files, record)
            connection.execute(sa.update(CATALOGS).where(CATALOGS.c.name == row.name).values(latest=record.number))
            published.insert_snapshot(connection, record)
            loads.mark_inputs(connection, record.replaced, load.number)
            loads.mark_inputs(connection, record.restored, None)
            loads.move(connection, load.id, LoadState.FINISHED, snapshot=record.number)
        return record.number


def check_may_change(connection: sa.Connection, catalog: str) -> None:
    """Raise `ConflictError` if a catalogue is frozen."""
    state = connection.execute(
        sa.select(CATALOG_STATES.c.state).where(sa.func.lower(CATALOG_STATES.c.catalog) == catalog.lower())
    ).scalar_one_or_none()
    if state == ReleaseState.FROZEN.value:
        raise ConflictError(f"{catalog} is frozen: it does not change any more", hint="load into a new catalogue")


def restore_release(connection: sa.Connection, files: Files, catalog: str) -> None:
    """Give a catalogue of a rebuilt registry its tags and its state, as its file in the store says."""
    path = files.root / catalog / _FILE
    if files.is_far:
        path.unlink(missing_ok=True)  # the near copy may be older
    if not files.need(path).is_file():
        return
    try:
        words = json.loads(path.read_text())
        tags = [{**tag, "made": datetime.fromisoformat(tag["made"]), "catalog": catalog} for tag in words["tags"]]
        state = words["state"] and {
            **words["state"],
            "changed": datetime.fromisoformat(words["state"]["changed"]),
            "catalog": catalog,
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{path} cannot be read: {error}", hint="remove it, and tag and promote again") from error
    if tags:
        connection.execute(sa.insert(TAGS), tags)
    if state:
        connection.execute(sa.insert(CATALOG_STATES).values(state))
        record_change(connection, f"the state of {catalog} restored")


def _write_release(connection: sa.Connection, files: Files, catalog: str) -> None:
    """Keep tags and state of a catalogue in the store, too: a lost registry is rebuilt from there."""
    tags = connection.execute(sa.select(TAGS).where(TAGS.c.catalog == catalog).order_by(TAGS.c.folded_name)).mappings()
    state = connection.execute(sa.select(CATALOG_STATES).where(CATALOG_STATES.c.catalog == catalog)).mappings().one_or_none()
    words = {"tags": [dict(tag) for tag in tags], "state": None if state is None else dict(state)}
    path = files.root / catalog / _FILE
    with durable.writing(path) as temporary:
        temporary.write_text(json.dumps(words, indent=1, default=_text, ensure_ascii=False))
    files.keep([path])


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _known(connection: sa.Connection, catalog: str) -> sa.Row[Any]:
    row = published.catalog_row(connection, catalog)
    if row is None:
        raise UnknownSnapshotError(f"there is no catalogue {catalog}")
    return row


def _resolved(connection: sa.Connection, row: sa.Row[Any], word: int | str) -> int:
    if isinstance(word, int) or (word.isascii() and word.isdigit()):
        return int(word)
    if (tag := _tag_row(connection, row.name, word)) is not None:
        return int(tag.number)
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        names = ", ".join(tag.name for tag in _tags(connection, row.name))
        hint = f"its tags are {names}" if names else "it has no tags; give a number or a time"
        raise UnknownSnapshotError(f"{row.name} has no snapshot or tag {word!r}", hint=hint) from None
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
    query = sa.select(sa.func.max(SNAPSHOTS.c.number)).where(SNAPSHOTS.c.catalog == row.name, SNAPSHOTS.c.published <= moment)
    number = connection.execute(query).scalar_one_or_none()
    if number is None:
        raise UnknownSnapshotError(f"{row.name} had no snapshot at {word}")
    return int(number)


def _tag_row(connection: sa.Connection, catalog: str, name: str) -> sa.Row[Any] | None:
    if not sa.inspect(connection).has_table(TAGS.name):
        return None
    query = sa.select(TAGS).where(TAGS.c.catalog == catalog, TAGS.c.folded_name == name.lower())
    return connection.execute(query).one_or_none()


def _tags(connection: sa.Connection, catalog: str) -> tuple[Tag, ...]:
    if not sa.inspect(connection).has_table(TAGS.name):
        return ()
    rows = connection.execute(sa.select(TAGS).where(TAGS.c.catalog == catalog).order_by(TAGS.c.number, TAGS.c.name)).all()
    return tuple(Tag(catalog=r.catalog, name=r.name, number=r.number, doi=r.doi, note=r.note, made=utc(r.made)) for r in rows)


def _leased(connection: sa.Connection, catalog: str) -> frozenset[int]:
    query = sa.select(LEASES.c.number).where(LEASES.c.catalog == catalog, LEASES.c.until >= now())
    return frozenset(connection.execute(query).scalars())


def _live(files: Files, catalog: str, number: int) -> set[InputName]:
    """Return the inputs whose rows are in a snapshot, from the records of all snapshots up to it."""
    alive: set[InputName] = set()
    for record in sorted((one for one in read_records(files, catalog) if one.number <= number), key=lambda one: one.number):
        alive |= {(one.load, one.table, one.number) for one in record.inputs} | set(record.restored)
        alive -= set(record.replaced)
    return alive
