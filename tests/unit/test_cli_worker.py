"""`qengine serve --worker`: a coordinator over workers that run already."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.client.remote import RemoteClient


def start(*arguments: str, pattern: str) -> tuple[subprocess.Popen[str], str]:
    """Start a verb and return it with what the first line that matches says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qengine.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return process, found[1]
    raise AssertionError(f"qengine {arguments[0]} ended with {process.wait()}")


def test_serve_uses_running_workers(tmp_path: Path) -> None:
    rows = pa.table({"id": list(range(100)), "ra": [i * 3.6 for i in range(100)], "dec": [i * 1.5 - 75 for i in range(100)]})
    pq.write_table(rows, tmp_path / "in.parquet")
    store = str(tmp_path / "store")
    load = ["load", str(tmp_path / "in.parquet"), "--store", store, "--into", "my", "--table", "t", "--key", "id"]
    subprocess.run([sys.executable, "-m", "qengine.cli", *load], check=True, capture_output=True)
    started = []
    try:
        for _ in range(2):
            started.append(start("worker", "--store", store, pattern=r"listening on (\S+)"))
        workers = [option for _, address in started for option in ("--worker", address)]
        served = start("serve", "--store", store, "--port", "0", *workers, pattern=r"TAP at (\S+)/tap, answered by 2 workers")
        started.append(served)
        with RemoteClient(served[1]) as client:
            assert client.query("SELECT COUNT(*) AS n FROM my.t WHERE id >= 10").to_arrow().to_pylist() == [{"n": 90}]
    finally:
        for process, _ in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process, _ in started:
            process.wait(timeout=20)
