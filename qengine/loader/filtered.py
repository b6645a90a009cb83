"""Rows that a load leaves out: those for which a condition is not true. They are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from qengine.catalog.model import Int64Array
from qengine.errors import ConfigError, QEngineError
from qengine.execution.duck import DuckEngine, EngineSettings
from qengine.loader.fit import Fitted
from qengine.loader.sources.source import Identity, Recipe

_ROWS = "rows"
_KEPT = "qengine_kept"


class Filtered:
    """An input without the rows for which `condition`, SQL over its columns, is not true. After a pass `left_out` says how many."""

    def __init__(self, inner: Fitted, condition: str) -> None:
        self.inner = inner
        self.condition = condition
        self.left_out = 0

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def schema(self) -> pa.Schema:
        return self.inner.schema

    @property
    def rows(self) -> int:
        return self.inner.rows

    @property
    def row_bytes(self) -> int:
        return self.inner.row_bytes

    @property
    def identity(self) -> Identity:
        return self.inner.identity

    @property
    def recipe(self) -> Recipe:
        return self.inner.recipe

    def sha256(self) -> str:
        return self.inner.sha256()

    def version(self) -> str:
        return self.inner.version()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that stay. Raise `ConfigError` if the condition cannot be understood."""
        for rows, _ in self.placed(columns):
            yield rows

    def placed(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, Int64Array]]:
        """Yield the rows that stay, and their places in the input."""
        own = self.inner.inner.schema.names
        used = [name for name in dict.fromkeys((*self.inner.schema.names, *own)) if name.lower() in self.condition.lower()]
        wanted = list(dict.fromkeys((*columns, *used)))
        left_out = place = 0
        engine = DuckEngine(EngineSettings(threads=1))
        try:
            for rows in self.inner.batches(wanted):
                engine.register(_ROWS, pa.Table.from_batches([rows]))
                try:
                    sql = f"SELECT coalesce(({self.condition}), false) AS {_KEPT} FROM {_ROWS}"
                    kept = (
                        pa.concat_arrays([batch.column(0) for batch in engine.stream(sql)])
                        if rows.num_rows
                        else pa.array([], pa.bool_())
                    )
                except QEngineError as error:
                    raise ConfigError(
                        f"--filter {self.condition!r}: {error.message}", hint="write a condition over columns"
                    ) from error
                finally:
                    engine.unregister(_ROWS)
                stays = rows.filter(kept)
                left_out += rows.num_rows - stays.num_rows
                yield stays.select(list(columns)), np.flatnonzero(kept.to_numpy(zero_copy_only=False)) + place
                place += rows.num_rows
        finally:
            engine.close()
        self.left_out = left_out
