"""A load in one step: begin, contribute, commit.

A load that fails is aborted, and nothing of it stays. One that was killed, or that found the disk full, stays open: the same
command with `--resume` goes on with it. Without `--resume`, the table is loaded anew, and what dead loads of it have left is
removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from qengine.catalog.loads import UNFINISHED, Load, LoadState
from qengine.catalog.model import LAYOUT
from qengine.catalog.pairs import moved
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError, ConflictError, LimitError, QEngineError, RegistryError
from qengine.loader import leftovers
from qengine.loader.executor import Executor
from qengine.loader.journal import Journal
from qengine.loader.request import LoadReport, LoadRequest, Progress
from qengine.loader.sources.source import Source
from qengine.loader.transaction import Transaction, beginning
from qengine.storage.objects import Store

Opener = Callable[[Journal], Sequence[Source]]
"""Opens the inputs of a load; what it has to keep for that it keeps in the journal."""


def load_once(
    request: LoadRequest, registry: Registry, store: Store, *, progress: Progress | None = None, is_resuming: bool = False,
    context: Mapping[str, Any] | None = None, wait_s: float = 0.0, opener: Opener | None = None,
    executor: Executor | None = None,
) -> LoadReport:  # fmt: skip
    """Begin, contribute and commit, and return the report. `context` says why. `opener` gives the inputs where `request` cannot
    name them as files; then `request.inputs` are words that tell such loads apart.

    If `is_resuming`, the latest load that was asked for the same goes on; if it has published already, only what remains is
    done. Other loads of the same table are waited for up to `wait_s`. Heavy tasks go to the `executor` if there is one.
    """
    leftovers.heal(store.root, registry, request.catalog)
    earlier = [load for load in registry.loads() if _is_once(load, request)]
    mark = _mark(request)
    same = [load for load in earlier if load.context.get("mark") == mark and load.state is not LoadState.ABORTED]
    if is_resuming and same:
        begun = Transaction(same[-1], registry, store)
        begun.check_here()
        with begun.journal.locked(is_shared=False, wait_s=wait_s):
            return _work(begun, request, progress, wait_s, opener, executor)
    for load in earlier:
        if load.state in UNFINISHED:
            # `ConflictError`: somebody is at work on it
            with suppress(ConflictError, RegistryError):
                Transaction(load, registry, store).abort("it had died, and the table was loaded again")
    about = {"operation": "load", "mark": mark, **request.to_json(), **(context or {})}
    with beginning(request.catalog, registry, store, about) as begun:
        return _work(begun, request, progress, wait_s, opener, executor)


def compact(
    catalog: str, tables: Sequence[str], registry: Registry, store: Store, *, progress: Progress | None = None,
    context: Mapping[str, Any] | None = None, wait_s: float = 0.0, executor: Executor | None = None,
) -> tuple[LoadReport, ...]:  # fmt: skip
    """Write ranges of these tables (all of the catalogue if none is named) that have many or small parts anew, and publish them.

    Rows and answers stay as they are. If it is killed, the load can be committed again. Raise `ConfigError` for an unknown table.
    """
    found = [one for one in registry.catalog() if one.table.schema.lower() == catalog.lower()]
    known = {one.table.name.lower(): one.table for one in found}
    # attached files, whose addresses are absolute, belong to others; views have no parts
    parted = [
        one.table.name
        for one in found
        if not one.table.name.endswith(LAYOUT) and len(one.home) and not one.home.uri[0].as_py().startswith("/")
    ]
    if unknown := [name for name in tables if name.lower() not in known]:
        raise ConfigError(f"there is no table {catalog}.{unknown[0]}", hint="qengine tables lists them")
    named = [known[name.lower()].name for name in tables] or parted
    leftovers.heal(store.root, registry, catalog)
    _abort_dead("compact", catalog, registry, store)
    begun = Transaction.begin(
        catalog, registry, store, context={"operation": "compact", "compact": sorted(named), **(context or {})}
    )
    return begun.commit(progress=progress, wait_s=wait_s, executor=executor).reports


def refresh(
    catalog: str, tables: Sequence[str], registry: Registry, store: Store, *, allow_orphans: bool = False,
    progress: Progress | None = None, context: Mapping[str, Any] | None = None, wait_s: float = 0.0,
    executor: Executor | None = None,
) -> tuple[LoadReport, ...]:  # fmt: skip
    """Place pairs anew whose directors in other catalogues have changed: of these match tables, or of all of the catalogue.

    Without any such table nothing is done. Raise `ConfigError` for a table that is no match table, `ConflictError` if pairs have
    lost a director and `allow_orphans` is not set.
    """
    published = registry.catalog()
    pairs = {one.table.name.lower(): one for one in published if one.table.schema.lower() == catalog.lower() and one.table.match}
    if unknown := [name for name in tables if name.lower() not in pairs]:
        known = ", ".join(sorted(one.table.name for one in pairs.values())) or "none"
        raise ConfigError(f"there is no match table {catalog}.{unknown[0]}", hint=f"match tables of {catalog}: {known}")
    named = [pairs[name.lower()] for name in tables] or list(pairs.values())
    stale = sorted(one.table.name for one in named if moved(one, published))
    if not stale:
        return ()
    leftovers.heal(store.root, registry, catalog)
    _abort_dead("refresh", catalog, registry, store)
    about = {"operation": "refresh", "refresh": stale, "allow_orphans": allow_orphans, **(context or {})}
    begun = Transaction.begin(catalog, registry, store, context=about)
    try:
        return begun.commit(progress=progress, wait_s=wait_s, executor=executor).reports
    except ConflictError as error:
        with suppress(QEngineError, OSError):
            begun.abort(str(error))
        raise


def _abort_dead(operation: str, catalog: str, registry: Registry, store: Store) -> None:
    """Abort what was begun for the same and died: it is done anew."""
    for load in registry.loads():
        is_same = load.context.get("operation") == operation and load.catalog.lower() == catalog.lower()
        if is_same and load.state in UNFINISHED:
            with suppress(ConflictError, RegistryError):  # somebody is at work on it, or it has just ended
                Transaction(load, registry, store).abort("it had died, and was begun again")


def _work(
    begun: Transaction, request: LoadRequest, progress: Progress | None, wait_s: float, opener: Opener | None,
    executor: Executor | None,
) -> LoadReport:  # fmt: skip
    """Contribute and commit; the caller holds the load."""
    try:
        if begun.load.state is not LoadState.FINISHED:
            if opener is None:
                begun.receive(request)
            elif not begun.receipts():  # what was opened before it was killed is not asked for again
                begun.receive(request, opener(begun.journal))
        done = begun.publish(progress=progress, wait_s=wait_s, executor=executor)
    except LimitError:
        raise  # the disk is full: what is done already will be of use
    except Exception as error:
        with suppress(QEngineError, OSError):
            begun.discard(str(error))
        raise
    own = [one for one in done.reports if one.table.lower() == request.table.lower()]
    return own[0] if own else LoadReport.nothing(request.catalog, request.table)


def _is_once(load: Load, request: LoadRequest) -> bool:
    same_table = str(load.context.get("table", "")).lower() == request.table.lower()
    return load.context.get("operation") == "load" and same_table and load.catalog.lower() == request.catalog.lower()


def _mark(request: LoadRequest) -> str:
    """Return what two runs of one command have in common."""
    inputs = [str(one) if "://" in str(one) else str(Path(one).expanduser().absolute()) for one in request.inputs]
    words = [request.to_json(), inputs, request.options.label]
    return hashlib.sha256(json.dumps(words, sort_keys=True, default=str).encode()).hexdigest()[:16]
