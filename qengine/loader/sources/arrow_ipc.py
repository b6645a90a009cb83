"""Arrow IPC as a loader source: files (also Feather) and streams, told apart by their first bytes.

Batches of any size are cut to the size that the loader reads at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from qengine.errors import InputError
from qengine.loader.sources.file import FileSource, Place, width_of
from qengine.loader.sources.source import batch_rows, checked_schema
from qengine.storage import remote

SUFFIXES = (".arrow", ".arrows", ".ipc", ".feather")
_MAGIC = b"ARROW1"


class ArrowSource(FileSource):
    """One Arrow file or stream. The rows of a stream are estimated by its size."""

    format = "arrow"

    def __init__(self, path: Place | Path | str) -> None:
        super().__init__(path)
        try:
            with remote.open_arrow(self._uri) as stream:
                self._is_file = stream.read(len(_MAGIC)) == _MAGIC
            with self._opened() as reader:
                self._schema = checked_schema(reader.schema)
                self._rows = self._count(reader)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.name}: not a readable Arrow file: {error}", hint="the file may be truncated") from error
        self._row_bytes = max(width_of(self._schema), self._status.bytes // max(self._rows, 1) if self._is_file else 1)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with the first row that cannot be read."""
        wanted = self._check_columns(columns)
        most, row = batch_rows(self._row_bytes), 0
        try:
            with self._opened() as reader:
                for batch in self._each(reader):
                    chosen = batch.select(wanted)
                    chosen.validate(full=True)  # the reader believes what the file says of its buffers
                    for start in range(0, chosen.num_rows, most):
                        yield chosen.slice(start, most)
                    row += batch.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.name}: cannot read past row {row + 1}: {error}", hint="the file may be damaged") from error

    @contextmanager
    def _opened(self) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
        with remote.open_arrow(self._uri) as stream:
            kind = pa.ipc.open_file if self._is_file else pa.ipc.open_stream
            with kind(stream) as reader:
                yield reader

    def _each(self, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
        if not self._is_file:
            yield from reader
            return
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    def _count(self, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> int:
        if not self._is_file:
            return int(self._status.bytes) // width_of(self._schema)
        # the headers of batches say how many rows they have; columns are mapped, not read
        return sum(batch.num_rows for batch in self._each(reader))
