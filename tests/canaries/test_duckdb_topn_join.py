"""A join over `ORDER BY .. LIMIT` of Arrow rows, which DuckDB 1.5.6 gets wrong in one of four runs with two threads."""

from __future__ import annotations

import random

import pyarrow as pa

from qengine.execution.duck import EngineSettings
from qengine.execution.tables import TableEngine

STATEMENT = "SELECT a.k FROM (SELECT k, v, rank FROM r1 ORDER BY rank ASC NULLS LAST LIMIT 1) AS a JOIN r0 AS b ON a.k = b.k"


def test_first_row_is_chosen_before_the_join() -> None:
    engine = TableEngine(EngineSettings(threads=2))
    try:
        for seed in range(150):
            keys = list(range(12))
            random.Random(seed).shuffle(keys)
            engine.show("r1", pa.table({"k": keys, "rank": pa.array(keys, pa.int32()), "v": [float(k) for k in keys]}))
            engine.show("r0", pa.table({"k": list(range(3, 9))}))
            assert engine.stream(STATEMENT).read_all().num_rows == 0
            engine.reset()
    finally:
        engine.close()
