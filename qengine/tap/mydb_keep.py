"""Keeping rows as a table of a user: an uploaded file, or the answer to a query (SELECT INTO).

The rows become a table of the store by a load as every other (`loader.feeds.load_answer`), which publishes it at its end or leaves
nothing. With a position in degrees that all rows have in range, or not at all, it is sharded on the sky; else it is replicated,
whole on every worker.

What somebody keeps is bounded by `Limits.storage`: asked before, while rows come, and again when parts and indexes are made, which
has the last word: a table that is too large by then is dropped before its maker is told of it. Two loads at a time work for
everybody; others wait.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.catalog.rights import user_catalog
from qengine.catalog.schema import infer_table
from qengine.catalog.user_tables import ALIAS, UserTable, UserTables
from qengine.catalog.who import Identity
from qengine.errors import (
    ConflictError,
    CredentialsError,
    DataError,
    LimitError,
    QEngineError,
    QueryError,
    SchemaError,
    UnknownNameError,
)
from qengine.loader.collect import collect
from qengine.loader.convert import position_of
from qengine.loader.feeds import load_answer
from qengine.loader.positions import own_position
from qengine.loader.request import LoadRequest
from qengine.storage.objects import Store
from qengine.tap.limits import Gate

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MydbSettings:
    """How tables of users are made: `at_a_time` by this process, each with `memory_bytes`; one that changes meanwhile is waited for
    `wait_s`."""

    at_a_time: int = 2
    memory_bytes: int = 1 << 30
    wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Spooled:
    """Rows in an Arrow stream on the disk, as `load_answer` takes them."""

    path: Path
    statement: str
    snapshots: Mapping[str, int] = field(default_factory=dict)
    is_overflow: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Return the columns, whose fields have units and descriptions."""
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as rows:
            return rows.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as rows:
            yield from rows


