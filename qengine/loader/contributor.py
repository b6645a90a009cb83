"""Contributing to a loader on another machine: by addresses that it can read, or by sending the rows.

A Parquet or Arrow file is sent as it is; every other input as an Arrow IPC stream of its rows, with the label and version of
the original.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from qengine.loader.receipt import Receipt
from qengine.loader.request import LoadRequest
from qengine.loader.service import STREAMED
from qengine.loader.sources.source import Source
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
    for source in sources if sources is not None else open_inputs(request):
        with _as_file(source) as (path, form):
            stream = StreamWords(
                label=source.identity.label, version=source.version(), format=form, sha256=remote.sha256(str(path))
            )
            words = ContributionWords(
                load=load, request=_said(request), options={}, contributor=contributor or who(), stream=stream
            )
            receipts.append(Receipt.from_json(client.contribute(words, _chunks(path))))
    return tuple(receipts)


def _said(request: LoadRequest) -> Mapping[str, Any]:
    return {name: value for name, value in request.to_json().items() if name != "catalog"}


@contextmanager
def _as_file(source: Source) -> Iterator[tuple[Path, str]]:
    """Yield a file with the input's rows, and its format."""
    recipe = source.recipe
    if recipe.format in STREAMED and not recipe.options and not remote.is_remote(recipe.uri):
        yield Path(recipe.uri), recipe.format
        return
    with tempfile.TemporaryDirectory(prefix="qengine-contribute-") as folder:
        path = Path(folder) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, source.schema) as writer:
            for batch in source.batches(source.schema.names):
                writer.write_batch(batch.cast(source.schema))
        yield path, "arrow"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
