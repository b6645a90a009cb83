"""One export of all sources to Parquet, in a process of its own, so that the peak of memory of its coordinator can be told.

    python -m bench.export_sources STORE OUT

prints JSON: rows, peak_mb, seconds. Two worker processes compute; their memory is theirs.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

import qengine

STATEMENT = "SELECT sourceId, objectId, coord_ra, coord_dec, psfFlux FROM bench.SourceAssoc"


def main(store: Path, out: Path) -> None:
    """Export and report."""
    began, rows = time.perf_counter(), 0
    with qengine.connect(store, workers=2) as client:
        result = client.query(STATEMENT)
        with pq.ParquetWriter(out, result.schema, compression="lz4") as writer:
            for batch in result.batches():
                writer.write_batch(batch)
                rows += batch.num_rows
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "peak_mb": peak_mb, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
