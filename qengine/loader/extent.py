"""How a load is cut so that it stays within its memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from qengine.loader.definition import Definition
from qengine.loader.request import LoadRequest
from qengine.loader.sources.source import Source

_TILE_BYTES = 512 << 20
_CHILD_PARTS = 4
"""A child's part may have as many times the rows of a tile."""
_MIN_MEMORY = 2 << 30
_COPIES = 4
"""A bucket is in memory as it was read, as it is sorted, and as it is encoded."""
_HIDDEN_BYTES = 16
_BUCKET_ROWS = 1_000_000
"""Columns of 8 MB: larger buffers go back to the system each time, and fresh pages cost more than the work on them."""
_VARIABLE_BYTES = 24
"""What a text or a list is taken for where nothing was read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a load of this width is cut: threads, rows of a tile, a part, an orphan part and a bucket, and bytes kept before
    spilling."""

    workers: int
    tile_rows: int
    part_rows: int
    bucket_rows: int
    spill_bytes: int

    @property
    def ahead(self) -> int:
        """Return how many batches may be under way."""
        return self.workers + 2


def limits(request: LoadRequest, sources: Sequence[Source], definition: Definition) -> Limits:
    """Return how to cut a load of these inputs so that it stays within its memory."""
    row_bytes = max((source.row_bytes for source in sources), default=_width(definition.columns)) + _HIDDEN_BYTES
    workers = request.workers or os.cpu_count() or 1
    memory = request.memory_bytes or max(_MIN_MEMORY, workers << 30)
    tile_rows = max(1, min(definition.rows_per_tile, _TILE_BYTES // row_bytes))
    part_rows = max(1, min(_CHILD_PARTS * definition.rows_per_tile, _TILE_BYTES // row_bytes))
    # A bucket may hold one tile; if many threads at one tile each are too much, there are fewer threads.
    workers = max(1, min(workers, (memory * 3 // 4) // (_COPIES * tile_rows * row_bytes)))
    bucket_rows = max(tile_rows, min(_BUCKET_ROWS, (memory * 3 // 4) // (_COPIES * workers * row_bytes)))
    return Limits(
        workers=workers, tile_rows=tile_rows, part_rows=part_rows if definition.director else tile_rows,
        bucket_rows=bucket_rows, spill_bytes=memory // 4,
    )  # fmt: skip


def _width(columns: pa.Schema) -> int:
    return sum(_VARIABLE_BYTES if not pa.types.is_primitive(one.type) else max(1, one.type.bit_width // 8) for one in columns)
