"""Buckets that are written already: the log of the writing stage.

A line says of a bucket which parts it has become and where copies of its rows for margins are kept; then its rows are not needed
any more. Parts are named by their digest, so what a line says is checked before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from qengine.catalog.model import Int64Array
from qengine.errors import IntegrityError
from qengine.loader.kept import written_of, written_words
from qengine.loader.margin import TILE
from qengine.loader.spill import Piece, scatter
from qengine.loader.stages import Sealed, Stages
from qengine.loader.write import Step
from qengine.storage.parts import verify_part

WRITE = "write"


class WriteLog:
    """The buckets that are written; `tile_bucket` is the bucket in which the margin of each tile is put together."""

    def __init__(self, stages: Stages, parts: Path, pool: ThreadPoolExecutor, tile_bucket: Int64Array) -> None:
        self._stages = stages
        self._parts = parts
        self._tile_bucket = tile_bucket
        lines = stages.lines(WRITE)
        whole = [line for line, is_whole in zip(lines, pool.map(self._check, lines), strict=True) if is_whole]
        self._lines = {int(line["bucket"]): line for line in whole}

    @property
    def known(self) -> frozenset[int]:
        """Return the buckets that are written."""
        return frozenset(self._lines)

    def begin(self) -> None:
        """Let the log hold just what was found to be whole."""
        self._stages.keep_lines(WRITE, self._lines.values())

    def step(self, bucket: int) -> Step:
        """Return what a bucket has become that is written."""
        line = self._lines[bucket]
        written = [written_of(one, self._parts) for one in line["written"]]
        pieces = self._pieces(self._stages.folder(line["margin"][0])) if line["margin"] is not None else []
        return Step(written, pieces, int(line["rows"]))

    def add(self, bucket: int, step: Step) -> Step:
        """Note that a bucket is written, and return the step with copies for margins at hand."""
        if bucket in self._lines:
            return step
        kept: list[Any] | None = None
        if step.copies is not None:
            one = self._stages.sealed(step.copies.path, step.copies.bytes, step.copies.digest)
            kept = [one.name, one.bytes, one.digest]
        elif step.margin:
            path = self._stages.folder(WRITE) / f"{bucket:06d}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, step.margin[0][1].schema) as writer:
                for _, rows in step.margin:
                    writer.write_batch(rows)
            one = self._stages.seal(path)
            kept = [one.name, one.bytes, one.digest]
        self._stages.add_line(
            WRITE, {"bucket": bucket, "rows": step.rows, "written": [written_words(one) for one in step.written], "margin": kept}
        )
        return step if step.copies is None else Step(step.written, self._pieces(step.copies.path), step.rows)

    def _pieces(self, path: Path) -> list[Piece]:
        """Return copies of rows by the bucket in which the margin of their tile is put together."""
        pieces: list[Piece] = []
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                pieces += scatter(batch, self._tile_bucket[batch.column(TILE).to_numpy()])
        return pieces

    def _check(self, line: dict[str, Any]) -> bool:
        kept: Sequence[Any] | None = line["margin"]
        if kept is not None and not self._stages.check([Sealed(*kept)]):
            return False
        return has_parts(written_of(one, self._parts).file.path for one in line["written"])


def has_parts(paths: Iterable[Path]) -> bool:
    """Say whether all of these parts are there, with the bytes that their names promise."""
    try:
        for path in paths:
            verify_part(path, path.stem)
    except IntegrityError:
        return False
    return True
