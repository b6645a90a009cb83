"""One load of Object in a process of its own, so that its processor time and its peak of memory can be told.

    python -m bench.load_once qengine|duckdb INPUTS OUT

prints JSON: cpu_s, peak_mb, wall_s. `duckdb` is the bare engine: it sorts the same rows roughly by place and writes one file,
without cells, keys, margins, statistics or digests.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import duckdb

from bench.datagen import CATALOG
from qengine.app import open_store
from qengine.loader.load import load
from qengine.loader.request import LoadRequest

THREADS = 2


def load_qengine(inputs: Path, out: Path) -> None:
    """Load and publish Object."""
    store, registry = open_store(out, create=True)
    request = LoadRequest(
        inputs=(inputs / "Object",), catalog=CATALOG, table="Object", schema=inputs / "schema.yaml", workers=THREADS
    )
    with registry:
        load(request, registry, store)


def load_duckdb(inputs: Path, out: Path) -> None:
    """Sort and write Object."""
    config = {"threads": THREADS, "memory_limit": "3GB", "temp_directory": str(out / "temp")}
    with duckdb.connect(config=config) as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_parquet('{inputs}/Object/*.parquet') ORDER BY tract, patch, coord_dec) "
            f"TO '{out}/sorted.parquet' (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 65536)"
        )


def main(engine: str, inputs: str, out: str) -> None:
    """The command line."""
    began = time.perf_counter()
    {"qengine": load_qengine, "duckdb": load_duckdb}[engine](Path(inputs), Path(out))
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "wall_s": time.perf_counter() - began,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
