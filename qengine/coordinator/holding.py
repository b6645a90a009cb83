"""Where the rows of one attempt wait until the attempt is complete and has been read.

They stay in memory up to a limit; beyond it, the whole attempt goes to an Arrow stream file in the coordinator's temporary
directory. Disk is touched in threads only.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa


class Holding:
    """Rows of one attempt: `add` them, then read them once with `batches`, or `discard` them."""

    def __init__(self, hold_bytes: int, directory: Path | None) -> None:
        self.rows = 0
        self.bytes = 0
        self._hold_bytes = hold_bytes
        self._directory = directory
        self._batches: list[pa.RecordBatch] = []
        self._path: Path | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    @property
    def is_on_disk(self) -> bool:
        """True when the rows outgrew memory."""
        return self._path is not None

    async def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        self._batches.append(batch)
        if self._writer is not None or self.bytes > self._hold_bytes:
            batches, self._batches = self._batches, []
            await asyncio.to_thread(self._write, batches)

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Yield all rows and forget them."""
        try:
            if self._path is None:
                while self._batches:
                    yield self._batches.pop(0)
                return
            reader = await asyncio.to_thread(self._open)
            while (batch := await asyncio.to_thread(_read, reader)) is not None:
                yield batch
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget all rows. May be called at any time, more than once."""
        self._batches = []
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, batches: list[pa.RecordBatch]) -> None:
        if self._writer is None:
            with tempfile.NamedTemporaryFile(dir=self._directory, prefix="attempt-", suffix=".arrows", delete=False) as file:
                self._path = Path(file.name)
            self._writer = pa.ipc.new_stream(str(self._path), batches[0].schema)
        for batch in batches:
            self._writer.write_batch(batch)

    def _open(self) -> pa.RecordBatchReader:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return pa.ipc.open_stream(pa.memory_map(str(self._path)))


def _read(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
