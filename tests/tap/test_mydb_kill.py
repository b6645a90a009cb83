"""kill -9 of the service while tables are made: every job ends with its table, whole and once; no table is there in part."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.user_tables import UserTables
from qengine.cli import run
from qengine.opening import open_store

# a job that was lost five times is not tried again
STARS, JOBS, KILLS = 200_000, 6, 4


class Service:
    """`qengine serve` as a process."""

    def __init__(self, store: Path, log: Path) -> None:
        command = [sys.executable, "-m", "qengine.cli", "serve", "--store", str(store), "--workers", "0", "--port", "0"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ})
        deadline = time.monotonic() + 60
        while (found := re.search(r"TAP at (\S+),", log.read_text())) is None:
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.url = found[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.slow
def test_every_job_ends_with_its_table(tmp_path: Path) -> None:
    rng, chance = np.random.default_rng(1), random.Random(8)
    ra, dec = rng.uniform(0, 360, STARS), np.degrees(np.arcsin(rng.uniform(-1, 1, STARS)))
    pq.write_table(pa.table({"id": np.arange(STARS), "ra": ra, "dec": dec}), tmp_path / "stars.parquet")
    store = tmp_path / "store"
    words = ["--table", "stars", "--key", "id", "--ra", "ra", "--dec", "dec", "--rows-per-tile", "20000"]
    assert run(["load", str(tmp_path / "stars.parquet"), "--store", str(store), "--into", "sky", *words]) == 0
    with open_store(store)[1] as registry:
        token = registry.users.create_token(registry.users.add("ann").name)[0]
    headers = {"authorization": f"Bearer {token}"}
    service = Service(store, tmp_path / "log-0")
    jobs = {}
    try:
        with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
            for number in range(JOBS):
                text = f"SELECT id, ra, dec INTO mydb.t{number} FROM sky.stars WHERE MOD(id, {JOBS}) = {number}"
                data = {"LANG": "ADQL", "QUERY": text, "PHASE": "RUN", "RESPONSEFORMAT": "csv"}
                jobs[number] = client.post(f"{service.url}/async", data=data).headers["location"].rpartition("/")[2]
            for kill in range(KILLS):
                time.sleep(chance.uniform(0.1, 2.0))
                service.kill()
                service = Service(store, tmp_path / f"log-{kill + 1}")
            expected = {number: len(range(number, STARS, JOBS)) for number in range(JOBS)}
            deadline = time.monotonic() + 120
            for number, job in jobs.items():
                address = f"{service.url}/async/{job}"
                while (phase := client.get(f"{address}/phase").text) in ("QUEUED", "EXECUTING") and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert phase == "COMPLETED", client.get(f"{address}/error").text
                assert f'"mydb.t{number}",{expected[number]},' in client.get(f"{address}/results/result").text
                text = f"SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS m FROM mydb.t{number}"
                data = {"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv"}
                found = client.get(f"{service.url}/sync", params=data).text.split()
                assert found == ["n,m", f"{expected[number]},{expected[number]}"]
    finally:
        service.kill()
    with open_store(store)[1] as registry:
        assert [one.name for one in UserTables(registry).of("ann")] == [f"t{number}" for number in range(JOBS)]
