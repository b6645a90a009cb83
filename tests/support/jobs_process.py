"""A process that serves a store with jobs, for tests that kill it: `python -m tests.support.jobs_process STORE URL RUNNING`.

It prints its address; URL is that of the registry, `-` for the one in the store.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from qengine.app import ClusterSettings, cluster
from qengine.opening import open_store
from qengine.tap.app import create_app
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import offering_jobs
from qengine.tap.server import listening
from qengine.tap.service import TapSettings

ROOT = Path(__file__).resolve().parents[2]
_START_S = 60


@dataclass(frozen=True)
class JobsProcess:
    """A process that serves jobs at `url`."""

    process: subprocess.Popen[bytes]
    url: str

    @classmethod
    def start(cls, store: Path, registry_url: str | None, log: Path, *, running: int) -> JobsProcess:
        """Start one and wait until it listens."""
        command = [sys.executable, "-u", "-m", "tests.support.jobs_process", str(store), registry_url or "-", str(running)]
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env={**os.environ})
        deadline = time.monotonic() + _START_S
        while (found := re.search(r"listening at (\S+)", log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        return cls(process, found[1])

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()


async def serve(store: Path, registry_url: str | None, running: int) -> None:
    """Serve until the process ends."""
    tap = TapSettings()
    settings = JobSettings(running=running, lists_anonymous=True)
    with open_store(store, registry_url=registry_url)[1] as registry:
        async with (
            cluster(store, ClusterSettings(registry_url=registry_url)) as service,
            offering_jobs(registry, service, tap=tap, settings=settings) as desk,
            listening(create_app(service, tap, jobs=desk)) as server,
        ):
            print(f"listening at {server.address}/tap", flush=True)
            await server.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2], int(sys.argv[3])))
