"""What the verbs of the command line do. `cli` only declares them, so that it starts at once; what is imported here takes seconds.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from qengine import app as composition
from qengine.client import terminal
from qengine.client.local import LocalClient
from qengine.client.progress_bar import ProgressBar
from qengine.client.remote import RemoteClient
from qengine.client.result import Result
from qengine.errors import ConfigError
from qengine.loader.attach import attach as attach_catalog
from qengine.loader.request import Progress as Report
from qengine.opening import open_store
from qengine.tap.formats.choose import find_format
from qengine.tap.formats.writer import ResultHeader

_SUFFIXES = {
    "csv": "csv", "tsv": "tsv", "parquet": "parquet", "xml": "votable", "vot": "votable", "votable": "votable", "fits": "fits",
    "json": "json", "ecsv": "ecsv", "arrow": "arrow", "arrows": "arrow",
}  # fmt: skip


def attach(store: Path | None, path: Path, into: str, table: str, *, key: str, is_replacing: bool) -> None:
    """Make a HATS catalogue queryable in place."""
    files, registry = open_store(needed(store), create=True)
    with registry, notes().status(f"reading {path} ..."):
        number = attach_catalog(path, catalog=into, table=table, registry=registry, store=files, key=key, is_replacing=is_replacing)
        found = registry.catalog().find(into, table)
    size = f": {found.rows:,} rows in {len(found.home):,} files" if found is not None else ""
    tell(f"{into}.{table}{size} (snapshot {number}, read where they lie)")


def query(
    text: str,
    client: LocalClient | RemoteClient,
    *,
    language: str,
    shape: str,
    output: Path | None,
    rows: int,
    maxrec: int | None,
    max_cost: str,
) -> None:
    """Run a statement and show its rows, or write them to a file. `shape` is what `shape_of` returns."""
    with (
        ProgressBar(notes()) as bar,
        client.query(text, language, maxrec=maxrec, max_cost=max_cost, on_progress=bar.tell if bar.is_shown else None) as result,
    ):
        if shape == "table" and output is None:
            terminal.print_rows(Console(soft_wrap=not sys.stdout.isatty()), result, limit=rows, before=bar.stop)
        else:
            _put_out(result, shape, output)
        bar.stop()
        for warning in result.warnings:
            tell(f"note: {warning}")


def explain(text: str, client: LocalClient | RemoteClient, *, language: str, as_json: bool, analyze: bool, max_cost: str) -> None:
    """Show how a statement would run."""
    plan = client.explain(text, language, analyze=analyze, max_cost=max_cost)
    print(json.dumps(dict(plan.to_json()), indent=2) if as_json else plan.to_text())


def tables(name: str | None, client: LocalClient | RemoteClient, *, show_all: bool) -> None:
    """List the tables that can be queried, or the columns of one."""
    found = client.tables()
    console = Console(soft_wrap=not sys.stdout.isatty())
    if name is None:
        terminal.print_tables(console, [table for table in found if show_all or table.schema not in ("TAP_SCHEMA", "qengine_meta")])
        return
    wanted = [table for table in found if name.lower() in (table.full_name.lower(), table.name.lower())]
    if not wanted:
        raise ConfigError(f"there is no table {name}", hint="qengine tables lists them")
    for table in wanted:
        terminal.print_columns(console, table)


def status_of_service(url: str) -> None:
    """Show whether a service answers, its workers, and the queries that run."""
    with RemoteClient(url) as client:
        found = [table for table in client.tables() if table.schema not in ("TAP_SCHEMA", "qengine_meta")]
        workers, running = client.workers(), client.running()
    print(f"{client.url} answers: {len(found)} tables, {sum(table.rows for table in found):,} rows")
    for worker in workers:
        slots = f", {worker['slots']} slots" if worker["slots"] is not None else ""
        print(f"worker {worker['worker']}: {worker['health']}{slots}{': ' + worker['error'] if worker['error'] else ''}")
    if not any(worker["health"] == "alive" for worker in workers):
        print("no worker is alive: no query can be answered")
    for one in running:
        print(f"query {one.query}: {terminal.progress_line(one)}")
        print(f"  {' '.join(one.statement.split())[:200]}")


def status_of_store(store: Path | None) -> None:
    """Show what is published, and loads that failed or still run."""
    files, registry = open_store(needed(store))
    with registry:
        print(f"store {files.files.place}")
        for catalog in sorted({table.schema for table in registry.definitions()}):
            latest = registry.snapshots(catalog)[-1]
            when = latest.published.astimezone(UTC)
            own = [one for one in registry.catalog() if one.table.schema == catalog]
            names = ", ".join(f"{one.table.name} ({one.rows:,} rows)" for one in own)
            print(f"{catalog}: snapshot {latest.number} of {when:%Y-%m-%d %H:%M} UTC: {names}")
        for one in registry.loads():
            if one.state.value != "finished":
                error = f": {one.error}" if one.error else ""
                print(f"load {one.id} {one.state.value} since {one.started:%Y-%m-%d %H:%M} UTC{error}")


def cancel(query_id: str, url: str) -> None:
    """End a query of a service."""
    with RemoteClient(url) as client:
        client.cancel(query_id)
        tell(f"query {query_id}: {client.progress(query_id).phase.value}")


def serve(store: Path | None, *, workers: int, port: int, host: str, addresses: tuple[str, ...]) -> None:
    """Serve a store over TAP."""
    composition.serve(needed(store), workers=workers, port=port, host=host, addresses=addresses)


def connected(store: Path | None, url: str | None, workers: int) -> LocalClient | RemoteClient:
    """Return a client of what the options name."""
    if store is not None and url is not None:
        raise ConfigError("both --store and --url are given", hint="name a store or a running service, not both")
    if store is None and url is None:
        raise ConfigError("no store is named", hint="use --store DIR or --url URL, or set QENGINE_STORE or QENGINE_URL")
    if url is None:
        return composition.connect(needed(store), workers=workers)
    if workers:
        raise ConfigError("workers belong to a store, not to a running service", hint="leave out --workers with --url")
    return RemoteClient(url)


def notes() -> Console:
    """Return the console on standard error."""
    return Console(stderr=True)


def tell(note: str) -> None:
    """Print to standard error, as it is."""
    notes().print(note, markup=False, highlight=False, soft_wrap=True)


def needed(store: Path | None) -> Path:
    if store is None:
        raise ConfigError("no store is named", hint="use --store DIR, or set QENGINE_STORE")
    return store


def shape_of(shape: str | None, output: Path | None) -> str:
    """Return in which shape rows are put out."""
    if output is None:
        return shape or "table"
    if shape is None:
        suffix = output.suffix.lower().lstrip(".")
        if suffix not in _SUFFIXES:
            raise ConfigError(f"the format of {output} is unknown", hint=f"use --format, or a suffix of {', '.join(_SUFFIXES)}")
        return _SUFFIXES[suffix]
    if shape == "table":
        raise ConfigError("a table is for the terminal", hint="use --format csv, parquet or votable with -o")
    return shape


def _put_out(result: Result, shape: str, output: Path | None) -> None:
    kind, _ = find_format(shape)
    header = ResultHeader(
        columns=result.columns,
        schema=result.schema,
        statement=result.statement,
        warnings=result.warnings,
        snapshots=result.snapshots,
    )
    if output is None:
        if shape == "parquet" and sys.stdout.isatty():
            raise ConfigError("Parquet is not for the terminal", hint="name a file with -o")
        terminal.write_rows(result, kind.writer(header), sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    total = terminal.write_file(result, kind.writer(header), output)
    tell(f"{total:,} rows written to {output}")


@contextmanager
def bars() -> Iterator[Report]:
    """Bars for the stages of a load; nothing where standard error is not a terminal."""
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=notes(),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=max(total, done))

    with bars:
        yield report
