"""The answer to a query as an input of a load (CREATE TABLE AS).

The order of an answer's rows is not fixed, and a source is read twice; so the answer is written once, as an Arrow file in the
folder of the load, and read from there. Who runs the query is not known here: the rows are handed in. The version of such an input
is its statement together with the snapshots that it has read: the same question to the same data is loaded once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from qengine.catalog import durable
from qengine.errors import InputError
from qengine.loader.sources.arrow_ipc import ArrowSource
from qengine.loader.sources.file import Place
from qengine.loader.sources.source import QUERY, Source

_LABEL = 200


class Rows(Protocol):
    """The answer: its columns with units and descriptions, its batches, and what it says about itself.

    `is_overflow` is known when the batches have been read: a limit has cut the answer.
    """

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def statement(self) -> str: ...
    @property
    def snapshots(self) -> Mapping[str, int]: ...
    @property
    def is_overflow(self) -> bool: ...
    def __iter__(self) -> Iterator[pa.RecordBatch]: ...


def spool(rows: Rows, folder: Path, *, label: str = "") -> Source:
    """Write the answer into `folder` and return it as a source.

    Raise `InputError` if the answer was cut by a limit: a part of it must not become a table.
    """
    version = version_of(rows.statement, rows.snapshots)
    path = folder / f"query-{version[:16]}.arrow"
    folder.mkdir(parents=True, exist_ok=True)
    schema = rows.schema.remove_metadata()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with durable.writing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
            for batch in rows:
                if batch.num_rows:
                    writer.write_batch(batch.cast(schema))
        if rows.is_overflow:
            raise InputError("the answer was cut by a limit, so it is not loaded", hint="leave out MAXREC, or say TOP in the query")
    said = label or f"query {' '.join(rows.statement.split())}"[:_LABEL]
    return ArrowSource(Place(uri=str(path), label=said, kind=QUERY, version=version))


def version_of(statement: str, snapshots: Mapping[str, int]) -> str:
    """Return the version of an answer: a digest of the statement and the snapshots that it reads."""
    words = json.dumps([" ".join(statement.split()), sorted(snapshots.items())])
    return hashlib.sha256(words.encode()).hexdigest()
