"""Parquet with VOParquet metadata, and the Arrow IPC stream that the Python client reads.

Parquet: row groups go out as they fill; the VOTable header (units, UCDs, overflow) is a key-value pair in the footer, so it
can say what was known only at the end. Arrow: columns are described in the schema's metadata, and an empty last batch carries
the status, so that a failure after the first rows reaches the reader as an error.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.output import HEADER_KEY, STATUS_KEY, to_arrow_schema
from qengine.errors import QEngineError
from qengine.tap.formats.votable import metadata_document
from qengine.tap.formats.writer import Flowing, ResultHeader

_ROW_GROUP_ROWS = 122_880


class _Sink:
    """A file that can only be written to; `take` empties it."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing waits anywhere else."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class ParquetWriter(Flowing):
    """Parquet, zstd, with the metadata of VOParquet 1.0."""

    def __init__(self, header: ResultHeader) -> None:
        self._header = header
        self._schema = to_arrow_schema(header.columns, header.schema)
        self._sink = _Sink()
        self._file = pq.ParquetWriter(pa.PythonFile(self._sink, "w"), self._schema, compression="zstd", compression_level=1)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def begin(self) -> bytes:
        return self._sink.take()

    def write(self, batch: pa.RecordBatch) -> bytes:
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        if self._waiting_rows >= _ROW_GROUP_ROWS:
            self._write_waiting()
        return self._sink.take()

    def finish(self, *, is_overflow: bool) -> bytes:
        self._write_waiting()
        document = metadata_document(self._header, is_overflow=is_overflow)
        self._file.add_key_value_metadata(
            {"IVOA.VOTable-Parquet.version": "1.0", "IVOA.VOTable-Parquet.content": document},
        )
        self._file.close()
        return self._sink.take()

    def fail(self, error: QEngineError) -> None:
        """Leave the file without a footer: no reader takes it for a whole one."""

    def _write_waiting(self) -> None:
        if self._waiting_rows:
            table = pa.Table.from_batches(self._waiting).cast(self._schema)
            self._file.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        self._waiting, self._waiting_rows = [], 0


class ArrowWriter(Flowing):
    """Arrow IPC stream."""

    def __init__(self, header: ResultHeader) -> None:
        about = {"statement": header.statement, "warnings": list(header.warnings), "snapshots": dict(header.snapshots)}
        described = to_arrow_schema(header.columns, header.schema)
        self._schema = described.with_metadata({HEADER_KEY: json.dumps(about).encode()})
        self._sink = _Sink()
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._sink, "w"), self._schema)

    def begin(self) -> bytes:
        return self._sink.take()

    def write(self, batch: pa.RecordBatch) -> bytes:
        if batch.num_rows:
            self._stream.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema))
        return self._sink.take()

    def finish(self, *, is_overflow: bool) -> bytes:
        return self._end({"is_overflow": is_overflow, "error": None})

    def fail(self, error: QEngineError) -> bytes:
        return self._end({"is_overflow": False, "error": error.to_json()})

    def _end(self, status: dict[str, object]) -> bytes:
        empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in self._schema], schema=self._schema)
        self._stream.write_batch(empty, custom_metadata={STATUS_KEY: json.dumps(status).encode()})
        self._stream.close()
        return self._sink.take()
