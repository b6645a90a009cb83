"""A load as a transaction: begin, contribute, commit or abort.

* *begin* gives a load its id and number, and its journal.
* *contribute* checks inputs and keeps a receipt; many contributors may do so at once, from any process that sees the store.
* *commit* makes the parts of all tables from their inputs (`change.change_tables`) and publishes them in one transaction of the
registry,
  which also ends the load. Readers see the old snapshot until then, and all of the new one from then on.
* *abort* ends the load and removes what it has made.

A process may be killed at any moment. Before the publish, the load can be committed again: what its journal says is used, what
it does not say is done again, and the same inputs give the same parts. After the publish only trees wait for their names
(`leftovers.heal`).

A commit holds the tables that it changes against other commits. It starts from the manifests that are published then, so of two
loads of one table that commit one after the other the second adds to what the first has made. What is published in between by
others (who hold no lock, such as another machine without common locks) is noticed by the registry: `ConflictError`, and the
load can be committed again.

An input of a label and version that the table has already is skipped; a new version of a label replaces the old one's rows.
"""

from __future__ import annotations

import errno
import getpass
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pyarrow as pa

from qengine.catalog.loads import UNFINISHED, Load, LoadState
from qengine.catalog.model import Catalog
from qengine.catalog.published import check_catalog_name
from qengine.catalog.registry import Registry
from qengine.catalog.types import to_arrow
from qengine.errors import ConflictError, LimitError, QEngineError, RegistryError
from qengine.loader import leftovers, publish
from qengine.loader.agenda import Agenda, Asked, agenda_of, kin
from qengine.loader.budget import check_room
from qengine.loader.change import TableResult, change_tables
from qengine.loader.definition import check_new, declared_types
from qengine.loader.executor import Executor
from qengine.loader.figures import assess
from qengine.loader.journal import Journal
from qengine.loader.progress import Meter, metered
from qengine.loader.receipt import Receipt, check_against, gather, receive
from qengine.loader.request import LoadReport, LoadRequest, Progress
from qengine.loader.sources.open import open_sources
from qengine.loader.sources.source import Source
from qengine.loader.summary import LoadSummary
from qengine.storage.objects import Store
from qengine.transport.version import qengine_version

_BUSY_S = 5.0
"""So long a contributor waits for a commit that fails at once, and a commit for contributors that end."""

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_FULL_WORDS = ("No space left", "File too large", "requested and")
"""What libraries say that do not pass the number on; the last is numpy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a commit has published: the load, and a report per table that was contributed to."""

    load: Load
    reports: tuple[LoadReport, ...]


