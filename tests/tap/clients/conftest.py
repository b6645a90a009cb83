"""A service as operators start it, `qengine serve`, over the demonstration catalogue and a small Data Preview 1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from qengine.demo import prepare
from tests.support.dp1 import load_dp1

_START_S = 60
ELSEWHERE = "127.0.0.2"
"""An address from which the service may fetch uploaded tables."""


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service, `http://127.0.0.1:<port>/tap`."""
    folder = tmp_path_factory.mktemp("live")
    prepare(folder / "store", Console(quiet=True))
    load_dp1(folder)
    yield from serving(folder / "store")


def serving(store: Path) -> Iterator[str]:
    """Yield the address of a service over a store, and end it."""
    log = store.parent / "serve.log"
    environment = os.environ | {"QENGINE_UPLOADS__NETWORKS": f"{ELSEWHERE}/32"}
    command = [sys.executable, "-m", "qengine.cli", "serve", "--store", str(store), "--port", "0", "--workers", "1"]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            deadline = time.monotonic() + _START_S
            while (found := re.search(r"TAP at (http://\S+/tap)", log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield found[1]
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()
