"""One cross-match by another system in a process of its own, so that its processor time can be told.

    python -m bench.peers.crossmatch_once lsdb|pyacid OBJECT REFERENCE RADIUS_ARCSEC

OBJECT and REFERENCE are HATS collections. Prints JSON: rows, wall_s, cpu_s (of this process and its children) and the version.
Opening the catalogues and importing the library do not count; the result is in memory at the end: both ids and the separation.
All pairs within the radius are asked for.

`QENGINE_BENCH_THREADS` (2) is how many threads of Dask LSDB gets, and how many processes pyacid. pyacid 0.6.1 (Polars, matches by
HATS partition; it needs sqlglot < 31, so an environment of its own) finds the same 4,053,590 pairs of 2e7 x 5e6 rows, in 201 s of
wall time on two busy cores.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

THREADS = int(os.environ.get("QENGINE_BENCH_THREADS", "2"))


def match_lsdb(left: str, right: str, radius_arcsec: float) -> Callable[[], int]:
    """LSDB: its own crossmatch, up to 5 partners of a row, on Dask's threads."""
    import dask
    import lsdb

    dask.config.set(scheduler="threads", num_workers=THREADS)
    one = lsdb.open_catalog(left, columns=["objectId", "coord_ra", "coord_dec"])
    two = lsdb.open_catalog(right, columns=["refId", "ra", "dec"])

    def run() -> int:
        pairs = one.crossmatch(two, radius_arcsec=radius_arcsec, n_neighbors=5, suffixes=("_a", "_b"))
        return len(pairs.compute())

    return run


def match_pyacid(left: str, right: str, radius_arcsec: float) -> Callable[[], int]:
    """pyacid: XMATCH in its SQL, all pairs."""
    import acid

    text = (
        "SELECT a.objectId, b.refId, d FROM one AS a JOIN two AS b "
        f"ON XMATCH(radius_arcsec => {radius_arcsec}, mode => 'all', dist_col => 'd')"
    )
    database = acid.Connection({"one": {"path": left}, "two": {"path": right}}, workers=THREADS)

    def run() -> int:
        rows = int(database.sql(text).to_arrow().num_rows)
        # Processes of its own did the work, whose time is known when they have ended.
        database.close()
        return rows

    return run


def main(engine: str, left: str, right: str, radius_arcsec: str) -> None:
    """The command line."""
    run = {"lsdb": match_lsdb, "pyacid": match_pyacid}[engine](left, right, float(radius_arcsec))
    before, began = _cpu_s(), time.perf_counter()
    rows = run()
    wall = time.perf_counter() - began
    print(json.dumps({"rows": rows, "wall_s": wall, "cpu_s": _cpu_s() - before, "version": version(engine)}))


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    main(*sys.argv[1:])
