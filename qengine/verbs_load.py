"""What the verbs of loads do: load, begin, contribute, commit, abort, loads, sweep (declared in `cli_load`)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from qengine import app as composition
from qengine.catalog.inputs import InputRecord
from qengine.catalog.loads import UNFINISHED, Load
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError
from qengine.loader import leftovers
from qengine.loader.contributor import contribute_addresses, contribute_rows
from qengine.loader.executor_choice import Choice
from qengine.loader.feeds import load_answer, load_butler
from qengine.loader.journal import Journal
from qengine.loader.load import load as load_table
from qengine.loader.once import compact as compact_tables
from qengine.loader.once import refresh as refresh_pairs
from qengine.loader.progress import Meter
from qengine.loader.receipt import Receipt
from qengine.loader.request import ExtraColumns, LoadReport, LoadRequest, MissingColumns, OnDuplicate, Progress
from qengine.loader.service import Loader
from qengine.loader.sources.butler import ButlerQuery, find_datasets, open_datasets
from qengine.loader.sources.csv import CsvOptions
from qengine.loader.sources.open import InputOptions
from qengine.loader.summary import LoadSummary
from qengine.loader.transaction import Transaction, who
from qengine.opening import open_store
from qengine.storage.objects import Store
from qengine.transport.loader_client import LoaderClient
from qengine.transport.loader_server import LoaderServer
from qengine.transport.tls import TlsFiles
from qengine.verbs import needed, tell
from qengine.verbs_progress import JsonLines, load_bars

_SHOWN = 80
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a command line says of the inputs: files; or the word butler and a repository, with words about the datasets; or a
    query.
    `options` and `text` are words about files."""

    inputs: tuple[str, ...]
    query: str
    lang: str
    butler: Mapping[str, Any]
    options: Mapping[str, str]
    text: Mapping[str, Any]

    def __post_init__(self) -> None:
        if bool(self.query) == bool(self.inputs):
            what = "files and a statement are named" if self.query else "nothing to load is named"
            raise ConfigError(what, hint="name files, or a statement with --query")
        if any(self.butler.values()) and self.datasets is None:
            raise ConfigError("--collection, --dataset-type and --where are of a Butler", hint="say: qengine load butler REPO ..")

    @property
    def datasets(self) -> ButlerQuery | None:
        """Return which datasets of a Butler are meant, None if it is not about one."""
        is_butler = len(self.inputs) == 2 and self.inputs[0] == "butler" and not Path("butler").exists()
        return ButlerQuery(repo=self.inputs[1], **self.butler) if is_butler else None

    def added_to(self, request: LoadRequest) -> LoadRequest:
        """Return the request with what is said of files."""
        csv = CsvOptions(**{word: value for word, value in self.text.items() if value})
        return replace(request, inputs=self.inputs, options=InputOptions(csv=csv, **self.options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A loader on another machine, and the files of the connection to it."""

    address: str
    tls: TlsFiles | None


def at(address: str, tls: TlsFiles | None) -> Remote | None:
    """Return the loader at an address, None if none is named."""
    return Remote(address=address, tls=tls) if address else None


def request_of(
    *, kind: str | None, on_duplicate: str, extra_columns: str, missing_columns: str, schema: str, **words: Any
) -> LoadRequest:
    """Return the request that options make, without inputs."""
    is_file = bool(schema) and Path(schema).exists()
    return LoadRequest(
        kind=TableKind(kind) if kind is not None else None, on_duplicate=OnDuplicate(on_duplicate),
        extra_columns=ExtraColumns(extra_columns), missing_columns=MissingColumns(missing_columns),
        schema=Path(schema).absolute() if is_file else schema or None, **words,
    )  # fmt: skip


def context_of(why: str, words: Sequence[str]) -> dict[str, str]:
    """Return what is kept with a load, from --why and KEY=VALUE. Raise `ConfigError` for a word without =."""
    found = {"why": why} if why else {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--context {word}: not KEY=VALUE", hint="such as --context pipeline=DRP#ci")
        found[key] = value
    return found


def by(executor: str, dask: str) -> Choice:
    """Return who does the heavy tasks of a load. Raise `ConfigError` if the words contradict each other."""
    return Choice(str(executor), dask)


def load(
    store: Path | None, request: LoadRequest, given: Given, *, context: Mapping[str, str], wait_s: float, is_resuming: bool,
    as_json: bool, choice: Choice,
) -> None:  # fmt: skip
    """Load inputs into a table and publish it."""
    request = given.added_to(request)
    root = needed(store)
    files, registry = open_store(root, create=True)
    with registry, choice.open() as executor, _progress(as_json) as progress:
        terms: dict[str, Any] = {
            "progress": progress, "resume": is_resuming, "context": context, "wait_s": wait_s, "executor": executor
        }  # fmt: skip
        if given.query:
            with composition.connect(root) as client:
                ask = partial(client.query, given.query, given.lang)
                report = load_answer(request, given.query, ask, registry, files, **terms)
        elif (datasets := given.datasets) is not None:
            report = load_butler(request, datasets, registry, files, **terms)
        else:
            report = load_table(request, registry, files, **terms)
    _tell_reports([report], as_json=as_json)
    _tell_summary(root, report.load, as_json=as_json)


def begin(store: Path | None, loader: Remote | None, catalog: str, *, context: Mapping[str, str]) -> None:
    """Begin a load and print its id."""
    if loader:
        with closing(LoaderClient(loader.address, tls=loader.tls)) as client:
            words = client.begin(catalog, {"by": who(), **context})
        found = (words.id, words.number, words.catalog)
    else:
        files, registry = open_store(needed(store), create=True)
        with registry:
            load = Transaction.begin(catalog, registry, files, context=context).load
        found = (load.id, load.number, load.catalog)
    print(found[0])
    tell(f"load {found[1]} of {found[2]} has begun; contribute to it, then commit or abort it")


def contribute(
    store: Path | None, loader: Remote | None, load: str, request: LoadRequest, given: Given, *, is_copying: bool
) -> None:
    """Add inputs to a load."""
    datasets = given.datasets
    sources = open_datasets(find_datasets(datasets)) if datasets is not None else None
    named = given.added_to(request)
    if loader:
        with closing(LoaderClient(loader.address, tls=loader.tls)) as client:
            if is_copying or sources is not None:
                receipts = contribute_rows(client, load, named, sources)
            else:
                receipts = (contribute_addresses(client, load, named),)
    else:
        if is_copying:
            raise ConfigError("--copy sends rows to a loader", hint="name it with --loader HOST:PORT")
        with _open(store, load) as begun:
            receipts = (begun.contribute(replace(named, catalog=begun.load.catalog), sources),)
    for receipt in receipts:
        tell(f"{receipt.request.catalog}.{receipt.request.table}: {_contribution(receipt)}")


def commit(store: Path | None, loader: Remote | None, load: str, *, wait_s: float, as_json: bool, choice: Choice) -> None:
    """Publish what was contributed to a load."""
    if loader and not choice.is_plain:
        raise ConfigError("--executor and --dask are for loads of this machine", hint="the loader chooses who does its work")
    with _progress(as_json) as progress:
        if loader:
            with closing(LoaderClient(loader.address, tls=loader.tls)) as client:
                words, found = client.commit(load, wait_s, progress)
            reports = tuple(LoadReport.from_json(one) for one in found)
            number, snapshot, catalog = words.number, words.snapshot, words.catalog
        else:
            with _open(store, load) as begun, choice.open() as executor:
                done = begun.commit(progress=progress, wait_s=wait_s, executor=executor)
            reports = done.reports
            number, snapshot, catalog = done.load.number, done.load.snapshot, done.load.catalog
    _tell_reports(reports, as_json=as_json)
    if loader is None:
        _tell_summary(store, load, as_json=as_json)
    if not as_json:
        tell(f"load {number} is finished, {f'snapshot {snapshot} of {catalog}' if snapshot else 'nothing was new'}")


def abort(store: Path | None, loader: Remote | None, load: str, *, why: str) -> None:
    """End a load without publishing."""
    if loader:
        with closing(LoaderClient(loader.address, tls=loader.tls)) as client:
            number = client.abort(load, why).number
    else:
        with _open(store, load) as begun:
            begun.abort(why, is_anywhere=True)
            number = begun.load.number
    tell(f"load {number} is aborted")


def serve(store: Path | None, listen: str, *, tls: TlsFiles | None) -> None:
    """Serve loads to other machines until Ctrl-C or SIGTERM."""
    files, registry = open_store(needed(store), create=True)
    with registry:
        server = LoaderServer(Loader(registry, files), listen, tls=tls)
        signal.signal(signal.SIGTERM, lambda *_: server.stop(_GRACE_S))
        server.start()
        tell(f"loader of {files.files.place} at {server.address}; Ctrl-C stops it")
        try:
            server.wait()
        except KeyboardInterrupt:
            server.stop(_GRACE_S)


def tls_of(authority: Path | None, certificate: Path | None, key: Path | None, peer_name: str = "") -> TlsFiles | None:
    """Return the files of a mutual TLS connection, None if none is named. Raise `ConfigError` if some are."""
    if authority is None and certificate is None and key is None:
        return None
    if authority is None or certificate is None or key is None:
        raise ConfigError("TLS needs all of --authority, --certificate and --private-key")
    return TlsFiles(authority=authority, certificate=certificate, key=key, peer_name=peer_name)


def compact(store: Path | None, catalog: str, tables: tuple[str, ...], *, as_json: bool, choice: Choice, **terms: Any) -> None:
    """Write ranges with many or small parts anew."""
    files, registry = open_store(needed(store))
    with registry, choice.open() as executor, _progress(as_json) as progress:
        reports = compact_tables(catalog, tables, registry, files, progress=progress, executor=executor, **terms)
    _tell_reports(reports, as_json=as_json)
    _tell_summary(store, next((one.load for one in reports if one.load), ""), as_json=as_json)


def refresh(store: Path | None, catalog: str, tables: tuple[str, ...], *, as_json: bool, **terms: Any) -> None:
    """Place pairs anew whose directors in other catalogues have changed."""
    files, registry = open_store(needed(store))
    with registry, _progress(as_json) as progress:
        reports = refresh_pairs(catalog, tables, registry, files, progress=progress, **terms)
    _tell_reports(reports, as_json=as_json)
    if not reports and not as_json:
        tell(f"{catalog}: all pairs lie where their directors are")


def sweep(store: Path | None) -> None:
    """Finish what has been published, and remove what dead loads have left."""
    files, registry = open_store(needed(store))
    with registry:
        catalogs = sorted({table.schema for table in registry.definitions()} | {load.catalog for load in registry.loads()} - {""})
        for catalog in catalogs:
            healed = leftovers.heal(files.root, registry, catalog)
            removed = leftovers.sweep_idle(files.root, registry, catalog)
            tell(f"{catalog}: {len(healed)} loads cleaned up, {removed:,} files removed")


def loads(store: Path | None, load: str | None, *, as_json: bool) -> None:
    """List loads, or show one."""
    files, registry = open_store(needed(store))
    with registry:
        if load is None:
            _list(files, registry, as_json=as_json)
        else:
            _show(files, registry, registry.load(load), as_json=as_json)


def _list(files: Store, registry: Registry, *, as_json: bool) -> None:
    found = [(one, registry.inputs_of_load(one.number), _receipts(files, registry, one)) for one in registry.loads()]
    if as_json:
        print(json.dumps([_words(*each) for each in found], indent=1, default=str))
        return
    rows = [("LOAD", "ID", "STATE", "CATALOG", "SNAPSHOT", "STARTED", "INPUTS", "ROWS", "WHAT")]
    for one, inputs, receipts in found:
        count = len(inputs) or sum(len(receipt.inputs) for receipt in receipts)
        what = one.error or str(one.context.get("why", "") or one.context.get("operation", ""))
        stored = f"{sum(each.rows_stored for each in inputs):,}" if inputs else ""
        began = f"{one.started:%Y-%m-%d %H:%M}"
        snapshot = str(one.snapshot or "")
        rows.append(
            (str(one.number), one.id[:12], _state(files, one), one.catalog, snapshot, began, f"{count:,}", stored, what[:_SHOWN])
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def _show(files: Store, registry: Registry, load: Load, *, as_json: bool) -> None:
    inputs, receipts = registry.inputs_of_load(load.number), _receipts(files, registry, load)
    if as_json:
        print(json.dumps(_words(load, inputs, receipts), indent=1, default=str))
        return
    ended = f", ended {load.finished:%Y-%m-%d %H:%M:%S}" if load.finished else ""
    print(f"load {load.number} ({load.id}) of {load.catalog or '?'}: {_state(files, load)}")
    print(f"started {load.started:%Y-%m-%d %H:%M:%S} UTC{ended}{f', snapshot {load.snapshot}' if load.snapshot else ''}")
    if load.error:
        print(f"error: {load.error}")
    if isinstance(summary := load.context.get("summary"), dict):
        print(LoadSummary.from_json(summary).to_text(load.snapshot))
    for key, value in load.context.items():
        if key == "summary":
            continue
        print(f"  {key}: {json.dumps(value, default=str, ensure_ascii=False) if not isinstance(value, str) else value}")
    for receipt in receipts:
        print(f"contributed to {receipt.request.table} by {receipt.contributor}: {_contribution(receipt)}")
        for given in receipt.inputs:
            print(f"  {given.label} ({given.kind}, version {given.version[:16]})")
    for one in inputs:
        gone = f", replaced by load {one.replaced_by}" if one.replaced_by is not None else ""
        print(f"input {one.number} of {one.table}: {one.label} ({one.kind}, version {one.version[:16]}){gone}")
        print(
            f"  {one.rows_read:,} rows read, {one.rows_stored:,} stored, {one.rows_quarantined:,} quarantined, "
            f"{one.rows_filtered:,} filtered, {one.rows_skipped:,} skipped; sha256 {one.sha256[:16]}, {one.bytes:,} bytes"
        )


def _state(files: Store, load: Load) -> str:
    """Return the state, and for a load that has not ended whether somebody is at work on it."""
    if load.state in UNFINISHED and load.catalog:
        idle = Journal.of(files.root, load.catalog, load.id).is_idle()
        return f"{load.state.value}, {'nobody at work' if idle else 'at work'}"
    return load.state.value


def _receipts(files: Store, registry: Registry, load: Load) -> tuple[Receipt, ...]:
    return Transaction(load, registry, files).receipts() if load.state in UNFINISHED and load.catalog else ()


def _words(load: Load, inputs: Sequence[InputRecord], receipts: Sequence[Receipt]) -> dict[str, Any]:
    words = [{key: value for key, value in asdict(one).items() if key != "coverage"} for one in inputs]
    return {**asdict(load), "state": load.state.value, "inputs": words, "contributions": [one.to_json() for one in receipts]}


def _contribution(receipt: Receipt) -> str:
    count = len(receipt.inputs)
    return f"{count:,} input{'s' if count != 1 else ''}, {receipt.rows:,} rows, {receipt.bytes / 1e6:,.1f} MB"


def _tell_reports(reports: Sequence[LoadReport], *, as_json: bool) -> None:
    for report in reports:
        if as_json:
            print(json.dumps({"report": report.to_json()}, default=str), flush=True)
        else:
            tell(report.to_text())


@contextmanager
def _open(store: Path | None, load: str) -> Iterator[Transaction]:
    files, registry = open_store(needed(store))
    with registry:
        yield Transaction.open(load, registry, files)


def _progress(as_json: bool) -> AbstractContextManager[Progress]:
    return nullcontext(Meter(tell=JsonLines().tell)) if as_json else load_bars()


def _tell_summary(store: Path | None, load: str, *, as_json: bool) -> None:
    """Print the summary that is kept with a load; nothing where nothing was new."""
    if not load:
        return
    _, registry = open_store(needed(store))
    with registry:
        found = registry.load(load)
    words = found.context.get("summary")
    if not isinstance(words, dict):
        return
    if as_json:
        print(json.dumps({"summary": words | {"after": found.snapshot}}, default=str), flush=True)
    else:
        tell(LoadSummary.from_json(words).to_text(found.snapshot))
