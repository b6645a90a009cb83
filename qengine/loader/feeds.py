"""Loads in one step whose inputs are not files that somebody names: datasets of a Butler, and the answer to a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

from qengine.catalog.registry import Registry
from qengine.errors import ConfigError
from qengine.loader.executor import Executor
from qengine.loader.journal import Journal
from qengine.loader.once import load_once
from qengine.loader.request import LoadReport, LoadRequest, Progress
from qengine.loader.sources.butler import ButlerQuery, find_datasets, open_datasets, pending
from qengine.loader.sources.query import Rows, spool
from qengine.loader.sources.source import Source
from qengine.storage.objects import Store

Ask = Callable[[], AbstractContextManager[Rows]]
"""Runs the query."""


def load_butler(
    request: LoadRequest, query: ButlerQuery, registry: Registry, store: Store, *, progress: Progress | None = None,
    resume: bool = False, context: Mapping[str, Any] | None = None, wait_s: float = 0.0,
    executor: Executor | None = None,
) -> LoadReport:  # fmt: skip
    """Load the datasets of a query that the table does not have yet, and those that were made again.

    If there are none, nothing is published, and the report says how many are there already. See `sources.butler`.
    """
    if request.options.label:
        raise ConfigError("datasets of a Butler have labels of their own", hint="leave out --label")
    datasets = find_datasets(query)
    known = {one.label: one.version for one in registry.inputs(request.catalog, request.table)}
    new = pending(datasets, known)
    if not new and not resume:
        return replace(LoadReport.nothing(request.catalog, request.table), skipped_inputs=len(datasets))
    named = replace(request, inputs=(f"butler {query.repo} {query.dataset_type} {' '.join(query.collections)} {query.where}",))

    def open_new(_: Journal) -> Sequence[Source]:
        return open_datasets(new)

    report = load_once(
        named, registry, store, progress=progress, is_resuming=resume, context={**(context or {}), "butler": asdict(query)},
        wait_s=wait_s, executor=executor, opener=open_new,
    )  # fmt: skip
    return replace(report, skipped_inputs=report.skipped_inputs + len(datasets) - len(new))


def load_answer(
    request: LoadRequest, statement: str, ask: Ask, registry: Registry, store: Store, *, progress: Progress | None = None,
    resume: bool = False, context: Mapping[str, Any] | None = None, wait_s: float = 0.0,
    executor: Executor | None = None,
) -> LoadReport:  # fmt: skip
    """Load the answer to `statement`, which `ask` runs. See `sources.query`."""

    def open_answer(journal: Journal) -> Sequence[Source]:
        with ask() as rows:
            return (spool(rows, journal.staged(request.table), label=request.options.label),)

    named = replace(request, inputs=(f"query {statement}",))
    return load_once(
        named, registry, store, progress=progress, is_resuming=resume, context={**(context or {}), "statement": statement},
        wait_s=wait_s, executor=executor, opener=open_answer,
    )  # fmt: skip
