"""The command line: thin verbs over `app`, the loader and the client.

Results go to standard output, everything else (progress, errors, notes) to standard error. The exit status is 0 for success, 1
when statement, arguments, a limit or the data are to blame, 2 for wrong usage, 3 for the cluster, 4 for a bug, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from qengine import app as composition
from qengine.catalog.model import TableKind
from qengine.client import terminal
from qengine.client.local import LocalClient
from qengine.client.remote import RemoteClient
from qengine.client.result import Result
from qengine.errors import ConfigError, QEngineError
from qengine.loader.attach import attach as attach_catalog
from qengine.loader.load import load as load_table
from qengine.loader.request import LoadRequest
from qengine.loader.request import Progress as Report
from qengine.tap.formats.choose import find_format
from qengine.tap.formats.writer import ResultHeader
from qengine.worker.server import main as run_worker
from qengine.worker.settings import WorkerSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A distributed SQL engine for astronomical catalogues.",
)

_SUFFIXES = {"csv": "csv", "tsv": "tsv", "parquet": "parquet", "xml": "votable", "vot": "votable", "votable": "votable"}


class Lang(StrEnum):
    """Languages of a statement."""

    ADQL = "adql"
    STRICT = "adql-strict"
    SQL = "sql"


class Shape(StrEnum):
    """How rows are put out."""

    TABLE = "table"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    VOTABLE = "votable"


StoreOption = Annotated[Path | None, typer.Option("--store", envvar="QENGINE_STORE", help="Directory of the store.")]
UrlOption = Annotated[str | None, typer.Option("--url", envvar="QENGINE_URL", help="Address of a running service.")]
LangOption = Annotated[Lang, typer.Option("--lang", help="Language of the statement.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Worker processes to start; 0 runs in this process.")]
StatementArgument = Annotated[str, typer.Argument(help="The statement; - reads it from standard input.", show_default=False)]
CatalogOption = Annotated[str, typer.Option("--into", help="Catalogue to load into (the schema in queries).")]
TableOption = Annotated[str, typer.Option("--table", help="Name of the table.")]


@app.command()
def load(
    inputs: Annotated[list[Path], typer.Argument(help="Parquet or CSV files, directories or globs.", show_default=False)],
    into: CatalogOption,
    table: TableOption,
    store: StoreOption = None,
    kind: Annotated[TableKind | None, typer.Option(help="How rows find their place; the schema may say it.")] = None,
    key: Annotated[str | None, typer.Option(help="Column with the unique key.")] = None,
    ra: Annotated[str, typer.Option(help="Column with the right ascension, ICRS degrees.")] = "",
    dec: Annotated[str, typer.Option(help="Column with the declination, ICRS degrees.")] = "",
    director: Annotated[str, typer.Option(help="Director table of a child.")] = "",
    director_key: Annotated[str, typer.Option(help="Column of a child that holds the director's key.")] = "",
    left: Annotated[
        str, typer.Option(help="Of a match table: [CATALOG.]TABLE.COLUMN, a director and the column with its keys.")
    ] = "",
    right: Annotated[str, typer.Option(help="Of a match table: the other director and column.")] = "",
    schema: Annotated[Path | None, typer.Option(help="Felis file, with its sharding.toml beside it.")] = None,
    rows_per_tile: Annotated[int | None, typer.Option(min=1, help="Most rows in a tile.")] = None,
    margin_arcsec: Annotated[float | None, typer.Option(min=0.0, help="Width of the margins around tiles; 0 writes none.")] = None,
    ra_wrap: Annotated[bool, typer.Option("--ra-wrap", help="Take right ascensions modulo 360.")] = False,
) -> None:
    """Load files as a table and publish it."""
    request = LoadRequest(
        inputs=tuple(inputs),
        catalog=into,
        table=table,
        kind=kind,
        key=key,
        ra=ra,
        dec=dec,
        director=director,
        director_key=director_key,
        left=left,
        right=right,
        schema=schema,
        rows_per_tile=rows_per_tile,
        margin_arcsec=margin_arcsec,
        ra_wrap=ra_wrap,
    )
    files, registry = composition.open_store(_needed(store), create=True)
    with registry, _progress() as progress:
        report = load_table(request, registry, files, progress=progress)
    _tell(report.to_text())


@app.command()
def attach(
    path: Annotated[Path, typer.Argument(help="A HATS catalogue; it stays where it is.", show_default=False)],
    into: CatalogOption,
    table: TableOption,
    store: StoreOption = None,
) -> None:
    """Make a HATS catalogue queryable in place."""
    files, registry = composition.open_store(_needed(store), create=True)
    with registry, _notes().status(f"reading {path} ..."):
        number = attach_catalog(path, catalog=into, table=table, registry=registry, store=files)
        found = registry.catalog().find(into, table)
    size = f": {found.rows:,} rows in {len(found.home):,} files" if found is not None else ""
    _tell(f"{into}.{table}{size} (snapshot {number}, read where they lie)")


@app.command()
def query(
    statement: StatementArgument,
    store: StoreOption = None,
    url: UrlOption = None,
    lang: LangOption = Lang.ADQL,
    workers: WorkersOption = 0,
    shape: Annotated[Shape | None, typer.Option("--format", help="table, or what the suffix of -o says.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show with --format table.")] = 100,
    maxrec: Annotated[int | None, typer.Option(min=0, help="Cut the answer after so many rows.")] = None,
) -> None:
    """Run a statement and show its rows, or write them to a file."""
    chosen = _shape(shape, output)
    text = _statement(statement)
    with _located(text), _connected(store, url, workers) as client, client.query(text, lang.value, maxrec=maxrec) as result:
        if chosen is Shape.TABLE and output is None:
            terminal.print_rows(Console(soft_wrap=not sys.stdout.isatty()), result, limit=rows)
        else:
            _put_out(result, chosen, output)
        for warning in result.warnings:
            _tell(f"note: {warning}")


@app.command()
def explain(
    statement: StatementArgument,
    store: StoreOption = None,
    url: UrlOption = None,
    lang: LangOption = Lang.ADQL,
    workers: WorkersOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    analyze: Annotated[bool, typer.Option("--analyze", help="Run the statement and add what happened.")] = False,
) -> None:
    """Show how a statement would run: tiles, predicates, exchanges, estimates."""
    text = _statement(statement)
    with _located(text), _connected(store, url, workers) as client:
        plan = client.explain(text, lang.value, analyze=analyze)
    if as_json:
        print(json.dumps(dict(plan.to_json()), indent=2))
    else:
        print(plan.to_text())


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="A table, to list its columns.", show_default=False)] = None,
    store: StoreOption = None,
    url: UrlOption = None,
    show_all: Annotated[bool, typer.Option("--all", help="List TAP_SCHEMA too.")] = False,
) -> None:
    """List the tables that can be queried, or the columns of one."""
    with _connected(store, url, 0) as client:
        found = client.tables()
    console = Console(soft_wrap=not sys.stdout.isatty())
    if name is None:
        terminal.print_tables(console, [table for table in found if show_all or table.schema != "TAP_SCHEMA"])
        return
    wanted = [table for table in found if name.lower() in (table.full_name.lower(), table.name.lower())]
    if not wanted:
        raise ConfigError(f"there is no table {name}", hint="qengine tables lists them")
    for table in wanted:
        terminal.print_columns(console, table)


@app.command()
def status(store: StoreOption = None, url: UrlOption = None) -> None:
    """Show what is published, and loads that failed or still run; of a service, whether it answers."""
    if url is not None and store is None:
        with RemoteClient(url) as client:
            found = [table for table in client.tables() if table.schema != "TAP_SCHEMA"]
        print(f"{client.url} answers: {len(found)} tables, {sum(table.rows for table in found):,} rows")
        return
    files, registry = composition.open_store(_needed(store))
    with registry:
        print(f"store {files.root}")
        for catalog in sorted({table.schema for table in registry.definitions()}):
            latest = registry.snapshots(catalog)[-1]
            when = latest.published.astimezone(UTC)
            own = [one for one in registry.catalog() if one.table.schema == catalog]
            names = ", ".join(f"{one.table.name} ({one.rows:,} rows)" for one in own)
            print(f"{catalog}: snapshot {latest.number} of {when:%Y-%m-%d %H:%M} UTC: {names}")
        for one in registry.loads():
            if one.state.value != "finished":
                print(
                    f"load {one.id} {one.state.value} since {one.started:%Y-%m-%d %H:%M} UTC{f': {one.error}' if one.error else ''}"
                )


@app.command()
def serve(
    store: StoreOption = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes to start; 0 runs in this process.")] = 2,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the TAP service; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    worker: Annotated[
        list[str] | None, typer.Option(help="host:port of a running worker; repeat it. None is started then.")
    ] = None,
) -> None:
    """Serve a store over TAP: a coordinator, its workers, and HTTP at /tap."""
    composition.serve(_needed(store), workers=workers, port=port, host=host, addresses=tuple(worker or ()))


@app.command()
def worker(
    store: StoreOption = None,
    listen: Annotated[str, typer.Option(help="host:port of the gRPC front; port 0 takes a free one.")] = "127.0.0.1:0",
    slots: Annotated[int, typer.Option(min=1, help="Tasks that run at once, each in a process.")] = 1,
) -> None:
    """Run one worker, for coordinators that are given its address."""
    run_worker(WorkerSettings(store_root=_needed(store).expanduser().resolve(), listen=listen, slots=slots))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    try:
        app(args=list(arguments), prog_name="qengine")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except QEngineError as error:
        return terminal.print_error(_notes(), error)
    except OSError as error:
        return terminal.print_error(_notes(), ConfigError(f"{error.filename or 'input or output'}: {error.strerror or error}"))
    return 0


@contextmanager
def _located(text: str) -> Iterator[None]:
    """Report errors of a statement with the line in question."""
    try:
        yield
    except QEngineError as error:
        raise typer.Exit(terminal.print_error(_notes(), error, text)) from None


def _notes() -> Console:
    return Console(stderr=True)


def _tell(note: str) -> None:
    """Print to standard error, as it is."""
    _notes().print(note, markup=False, highlight=False, soft_wrap=True)


def _needed(store: Path | None) -> Path:
    if store is None:
        raise ConfigError("no store is named", hint="use --store DIR, or set QENGINE_STORE")
    return store


def _connected(store: Path | None, url: str | None, workers: int) -> LocalClient | RemoteClient:
    if store is not None and url is not None:
        raise ConfigError("both --store and --url are given", hint="name a store or a running service, not both")
    if store is None and url is None:
        raise ConfigError("no store is named", hint="use --store DIR or --url URL, or set QENGINE_STORE or QENGINE_URL")
    if url is None:
        return composition.connect(_needed(store), workers=workers)
    if workers:
        raise ConfigError("workers belong to a store, not to a running service", hint="leave out --workers with --url")
    return RemoteClient(url)


def _statement(argument: str) -> str:
    text = sys.stdin.read() if argument == "-" else argument
    if not text.strip():
        raise ConfigError("the statement is empty")
    return text


def _shape(shape: Shape | None, output: Path | None) -> Shape:
    if output is None:
        return shape or Shape.TABLE
    if shape is None:
        suffix = output.suffix.lower().lstrip(".")
        if suffix not in _SUFFIXES:
            raise ConfigError(f"the format of {output} is unknown", hint=f"use --format, or a suffix of {', '.join(_SUFFIXES)}")
        return Shape(_SUFFIXES[suffix])
    if shape is Shape.TABLE:
        raise ConfigError("a table is for the terminal", hint="use --format csv, parquet or votable with -o")
    return shape


def _put_out(result: Result, shape: Shape, output: Path | None) -> None:
    kind, _ = find_format(shape.value)
    header = ResultHeader(
        columns=result.columns,
        schema=result.schema,
        statement=result.statement,
        warnings=result.warnings,
        snapshots=result.snapshots,
    )
    if output is None:
        if shape is Shape.PARQUET and sys.stdout.isatty():
            raise ConfigError("Parquet is not for the terminal", hint="name a file with -o")
        terminal.write_rows(result, kind.writer(header), sys.stdout.buffer, _notes())
        sys.stdout.buffer.flush()
        return
    total = terminal.write_file(result, kind.writer(header), output, _notes())
    _tell(f"{total:,} rows written to {output}")


@contextmanager
def _progress() -> Iterator[Report]:
    """Bars for the stages of a load; nothing where standard error is not a terminal."""
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=_notes(),
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


if __name__ == "__main__":
    main()