class Spooler:
    """Writes rows as `Spooled` reads them."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._schema = schema
        self._sink = pa.ipc.new_stream(self._file, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    @property
    def bytes(self) -> int:
        """Return what was written so far."""
        return int(self._file.tell())

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._sink.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.close()
        self._file.close()


class Keeper:
    """Makes, shows and drops the tables of users in one store."""

    def __init__(self, registry: Registry, store: Store, gate: Gate, settings: MydbSettings | None = None) -> None:
        self._settings = settings or MydbSettings()
        self.tables = UserTables(registry)
        self._registry = registry
        self._store = store
        self._gate = gate
        self._turns = asyncio.Semaphore(max(1, self._settings.at_a_time))

    def room(self, identity: Identity) -> float | None:
        """Return how many bytes somebody may still keep, None for as many as they like. Raise `LimitError` if there are none."""
        allowed = self._gate.limits_of(identity).storage
        if allowed is None:
            return None
        kept = self.tables.bytes_of(identity.user) + self._registry.jobs.kept_bytes(identity.user)
        if kept >= allowed:
            raise _full(kept, allowed)
        return allowed - kept

    async def check_new(self, identity: Identity, name: str) -> None:
        """Raise an error unless somebody can make a table of this name now."""
        if not identity.user:
            raise CredentialsError("tables are kept for those who say who they are", hint="send a token, or name and password")
        if not _NAME.fullmatch(name):
            raise QueryError(
                f"{name[:80]!r} cannot be the name of a table", hint="use letters, digits and _, first a letter, at most 64"
            )
        await asyncio.to_thread(self._check_new, identity, name)

    def _check_new(self, identity: Identity, name: str) -> None:
        try:
            found = self.tables.find(identity.user, name)
        except UnknownNameError:
            self.room(identity)
            return
        raise ConflictError(f"{ALIAS}.{found.name} is there already", hint="drop it first, or choose another name")

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """Give a folder for rows that are on their way; it goes away."""
        with tempfile.TemporaryDirectory(prefix="qengine-mydb-") as made:
            yield Path(made)

    async def keep(self, identity: Identity, name: str, rows: Spooled, *, maker: str = "") -> UserTable:
        """Make a table of rows and return it. `maker` is who asks for it, if the same one may ask again (a job).

        Raise `ConflictError` if it is there already, `LimitError` if there is no room for it, and what is wrong with the rows.
        """
        async with self._turns:
            work = asyncio.create_task(asyncio.to_thread(self._keep, identity, name, rows, maker))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # A load in a thread cannot be stopped, and the rows that it reads must stay until it ends. Nobody waits for it.
                await asyncio.wait({work})
                if work.exception() is None:
                    await self.drop(identity, name)
                raise

    def _keep(self, identity: Identity, name: str, rows: Spooled, maker: str) -> UserTable:
        self._check_new(identity, name)
        request = _request(user_catalog(identity.user), name, rows, self._settings.memory_bytes)
        about = {"by": identity.user, "maker": maker, "is_new": True}
        try:
            report = load_answer(
                request,
                rows.statement,
                lambda: nullcontext(rows),
                self._registry,
                self._store,
                context=about,
                wait_s=self._settings.wait_s,
            )
        except DataError as error:
            if isinstance(error, ConflictError):
                self._check_new(identity, name)
                other = f"{ALIAS}.{name} is being made or dropped by another request"
                raise ConflictError(other, hint="try again later") from error
            raise QueryError(f"{ALIAS}.{name} cannot be made: {error.message}", hint=error.hint) from error
        made = self.tables.find(identity.user, name)
        allowed = self._gate.limits_of(identity).storage
        kept = self.tables.bytes_of(identity.user) + self._registry.jobs.kept_bytes(identity.user)
        if report.quarantined or (allowed is not None and kept > allowed):
            self._drop(identity.user, name)
            if report.quarantined:
                raise QueryError(f"{ALIAS}.{name} cannot be made: {report.quarantined:,} rows have no valid position")
            raise _full(kept, allowed or 0)
        return made

    async def drop(self, identity: Identity, name: str) -> UserTable:
        """Drop a table. Raise `UnknownNameError` if there is none of this name."""
        return await asyncio.to_thread(self._drop, identity.user, name)

    def _drop(self, user: str, name: str) -> UserTable:
        found = self.tables.drop(user, name)
        # What was dropped just now may be read by queries still; what was dropped a while ago takes no more place from now on.
        try:
            collect(self._registry.files.root, self._registry, found.catalog)
        except (QEngineError, OSError) as error:
            log.warning("what %s has dropped is still there: %s", user, error)
        return found

    def made_by(self, identity: Identity, name: str, maker: str) -> UserTable | None:
        """Return the table if this maker made it: it has been asked again, because its process died before it could say so."""
        try:
            found = self.tables.find(identity.user, name)
        except UnknownNameError:
            return None
        return found if maker and self._registry.load(found.load).context.get("maker") == maker else None


def _full(kept: float, allowed: float) -> LimitError:
    return LimitError(
        f"{kept / 1e9:.3f} GB are kept, and {allowed / 1e9:.3f} GB are allowed", hint="drop tables or delete jobs first"
    )


def _request(catalog: str, name: str, rows: Spooled, memory_bytes: int) -> LoadRequest:
    """Return how rows become a table: sharded by their position if they have one."""
    schema = rows.schema
    plain = LoadRequest(catalog=catalog, table=name, key="", kind=TableKind.REPLICATED, memory_bytes=memory_bytes)
    ra, dec = _position(schema, catalog, name)
    if not ra:
        return plain
    for column in (ra, dec):
        kind = schema.field(column).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise QueryError(
                f"{ALIAS}.{name}: column {column} is a position that is no number",
                hint="give degrees, or give the column another name and UCD",
            )
    found = position_of(schema, ra, dec, frame="icrs", unit="deg", where=f"{ALIAS}.{name}")
    if found is not None and not found.is_stored:
        raise QueryError(
            f"{ALIAS}.{name}: {found.to_text()}, not degrees in ICRS", hint="convert them, or give the columns other names and UCDs"
        )
    for batch in rows:
        for column, least, most in ((ra, 0.0, 360.0), (dec, -90.0, 90.0)):
            values = batch.column(column).cast(pa.float64())
            beyond = pc.greater_equal if column == ra else pc.greater
            outside = pc.or_(pc.less(values, least), beyond(values, most))
            if pc.any(outside).as_py():
                wrong = pc.first(pc.filter(values, outside)).as_py()
                raise QueryError(
                    f"{ALIAS}.{name}: {column} = {wrong} is outside of {least:g} to {most:g} degrees",
                    hint="correct it, or give the columns of the position other names and UCDs",
                )
    return replace(plain, kind=TableKind.DIRECTOR, ra=ra, dec=dec)


def _position(schema: pa.Schema, catalog: str, name: str) -> tuple[str, str]:
    """Return the columns of the position, by UCD or by name; empty if there are none."""
    table = infer_table(schema, schema=catalog, name=name, kind=TableKind.REPLICATED)
    named = {column.name.lower(): column.name for column in table.columns}
    try:
        ra, dec = own_position(table, LoadRequest(catalog=catalog, table=name))
    except SchemaError as error:
        if "ra" in named and "dec" in named:
            return named["ra"], named["dec"]
        raise QueryError(
            error.message, hint="call the position of the table ra and dec: SELECT a.ra AS ra, a.dec AS dec"
        ) from error
    return (ra, dec) if ra else (named["ra"], named["dec"]) if "ra" in named and "dec" in named else ("", "")
