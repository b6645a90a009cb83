"""How much memory does a large export take, and what do slow and early leavers do? One run, figures on standard output.

    python -m bench.export_once --rows 1e7 [--workers 2] [--keep DIR]

1. A table of stars is loaded, and a replicated table that multiplies its rows to what was asked for (each task makes its share, so
   that the rows are not on the coordinator before they are sent).
2. `qengine query .. --format parquet -o FILE` exports all rows; that process hosts the coordinator. Its peak memory and that of its
   workers is read from /proc.
3. `qengine serve` sends the same rows to a reader of 2 MB/s: the coordinator's memory must not grow while it waits. Then the reader
   leaves, and all workers must be idle within seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import TableKind
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store

STARS = 500_000
STATEMENT = "SELECT s.id, s.ra, s.dec, s.mag, c.copy FROM big.stars s, big.copies c"
SLOW_BYTES_PER_S = 2_000_000
SLOW_S = 15.0


def main() -> None:
    """Run everything and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="directory for store and output, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qengine-export-") as temporary:
        folder = options.keep or Path(temporary)
        store = prepare(folder, int(options.rows))
        print(json.dumps({"export": export(store, folder, options.workers), "slow": slow(store, options.workers)}, indent=2))


def prepare(folder: Path, rows: int) -> Path:
    """Load the two tables into a new store, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "store"
    if store.is_dir():
        return store
    generator = np.random.default_rng(1)
    stars = min(rows, STARS)
    pq.write_table(
        pa.table(
            {
                "id": np.arange(stars),
                "ra": generator.uniform(0, 360, stars),
                "dec": np.degrees(np.arcsin(generator.uniform(-1, 1, stars))),
                "mag": generator.uniform(10, 25, stars),
            }
        ),
        folder / "stars.parquet",
    )
    pq.write_table(pa.table({"copy": np.arange(max(1, rows // stars))}), folder / "copies.parquet")
    files, registry = open_store(store, create=True)
    with registry:
        load(
            LoadRequest(
                inputs=(folder / "stars.parquet",), catalog="big", table="stars", key="id", ra="ra", dec="dec", rows_per_tile=20_000
            ),
            registry,
            files,
        )
        load(
            LoadRequest(inputs=(folder / "copies.parquet",), catalog="big", table="copies", kind=TableKind.REPLICATED),
            registry,
            files,
        )
    return store


def export(store: Path, folder: Path, workers: int) -> dict[str, float]:
    """Export through the command line; return rows, seconds, and peak memory."""
    output = folder / "export.parquet"
    command = [sys.executable, "-m", "qengine.cli", "query", STATEMENT, "--store", str(store), "--workers", str(workers)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--format", "parquet", "-o", str(output)], stderr=subprocess.PIPE, text=True)
    memory = Memory(process.pid)
    _, said = process.communicate()
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(said)
    rows = pq.read_metadata(output).num_rows
    size = output.stat().st_size
    output.unlink()
    return {"rows": rows, "seconds": seconds, "rows_per_s": rows / seconds, "file_bytes": size, **memory.peaks()}


def slow(store: Path, workers: int) -> dict[str, float]:
    """Read slowly from a service, then leave; return how its memory grew, and how soon all workers were idle."""
    command = [sys.executable, "-m", "qengine.cli", "serve", "--store", str(store), "--workers", str(workers), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+/tap", said := process.stderr.readline())
        if found is None:
            raise SystemExit(said + process.stderr.read())
        fields = {"LANG": "ADQL", "QUERY": STATEMENT, "RESPONSEFORMAT": "arrow", "MAXREC": "100000000"}
        response = urllib.request.urlopen(f"{found[0]}/sync", data=urllib.parse.urlencode(fields).encode())
        response.read(SLOW_BYTES_PER_S)
        time.sleep(3)
        before, read = rss(process.pid), 0
        until = time.monotonic() + SLOW_S
        largest = before
        while time.monotonic() < until:
            read += len(response.read(SLOW_BYTES_PER_S // 10))
            time.sleep(0.1)
            largest = max(largest, rss(process.pid))
        state = json.loads(urllib.request.urlopen(f"{found[0]}/progress").read())["queries"]
        response.close()
        left = time.monotonic()
        while json.loads(urllib.request.urlopen(f"{found[0]}/progress").read())["queries"] or spooled(process.pid):
            if time.monotonic() - left > 60:
                raise SystemExit("a minute after the reader has left, the query or its spools are still there")
            time.sleep(0.05)
        return {
            "read_bytes": read,
            "fraction_told": state[0]["fraction"] if state else 1.0,
            "coordinator_before_mb": before / 1e6,
            "coordinator_largest_mb": largest / 1e6,
            "idle_after_s": time.monotonic() - left,
        }
    finally:
        process.terminate()
        process.wait(30)


class Memory:
    """Watches the peak resident memory of a process and of all below it, until it ends."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while Path(f"/proc/{self._pid}").exists():
            for pid in below(self._pid):
                self._peaks[pid] = max(self._peaks.get(pid, 0), rss(pid, "VmHWM"))
            time.sleep(0.1)

    def peaks(self) -> dict[str, float]:
        """Return the peaks of the process itself and of the largest one below it, in MB."""
        others = [peak for pid, peak in self._peaks.items() if pid != self._pid]
        return {"coordinator_peak_mb": self._peaks.get(self._pid, 0) / 1e6, "largest_worker_peak_mb": max(others, default=0) / 1e6}


def rss(pid: int, name: str = "VmRSS") -> int:
    """Return a figure of a process's memory in bytes, 0 if it has ended."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def below(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def spooled(pid: int) -> int:
    """Return how many spool files processes below `pid` hold open or have in their directories."""
    count = 0
    for one in below(pid):
        for link in Path(f"/proc/{one}/fd").glob("*") if Path(f"/proc/{one}/fd").is_dir() else ():
            try:
                count += "spool" in os.readlink(link)
            except OSError:
                continue
    return count


if __name__ == "__main__":
    main()
