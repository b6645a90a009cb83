"""The command line: declarations of the verbs, which are in `verbs`. That module is imported when a verb runs, not before: it takes
seconds, and `qengine --help` or a wrong option should not.

Results go to standard output, everything else (progress, errors, notes) to standard error. The exit status is 0 for success, 1
when statement, arguments, a limit or the data are to blame, 2 for wrong usage, 3 for the cluster, 4 for a bug, 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from qengine import cli_load, cli_releases, cli_schema, cli_store, cli_users
from qengine.cli_load import CatalogOption, Lang, LangOption, StoreOption, TableOption
from qengine.errors import ConfigError, QEngineError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A distributed SQL engine for astronomical catalogues.",
)


cli_load.add_to(app)
cli_releases.add_to(app)
cli_schema.add_to(app)
cli_store.add_to(app)
cli_users.add_to(app)


class Shape(StrEnum):
    """How rows are put out."""

    TABLE = "table"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    VOTABLE = "votable"


UrlOption = Annotated[str | None, typer.Option("--url", envvar="QENGINE_URL", help="Address of a running service.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Worker processes to start; 0 runs in this process.")]
StatementArgument = Annotated[str, typer.Argument(help="The statement; - reads it from standard input.", show_default=False)]
MaxCostOption = Annotated[
    str, typer.Option("--max-cost", help="Refuse what is estimated above it: bytes, time or both, such as 10GB,60s.")
]


@app.command()
def attach(
    path: Annotated[Path, typer.Argument(help="A HATS catalogue; it stays where it is.", show_default=False)],
    into: CatalogOption,
    table: TableOption,
    store: StoreOption = None,
    key: Annotated[str, typer.Option(help="Column with the unique key; verify --keys proves it.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace a table that was attached before.")] = False,
) -> None:
    """Make a HATS catalogue queryable in place."""
    from qengine import verbs

    verbs.attach(store, path, into, table, key=key, is_replacing=replace)


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
    max_cost: MaxCostOption = "",
) -> None:
    """Run a statement and show its rows, or write them to a file."""
    from qengine import verbs

    chosen = verbs.shape_of(shape.value if shape is not None else None, output)
    text = _statement(statement)
    with _located(text), verbs.connected(store, url, workers) as client:
        verbs.query(
            text,
            client,
            language=lang.value,
            shape=chosen,
            output=output,
            rows=rows,
            maxrec=maxrec,
            max_cost=max_cost,
        )


@app.command()
def explain(
    statement: StatementArgument,
    store: StoreOption = None,
    url: UrlOption = None,
    lang: LangOption = Lang.ADQL,
    workers: WorkersOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    analyze: Annotated[bool, typer.Option("--analyze", help="Run the statement and add what happened.")] = False,
    max_cost: MaxCostOption = "",
) -> None:
    """Show how a statement would run: tiles, predicates, exchanges, estimates."""
    from qengine import verbs

    text = _statement(statement)
    with _located(text), verbs.connected(store, url, workers) as client:
        verbs.explain(text, client, language=lang.value, as_json=as_json, analyze=analyze, max_cost=max_cost)


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="A table, to list its columns.", show_default=False)] = None,
    store: StoreOption = None,
    url: UrlOption = None,
    show_all: Annotated[bool, typer.Option("--all", help="List TAP_SCHEMA and qengine_meta too.")] = False,
    sky_map: Annotated[str, typer.Option("--map", metavar="TABLE", help="Draw where on the sky the rows of a table are.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="PNG file of the map.", show_default=False)] = None,
) -> None:
    """List the tables that can be queried, or the columns of one; or draw a map of one."""
    from qengine import verbs

    if sky_map:
        from qengine import verbs_map

        verbs_map.draw(verbs.needed(store), sky_map, output)
        return
    with verbs.connected(store, url, 0) as client:
        verbs.tables(name, client, show_all=show_all)


@app.command()
def status(store: StoreOption = None, url: UrlOption = None) -> None:
    """Show what is published, and loads that failed or still run; of a service, its workers and the queries that run."""
    from qengine import verbs

    if url is not None and store is None:
        verbs.status_of_service(url)
    else:
        verbs.status_of_store(store)


@app.command()
def cancel(
    query_id: Annotated[str, typer.Argument(metavar="ID", help="The query's id; status lists them.", show_default=False)],
    url: UrlOption = None,
) -> None:
    """End a query of a running service."""
    from qengine import verbs

    if url is None:
        raise ConfigError("no service is named", hint="use --url URL, or set QENGINE_URL")
    verbs.cancel(query_id, url)


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
    from qengine import verbs

    verbs.serve(store, workers=workers, port=port, host=host, addresses=tuple(worker or ()))


@app.command()
def worker(
    store: StoreOption = None,
    listen: Annotated[str, typer.Option(help="host:port of the gRPC front; port 0 takes a free one.")] = "127.0.0.1:0",
    slots: Annotated[int, typer.Option(min=1, help="Tasks that run at once, each in a process.")] = 1,
    cache_gb: Annotated[float, typer.Option(min=0.0, help="Disk for parts of a store in an object store, in GB.")] = 64.0,
) -> None:
    """Run one worker, for coordinators that are given its address."""
    # A worker needs no planner, and must not load one.
    from qengine.storage.place import cache_place
    from qengine.worker.server import main as run_worker
    from qengine.worker.settings import WorkerSettings

    if store is None:
        raise ConfigError("no store is named", hint="use --store DIR, or set QENGINE_STORE")
    root, far = cache_place(store)
    run_worker(WorkerSettings(store_root=root, far=far, cache_bytes=int(cache_gb * 1e9), listen=listen, slots=slots))


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
        return _print_error(error)
    except OSError as error:
        return _print_error(ConfigError(f"{error.filename or 'input or output'}: {error.strerror or error}"))
    return 0


def _print_error(error: QEngineError, text: str = "") -> int:
    from rich.console import Console

    from qengine.client import terminal

    return terminal.print_error(Console(stderr=True), error, text)


@contextmanager
def _located(text: str) -> Iterator[None]:
    """Report errors of a statement with the line in question."""
    try:
        yield
    except QEngineError as error:
        raise typer.Exit(_print_error(error, text)) from None


def _statement(argument: str) -> str:
    text = sys.stdin.read() if argument == "-" else argument
    if not text.strip():
        raise ConfigError("the statement is empty")
    return text


if __name__ == "__main__":
    main()