class Transaction:
    """A load that has begun. Make one with `begin` or `open`; it holds no lock between calls."""

    def __init__(self, load: Load, registry: Registry, store: Store) -> None:
        self._load = load
        self._registry = registry
        self._store = store
        self._journal = Journal.of(store.root, load.catalog, load.id)

    @classmethod
    def begin(
        cls, catalog: str, registry: Registry, store: Store, *, context: Mapping[str, Any] | None = None, name: str = ""
    ) -> Transaction:
        """Begin a load of `catalog`. `context` says who does it and why; who, where and with which software is added. `name` is its
        id if it has to be a certain one (32 hexadecimal digits)."""
        leftovers.heal(store.root, registry, catalog)
        with beginning(catalog, registry, store, context or {}, name=name) as begun:
            return begun

    @classmethod
    def open(cls, load: str, registry: Registry, store: Store) -> Transaction:
        """Return the load of this id (or of which it is the beginning). Raise `RegistryError` if there is none."""
        return cls(registry.load(load), registry, store)

    @property
    def id(self) -> str:
        """Return the load's id."""
        return self._load.id

    @property
    def load(self) -> Load:
        """Return what the registry says of the load now."""
        return self._registry.load(self._load.id)

    @property
    def journal(self) -> Journal:
        """Return the load's journal."""
        return self._journal

    def receipts(self) -> tuple[Receipt, ...]:
        """Return what was contributed so far; empty once the load has ended."""
        return tuple(Receipt.from_json(words) for words in self._journal.receipts())

    def contribute(self, request: LoadRequest, sources: Sequence[Source] | None = None, *, contributor: str = "") -> Receipt:
        """Add inputs to a table of the load and return the receipt. Saying the same again changes nothing.

        The inputs are `sources`, or those that `request` names. They are read when the load is committed, so they must stay.
        Raise `InputError` if they cannot be read, `ConflictError` or `ConfigError` if they do not go with what was contributed
        before.
        """
        self.check_here()
        with self._journal.locked(is_shared=True, wait_s=_BUSY_S):
            self.check_open()
            return self.receive(request, sources, contributor=contributor)

    def accept(self, receipt: Receipt) -> None:
        """Add a contribution whose receipt was made elsewhere; see `contribute`."""
        self.check_here()
        with self._journal.locked(is_shared=True, wait_s=_BUSY_S):
            self.check_open()
            self._keep(replace(receipt, request=self._named(receipt.request)))

    def commit(self, *, progress: Progress | None = None, wait_s: float = 0.0, executor: Executor | None = None) -> Committed:
        """Publish all that was contributed and return what was done. A load that is finished already is only cleaned up.

        Other commits of the same tables are waited for up to `wait_s`; then `ConflictError`. If it is raised, or any other error,
        nothing was published, and the load can be committed again.
        """
        self.check_here()
        with self._journal.locked(is_shared=False, wait_s=max(wait_s, _BUSY_S)):
            return self.publish(progress=progress, wait_s=wait_s, executor=executor)

    def abort(self, why: str = "", *, is_anywhere: bool = False) -> None:
        """End the load without publishing and remove what it has made; also, if `is_anywhere`, one that another machine has begun
        and that may go on there: its commit fails then."""
        if not is_anywhere:
            self.check_here()
        with self._journal.locked(is_shared=False, wait_s=_BUSY_S):
            self.discard(why)

    # -- the same for a caller that holds the load already --------------------------------------------------------------------

    def receive(self, request: LoadRequest, sources: Sequence[Source] | None = None, *, contributor: str = "") -> Receipt:
        """Contribute; the caller holds the load."""
        request = self._named(request)
        opened = tuple(sources) if sources is not None else open_inputs(request, self.types(request))
        return self._keep(receive(request, opened, contributor=contributor or who()))

    def publish(self, *, progress: Progress | None = None, wait_s: float = 0.0, executor: Executor | None = None) -> Committed:
        """Commit; the caller holds the load."""
        if self.load.state is LoadState.FINISHED:
            return self._finished()
        is_again = self._journal.work.exists()
        try:
            self._load = self._registry.commit_load(self._load.id)
            found = gather(self.receipts())
            with self._holding([*found, *self._named_by("compact"), *self._named_by("refresh")], progress, wait_s) as held:
                self._publish(found, metered(progress), executor)
                # workers that have died leave unfinished files, too
                done = self._finished(held=held, is_again=is_again or executor is not None)
                leftovers.forget(self._store.root, self._registry, self._load.catalog, held, but=self._load.id)
                return done
        except OSError as error:
            reported = _disk(error, self._load.id)
            self._reopen(str(reported))
            raise reported from error
        except BaseException as error:
            self._reopen(str(error) or type(error).__name__)
            raise

    def discard(self, why: str) -> None:
        """Abort; the caller holds the load."""
        load = self.load
        if load.state not in UNFINISHED:
            raise RegistryError(f"load {load.id} is {load.state.value}", hint="only a load that has not ended can be aborted")
        tables = sorted({one.request.table for one in self.receipts()})
        self._registry.abort_load(load.id, why)
        has_work = self._journal.work.exists()
        leftovers.discard(self._store.files, load.catalog, self._journal)
        if has_work:
            with suppress(ConflictError), publish.exclusive(self._store.root, load.catalog, tables):
                leftovers.sweep(self._store.root, self._registry, load.catalog, tables, but=load.id)

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _keep(self, receipt: Receipt) -> Receipt:
        check_against(receipt, self.receipts())
        self._journal.write_receipt(receipt.request.table, receipt.name, receipt.to_json())
        return receipt

    def _publish(self, found: Asked, meter: Meter, executor: Executor | None) -> None:
        meter.begin()
        began = meter.clock()
        registry, root, load = self._registry, self._store.root, self._load
        digests = registry.manifest_digests()
        base = registry.catalog()
        if load.context.get("is_new"):  # rows are not to join a table that somebody else has made meanwhile
            for request, _ in found.values():
                check_new(request, base)
        agenda = agenda_of(
            found, registry.inputs(load.catalog), load.catalog, compact=self._named_by("compact"),
            refresh=self._named_by("refresh"), allow_orphans=bool(load.context.get("allow_orphans")),
        )  # fmt: skip
        names, families = agenda.read_by(base)
        manifests = {name: digests.get(name, "") for name in names}
        self._journal.begin_work({"agenda": agenda.digest, "manifests": manifests})
        registry.note(load.id, {"base": {name: digest for name, digest in manifests.items() if digest}})
        check_room(root, registry, load.catalog, agenda.input_bytes)
        results = self._change(agenda, base, meter, executor)
        meter.mark("records")
        check_room(root, registry, load.catalog, 0)
        if warnings := assess(results, base, load, self._store):
            registry.note(load.id, {"warnings": warnings})
        for result in results:
            manifests |= {name: digests.get(name, "") for name in (one.table.full_name.lower() for one in result.snapshots)}
        trees = [
            publish.stage_tree(
                root, one.table, one.written, schema=one.schema, tiles=one.tiles, margin_arcsec=one.margin_arcsec, load=load.id,
                counts=one.counts, facts=one.facts,
            )
            for one in (result.tree for result in results)
            if one is not None
        ]  # fmt: skip
        meter.mark("quality")
        self._journal.write_trees([tree.to_json(root) for tree in trees])
        reports = agenda.reports([result.report for result in results], load.id)
        self._journal.write_report({"reports": [one.to_json() for one in reports]})
        summary = LoadSummary.of(
            load, registry.snapshot_number(load.catalog), reports, [one for result in results for one in result.inputs],
            meter.times(), seconds=meter.clock() - began, warnings=warnings, rows=_rows(results, base),
        )  # fmt: skip
        summary.check()
        registry.note(load.id, {"summary": summary.to_json()})
        if results:
            registry.publish(
                load.id, load.catalog, [one for result in results for one in result.snapshots], base=manifests, families=families,
                inputs=[one for result in results for one in result.inputs],
                replaced=[one for item in agenda.items for one in item.replaced], is_final=True,
            )  # fmt: skip
        else:
            registry.finish_load(load.id)

    def _change(
        self, agenda: Agenda, base: Catalog, progress: Progress | None, executor: Executor | None
    ) -> tuple[TableResult, ...]:
        changes = agenda.changes(self._load, base)
        if not changes:
            return ()
        return change_tables(
            changes, base, load=self._load.number, name=self._load.id, store=self._store, folder=self._journal.work,
            progress=progress, executor=executor,
        )  # fmt: skip

    def _finished(self, *, held: Sequence[str] | None = None, is_again: bool = True) -> Committed:
        load = self.load
        report = self._journal.report()
        # If another load holds the table by now, whoever comes next names the tree.
        with suppress(ConflictError):
            leftovers.finish(self._store.root, self._registry, load, self._journal, held=held, is_again=is_again)
        reports = [LoadReport.from_json(words) for words in (report or {"reports": ()})["reports"]]
        number = load.snapshot or self._registry.snapshot_number(load.catalog)
        return Committed(load=load, reports=tuple(replace(one, snapshot=number) for one in reports))

    @contextmanager
    def _holding(self, tables: Sequence[str], progress: Progress | None, wait_s: float) -> Iterator[list[str]]:
        """Hold the tables that the commit may write to, and yield their names: those that were contributed to, and those that lie
        where their rows lie."""

        def waiting(message: str) -> None:
            if progress is not None:
                progress(f"wait: {message}", 0, 0)

        catalog = self._registry.catalog()
        names = sorted({name for table in tables for name in kin(catalog, self._load.catalog, table)})
        with publish.exclusive(self._store.root, self._load.catalog, names, wait_s=wait_s, waiting=waiting):
            yield names

    def _named_by(self, what: str) -> tuple[str, ...]:
        """Return the tables that the load was begun for: to compact them, or to refresh their pairs."""
        return tuple(str(table) for table in self._load.context.get(what, ()))

    def _reopen(self, error: str) -> None:
        # The first error is the one to report; what cannot be said to the registry is found out by whoever resumes.
        with suppress(QEngineError):
            self._registry.reopen_load(self._load.id, error)

    def check_here(self) -> None:
        """Raise `ConflictError` for an unfinished load that another machine works on: receipts, locks and parts are there."""
        if self._store.is_far and not self._journal.folder.is_dir() and self.load.state in UNFINISHED:
            raise ConflictError(
                f"load {self._load.id} was begun on another machine ({self._load.context.get('by', 'unknown')})",
                hint="go on with it there; or, if that machine is lost, end it with `qengine abort`",
            )

    def check_open(self, what: str = "contributed to") -> None:
        """Raise `ConflictError` or `RegistryError` if the load takes no contributions any more."""
        load = self.load
        if load.state is LoadState.COMMITTING:
            raise ConflictError(
                f"load {load.id} cannot be {what}: its commit has begun",
                hint="if nobody works on it, the commit was interrupted: commit it again, or abort it",
            )
        if load.state is not LoadState.OPEN:
            raise RegistryError(f"load {load.id} is {load.state.value} and cannot be {what}", hint="begin another load")

    def types(self, request: LoadRequest) -> dict[str, pa.DataType]:
        """Return the types of the columns of a table that is there: inputs without types of their own (CSV) are read with them."""
        found = self._registry.catalog().find(request.catalog, request.table)
        types = {column.name: to_arrow(column.type) for column in found.table.columns} if found is not None else {}
        return {name: each for name, each in types.items() if not pa.types.is_nested(each)}

    def _named(self, request: LoadRequest) -> LoadRequest:
        """Return the request with catalogue and table spelled as they are published."""
        if request.catalog.lower() != self._load.catalog.lower():
            raise ConflictError(f"load {self._load.id} is of catalogue {self._load.catalog}, not {request.catalog}")
        found = self._registry.catalog().find(self._load.catalog, request.table)
        return replace(request, catalog=self._load.catalog, table=found.table.name if found is not None else request.table)


