"""Contributing to a loader on another machine: by addresses that it can read, or by sending the rows.

A Parquet or Arrow file is sent as it is; so is a text (CSV), because its types are those of the table, which the loader knows;
where it is a new table, they are those that all texts agree on, which go with them. Every other input is sent as an Arrow IPC
stream of its rows, with the label and version of the original.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from qengine.loader.receipt import Receipt
from qengine.loader.request import LoadRequest
from qengine.loader.service import CSV, STREAMED
from qengine.loader.sources.csv import COMPRESSIONS, CsvSource
from qengine.loader.sources.source import Source, packed
from qengine.loader.transaction import open_inputs, who
from qengine.storage import remote
from qengine.transport.loader_client import LoaderClient
from qengine.transport.loader_server import ContributionWords, StreamWords

_CHUNK_BYTES = 1 << 20


def contribute_addresses(client: LoaderClient, load: str, request: LoadRequest, *, contributor: str = "") -> Receipt:
    """Add inputs that the loader can read where they are, and return the receipt."""
    uris = tuple(str(one) if remote.is_remote(str(one)) else str(Path(one).absolute()) for one in request.inputs)
    words = ContributionWords(
        load=load, request=_said(request), options=asdict(request.options), contributor=contributor or who(), uris=uris
    )
    return Receipt.from_json(client.contribute(words, iter(())))


def contribute_rows(
    client: LoaderClient, load: str, request: LoadRequest, sources: Sequence[Source] | None = None, *, contributor: str = ""
) -> tuple[Receipt, ...]:
    """Send the inputs (`sources`, or those that `request` names) and return their receipts, one each."""
    receipts = []
    for source in sources if sources is not None else open_inputs(request, needs_types=False):
        with _as_file(source) as (path, form):
            stream = StreamWords(
                label=source.identity.label, version=source.version(), format=form, sha256=remote.sha256(str(path))
            )
            words = ContributionWords(
                load=load, request=_said(request), options=_read_as(source, request), contributor=contributor or who(),
                stream=stream,
            )  # fmt: skip
            receipts.append(Receipt.from_json(client.contribute(words, _chunks(path))))
    return tuple(receipts)


def _said(request: LoadRequest) -> Mapping[str, Any]:
    return {name: value for name, value in request.to_json().items() if name != "catalog"}


def _read_as(source: Source, request: LoadRequest) -> Mapping[str, Any]:
    """Return what the loader has to know of an input besides its bytes: of a text, how it is cut, and the types that were seen."""
    if not isinstance(source, CsvSource):
        return {}
    seen = pa.schema([each for each in source.schema if each.name not in source.undetermined])
    return {"csv": asdict(request.options.csv), "types": packed(seen)}


@contextmanager
def _as_file(source: Source) -> Iterator[tuple[Path, str]]:
    """Yield a file with the input's rows, and its format."""
    recipe = source.recipe
    if recipe.format in STREAMED and not recipe.options and not remote.is_remote(recipe.uri):
        yield Path(recipe.uri), recipe.format
        return
    with tempfile.TemporaryDirectory(prefix="qengine-contribute-") as folder:
        if recipe.format == CSV:
            form = CSV + next((suffix for suffix in COMPRESSIONS if recipe.uri.lower().endswith(suffix)), "")
            yield _fetched(recipe.uri, Path(folder)), form
            return
        path = Path(folder) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, source.schema) as writer:
            for batch in source.batches(source.schema.names):
                writer.write_batch(batch.cast(source.schema))
        yield path, "arrow"


def _fetched(uri: str, folder: Path) -> Path:
    if not remote.is_remote(uri):
        return Path(uri)
    path = folder / "text"
    with remote.open_bytes(uri) as stream, path.open("wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK_BYTES)
    return path


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
