"""A loader as a service: transactions for contributors on other machines (`transport.loader_server` brings their calls).

Inputs come by address, if the loader can read it, or as bytes. Bytes are kept in the journal of the load, under the label of
the input, once they have come as a whole and are what was announced; so a contributor that was cut off says it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qengine.catalog import durable
from qengine.catalog.loads import Load
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError, InputError, IntegrityError
from qengine.loader.definition import declared_types
from qengine.loader.request import LoadRequest
from qengine.loader.sources.csv import COMPRESSIONS, CsvOptions, CsvSource
from qengine.loader.sources.file import Place
from qengine.loader.sources.open import InputOptions, reopen
from qengine.loader.sources.source import STREAM, Recipe, Source, unpacked
from qengine.loader.transaction import Transaction
from qengine.storage.objects import Store
from qengine.transport.loader_server import ContributionWords, LoadWords, StreamWords, Telling

STREAMED = ("arrow", "parquet")
"""Formats with types of their own, of which bytes may be sent."""

CSV = "csv"
"""Texts may be sent, too, as this or with the suffix of their compression."""

_TEXTS = (CSV, *(CSV + suffix for suffix in COMPRESSIONS))


class Loader:
    """Serves the loads of one store. All methods may be called from several threads."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store

    def begin(self, catalog: str, context: Mapping[str, Any]) -> LoadWords:
        """Begin a load."""
        return _words(Transaction.begin(catalog, self._registry, self._store, context=context).load)

    def contribute(self, words: ContributionWords, data: Iterator[bytes]) -> Mapping[str, Any]:
        """Add inputs to a load and return the receipt."""
        begun = self._open(words.load)
        request = LoadRequest.from_json(
            {**words.request, "catalog": begun.load.catalog, "inputs": words.uris, "options": _options(words.options)}
        )
        if words.stream is None:
            return begun.contribute(request, contributor=words.contributor).to_json()
        path = _keep(begun, request.table, words.stream, data)
        source = _opened(path, words.stream, begun, request, words.options)
        return begun.contribute(request, [source], contributor=words.contributor).to_json()

    def commit(self, load: str, wait_s: float, tell: Telling) -> tuple[LoadWords, Sequence[Mapping[str, Any]]]:
        """Publish a load and return it with its reports."""
        done = self._open(load).commit(progress=tell, wait_s=wait_s)
        return _words(done.load), [report.to_json() for report in done.reports]

    def abort(self, load: str, why: str) -> LoadWords:
        """End a load without publishing."""
        begun = self._open(load)
        begun.abort(why)
        return _words(begun.load)

    def find(self, load: str) -> LoadWords:
        """Return what state a load is in."""
        return _words(self._registry.load(load))

    def _open(self, load: str) -> Transaction:
        return Transaction.open(load, self._registry, self._store)


def _keep(begun: Transaction, table: str, stream: StreamWords, data: Iterator[bytes]) -> Path:
    """Write the bytes of an input into the journal and return where."""
    form = stream.format or STREAMED[0]
    if form not in (*STREAMED, *_TEXTS):
        raise ConfigError(f"{form} cannot be sent as bytes", hint=f"send {' or '.join((*STREAMED, CSV))}, or name an address")
    if not stream.label:
        raise InputError("an input whose bytes are sent needs a label")
    begun.check_open()
    name = hashlib.sha256(stream.label.encode()).hexdigest()[:32]
    digest = hashlib.sha256()
    path = begun.journal.staged(table) / f"{name}-{stream.sha256[:16]}.{form}"
    with durable.writing(path) as temporary:
        with temporary.open("wb") as file:
            for chunk in data:
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != stream.sha256:
            raise IntegrityError(f"{stream.label}: the bytes that came are not those that were announced", hint="send it again")
    return path


def _opened(path: Path, stream: StreamWords, begun: Transaction, request: LoadRequest, said: Mapping[str, Any]) -> Source:
    """Return bytes that have come as a source. A text is read with the types of the table; of columns that it does not have, with
    those that the contributor has seen."""
    form = stream.format or STREAMED[0]
    if form not in _TEXTS:
        return reopen(Recipe(format=form, uri=str(path), label=stream.label, kind=STREAM, version=stream.version))
    seen = {each.name: each.type for each in unpacked(said["types"])} if "types" in said else {}
    types = {**seen, **(declared_types(request) or begun.types(request))}
    place = Place(uri=str(path), label=stream.label, kind=STREAM, version=stream.version)
    source = CsvSource(place, types=types, options=_options(said).csv)
    if not source.rows and source.undetermined.issuperset(source.schema.names):
        raise InputError(
            f"{source.name}: there are no rows, so that nothing says what types its columns are of",
            hint="declare them with --schema",
        )
    return source


def _options(words: Mapping[str, Any]) -> InputOptions:
    found = {name: value for name, value in words.items() if name != "types"}
    text: dict[str, Any] = {**found.pop("csv", {})}
    for name, value in text.items():
        text[name] = tuple(value) if isinstance(value, list) else value
    csv = CsvOptions(**text)
    return InputOptions(csv=csv, **found)


def _words(load: Load) -> LoadWords:
    return LoadWords(
        id=load.id, number=load.number, catalog=load.catalog, state=load.state.value, snapshot=load.snapshot, error=load.error
    )
