"""One load in a process of its own, so that its processor time and its peak of memory can be told.

    python -m bench.load_once qengine|duckdb|hats-import WORDS

WORDS is JSON: `inputs` (a list for each table of `tables`), `schema`, `out`, and for `qengine` more words of the `LoadRequest` in
`request`. Several tables are loaded in one transaction. Prints JSON: cpu_s and peak_mb (of this process and, for hats-import, of
its workers), wall_s.

`duckdb` is the bare engine: it sorts the same rows roughly by place and writes one file, without cells, keys, margins, statistics
or digests. `hats-import` is the importer of the LINCC Frameworks at its defaults, with a margin of `margin_arcsec`, on one worker
of Dask; it is no dependency of ours: QENGINE_BENCH_HATS_IMPORT names a folder that it was installed to (`pip install --no-deps
--target`).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

THREADS = 2

Words = Mapping[str, Any]


def load_qengine(words: Words) -> None:
    """Load and publish the tables in one transaction."""
    from qengine.loader.request import LoadRequest
    from qengine.loader.transaction import Transaction
    from qengine.opening import open_store

    store, registry = open_store(Path(words["out"]), create=True)
    with registry:
        transaction = Transaction.begin(words["catalog"], registry, store)
        for table, inputs in zip(words["tables"], words["inputs"], strict=True):
            more = dict(words.get("request", {}))
            paths = tuple(Path(one) for one in inputs)
            schema = words.get("schema") or None
            transaction.contribute(
                LoadRequest(inputs=paths, catalog=words["catalog"], table=table, schema=schema, workers=THREADS, **more)
            )
        transaction.commit()


def load_duckdb(words: Words) -> None:
    """Sort and write the only table."""
    out = Path(words["out"])
    config = {"threads": THREADS, "memory_limit": "3GB", "temp_directory": str(out / "temp")}
    files = [str(file) for one in words["inputs"][0] for file in sorted(Path(one).glob("*.parquet"))]
    with duckdb.connect(config=config) as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_parquet({files}) ORDER BY tract, patch, coord_dec) "
            f"TO '{out}/sorted.parquet' (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 65536)"
        )


def load_hats_import(words: Words) -> None:
    """Import the only table with a margin."""
    sys.path.append(os.environ["QENGINE_BENCH_HATS_IMPORT"])
    from dask.distributed import Client, LocalCluster
    from hats_import import CollectionArguments
    from hats_import.collection.run_import import run

    files = [str(file) for one in words["inputs"][0] for file in sorted(Path(one).glob("*.parquet"))]
    arguments = (
        CollectionArguments(output_artifact_name=words["tables"][0], output_path=words["out"], progress_bar=False)
        .catalog(
            input_file_list=files, file_reader="parquet", ra_column=words["ra"], dec_column=words["dec"], progress_bar=False,
        )
        .add_margin(margin_threshold=float(words["margin_arcsec"]), progress_bar=False)
    )  # fmt: skip
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        run(arguments, client)


LOADERS: Mapping[str, Callable[[Words], None]] = {
    "qengine": load_qengine,
    "duckdb": load_duckdb,
    "hats-import": load_hats_import,
}


def _peak_kb() -> int:
    # Not ru_maxrss: that of a process begins with what its parent had.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main(program: str, text: str) -> None:
    """The command line."""
    began = time.perf_counter()
    LOADERS[program](json.loads(text))
    wall = time.perf_counter() - began
    mine, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "cpu_s": mine.ru_utime + mine.ru_stime + others.ru_utime + others.ru_stime,
        "peak_mb": max(_peak_kb(), others.ru_maxrss) / 1024,
        "wall_s": wall,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
