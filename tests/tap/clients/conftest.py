"""A service as operators start it, `qengine serve`, over the demonstration catalogue, a small Data Preview 1 and a user's table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from qengine.demo import prepare
from tests.support.dp1 import load_dp1

_START_S = 60
ELSEWHERE = "127.0.0.2"
"""An address from which the service may fetch uploaded tables."""


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The store, and the token of its user ann."""
    folder = tmp_path_factory.mktemp("live")
    prepare(folder / "store", Console(quiet=True))
    load_dp1(folder)
    qengine = [sys.executable, "-m", "qengine.cli"]
    store = ["--store", str(folder / "store")]
    subprocess.run([*qengine, "user", "add", "ann", *store], check=True, capture_output=True)
    token = subprocess.run([*qengine, "token", "create", "ann", *store], check=True, capture_output=True, text=True).stdout.strip()
    return folder / "store", token


@pytest.fixture(scope="session")
def live(prepared: tuple[Path, str]) -> Iterator[str]:
    """The address of the service, `http://127.0.0.1:<port>/tap`."""
    for url in serving(prepared[0]):
        keep(url, prepared[1])
        yield url


def keep(url: str, token: str) -> None:
    """Make a table of a user that everybody may read."""
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60) as ann:
        text = "id,ra,dec,note\n1,10.5,-3,odd\n2,359.9,89,\n"
        assert ann.put(f"{url}/mydb/marked", content=text).status_code == 201
        assert ann.patch(f"{url}/mydb/marked", json={"public": True}).json()["public"] is True


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
