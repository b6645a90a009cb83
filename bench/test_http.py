"""A hundred clients at once with small queries: requests per second, CPU of the service for each, the slowest, and its memory.

The service is `qengine serve` with one worker over the stars of the demonstration; the clients are connections of one process on
the same machine that send cones of an arc minute one after the other, each around another star. Every answer is checked to be
whole. QENGINE_BENCH_REQUESTS is how many are sent (default 4,000). They are sent in five parts, and the memory after the last must
be about what it was after the first.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from rich.console import Console

from qengine.demo import gaia_table, prepare

CLIENTS = 100
REQUESTS = int(float(os.environ.get("QENGINE_BENCH_REQUESTS", "4000")))
TARGETS = {"requests_per_s": 80, "cpu_ms": 15, "p99_s": 2.0}
PARTS, GROWTH = 5, 1.15
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Service:
    """A running service: where it is, and its processes."""

    url: str
    pid: int

    def processes(self) -> list[int]:
        children = [int(pid) for task in Path(f"/proc/{self.pid}/task").glob("*/children") for pid in task.read_text().split()]
        return [self.pid, *children]

    def shares(self) -> list[float]:
        """CPU seconds of each process so far: of the coordinator, then of the worker."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.processes()]
        return [(int(one[11]) + int(one[12])) * _TICK_S for one in fields]

    def cpu_s(self) -> float:
        return sum(self.shares())

    def memory_mb(self) -> float:
        return sum(int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) for pid in self.processes()) / 1e3  # type: ignore[index]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("http")
    prepare(folder / "store", Console(quiet=True))
    command = [sys.executable, "-m", "qengine.cli", "serve", "--store", str(folder / "store"), "--port", "0", "--workers", "1"]
    # All clients have one address here, so that their limit would be what is measured.
    settings = {**os.environ, "QENGINE_LIMITS__ANONYMOUS": "rows=1e6", "QENGINE_HTTP__LOG": "json"}
    log = folder / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out, stdout=out, env=settings)
        try:
            deadline = time.monotonic() + 60
            while (found := re.search(r"TAP at (http://\S+/tap)", log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield Service(found[1], process.pid)
        finally:
            process.terminate()
            process.wait(30)


def requests(url: str, count: int) -> list[bytes]:
    """Return requests as bytes, each of another cone."""
    stars = gaia_table()
    chosen = np.random.default_rng(3).integers(0, stars.num_rows, count)
    place = urlsplit(url)
    made = []
    for ra, dec in zip(stars["ra"].to_numpy()[chosen], stars["dec"].to_numpy()[chosen], strict=True):
        text = f"SELECT source_id, ra, dec, mag FROM demo.gaia WHERE CONTAINS(POINT(ra, dec), CIRCLE({ra}, {dec}, 1 / 60.0)) = 1"
        body = urlencode({"LANG": "ADQL", "QUERY": text}).encode()
        head = (
            f"POST {place.path}/sync HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def client(url: str, waiting: list[bytes], took: list[float]) -> None:
    """Send requests on one connection as long as there are any; each must be answered whole."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    while waiting:
        request = waiting.pop()
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        body = b""
        if b"transfer-encoding: chunked" in head.lower():
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head.lower())[1]))  # type: ignore[index]
        took.append(time.perf_counter() - began)
        assert b'value="OK"' in body, body
        assert body.endswith(b"</VOTABLE>\n"), body[-200:]
    writer.close()


def send(url: str, made: list[bytes]) -> list[float]:
    """Send all requests, and return how long each took."""
    took: list[float] = []

    async def run() -> None:
        await asyncio.gather(*(client(url, waiting, took) for _ in range(CLIENTS)))

    waiting = list(made)
    asyncio.run(run())
    return took


@pytest.mark.timeout(0)
def test_small_queries(benchmark: Any, service: Service) -> None:
    made = requests(service.url, REQUESTS)
    send(service.url, made[: 5 * CLIENTS])
    memory_mb = [service.memory_mb()]

    def send_all() -> list[float]:
        took: list[float] = []
        for part in np.array_split(np.arange(len(made)), PARTS):
            took += send(service.url, [made[i] for i in part])
            memory_mb.append(service.memory_mb())
        return took

    cpu_s, began = service.cpu_s(), time.perf_counter()
    took = benchmark.pedantic(send_all, rounds=1)
    seconds = time.perf_counter() - began
    benchmark.extra_info |= {
        "requests_per_s": round(len(took) / seconds, 1),
        "cpu_ms": round(1e3 * (service.cpu_s() - cpu_s) / len(took), 2),
        "p50_s": round(float(np.quantile(took, 0.5)), 3),
        "p99_s": round(float(np.quantile(took, 0.99)), 3),
        "cpu_s_of_processes": service.shares(),
        "memory_mb": [round(one, 1) for one in memory_mb],
        "targets": TARGETS,
    }
    assert len(took) == len(made)
    assert memory_mb[-1] < GROWTH * memory_mb[1], memory_mb