@contextmanager
def beginning(
    catalog: str, registry: Registry, store: Store, context: Mapping[str, Any], *, name: str = ""
) -> Iterator[Transaction]:
    """Begin a load and yield it, held by this process until the block ends. `name` is its id if it has to be a certain one."""
    known = {table.schema.lower(): table.schema for table in registry.definitions()}
    spelled = known.get(catalog.lower(), catalog)
    check_catalog_name(spelled)
    name = name or uuid4().hex
    # The journal comes first and is held: nobody may take a load that has just begun for a dead one.
    with Journal.of(store.root, spelled, name).locked(is_shared=False, wait_s=_BUSY_S):
        about = {"by": who(), "software": f"qengine {qengine_version()}", **context}
        yield Transaction(registry.open_load(spelled, about, name=name), registry, store)


def open_inputs(
    request: LoadRequest, types: Mapping[str, pa.DataType] | None = None, *, needs_types: bool = True
) -> tuple[Source, ...]:
    """Return the sources that a request names. `types` are those of the columns of the table where nothing else declares them;
    texts without rows may lack them unless `needs_types`."""
    types = declared_types(request) or types
    return open_sources(request.inputs, types=types, options=request.options, needs_types=needs_types)


def _rows(results: Sequence[TableResult], base: Catalog) -> dict[str, tuple[int, int]]:
    """Return how many rows each table that was changed had, and has."""
    found = {}
    for result in results:
        first = result.snapshots[0]
        before = base.find(first.table.schema, first.table.name)
        found[first.table.name] = (before.rows if before is not None else 0, first.rows)
    return found


def _disk(error: OSError, load: str) -> QEngineError | OSError:
    if error.errno not in _FULL and not any(words in str(error) for words in _FULL_WORDS):
        return error
    return LimitError(
        f"load {load} stopped, there is no room on the disk: {error}",
        hint="nothing is published; make room and go on with --resume, or abort the load to remove what it has written",
    )


def who() -> str:
    """Return who is at work: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    return f"{user}@{socket.gethostname()}"
