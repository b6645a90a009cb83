"""Where the rows of one attempt wait until the attempt is complete and has been read.

They stay in memory up to a limit; beyond it, the whole attempt goes to an Arrow stream file in the coordinator's temporary
directory. The file has no name from the moment it is open, so it never outlives the process. Disk is touched in threads only; a
thread may still be writing when the rows are discarded, and then it is the thread that closes the file.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections import deque
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
        self._batches: deque[pa.RecordBatch] = deque()
        self._file: _StreamFile | None = None

    @property
    def is_on_disk(self) -> bool:
        """True when the rows outgrew memory."""
        return self._file is not None

    async def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        self._batches.append(batch)
        if self.bytes > self._hold_bytes:
            if self._file is None:
                self._file = _StreamFile(self._directory)
            batches, self._batches = self._batches, deque()
            await asyncio.to_thread(self._file.write, batches)

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Yield all rows and forget them."""
        try:
            while self._file is not None and (batch := await asyncio.to_thread(self._file.read)) is not None:
                yield batch
            while self._batches:
                yield self._batches.popleft()
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget all rows. May be called at any time, more than once."""
        self._batches.clear()
        if self._file is not None:
            self._file.close()


class _StreamFile:
    """An Arrow stream in a file without a name. `write` and `read` run in threads, one at a time; `close` at any moment."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._is_busy = False
        self._is_closed = False
        self._sink: pa.NativeFile | None = None
        self._source: pa.NativeFile | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._reader: pa.RecordBatchStreamReader | None = None

    def write(self, batches: deque[pa.RecordBatch]) -> None:
        if self._enter():
            try:
                writer = self._writer or self._open(batches[0].schema)
                for batch in batches:
                    writer.write_batch(batch)
            finally:
                self._leave()

    def read(self) -> pa.RecordBatch | None:
        if not self._enter():
            return None
        try:
            if self._reader is None:
                if self._writer is not None and self._sink is not None:
                    self._writer.close()
                    self._sink.close()
                self._reader = pa.ipc.open_stream(self._source)
            return self._reader.read_next_batch()
        except StopIteration:
            return None
        finally:
            self._leave()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if not self._is_busy:
                self._clean()

    def _open(self, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        handle, path = tempfile.mkstemp(dir=self._directory, prefix="qengine-attempt-")
        try:
            os.close(handle)
            self._sink = pa.OSFile(path, "wb")
            self._source = pa.OSFile(path, "rb")
        finally:
            os.unlink(path)
        self._writer = pa.ipc.new_stream(self._sink, schema)
        return self._writer

    def _enter(self) -> bool:
        with self._lock:
            self._is_busy = not self._is_closed
            return self._is_busy

    def _leave(self) -> None:
        with self._lock:
            self._is_busy = False
            if self._is_closed:
                self._clean()

    def _clean(self) -> None:
        self._writer = self._reader = None
        for file in (self._sink, self._source):
            if file is not None:
                file.close()
