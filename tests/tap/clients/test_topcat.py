"""TOPCAT's TAP window, used as a person would, on a screen that nobody sees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.tap.clients.test_live import CONE, CONE_ROWS

_JAR = Path("/usr/share/java/starlink-topcat.jar")
_MISSING = [name for name in ("xvfb-run", "javac") if shutil.which(name) is None] + ([] if _JAR.exists() else ["topcat"])

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")]


def test_topcat_asks_in_both_ways(live: str, tmp_path: Path) -> None:
    source = Path(__file__).with_name("DriveTopcat.java")
    path = f"{_JAR}:{_JAR.parent}/*"
    subprocess.run(["javac", "-nowarn", "-cp", path, "-d", str(tmp_path), str(source)], check=True, timeout=120)
    command = ["xvfb-run", "-a", "java", f"-Duser.home={tmp_path}", "-cp", f"{tmp_path}:{path}", "DriveTopcat", live]
    for mode in ("sync", "async"):
        command += [CONE, mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    lines = dict(line.split(" ", 1) for line in said.splitlines() if " " in line and not line.startswith("LOADED"))
    loaded = [line.split()[1:3] for line in said.splitlines() if line.startswith("LOADED")]
    assert process.returncode == 0, said[-30000:]
    assert "gaia" in lines["TABLES"], said
    assert loaded == [["Synchronous", str(CONE_ROWS)], ["Asynchronous", str(CONE_ROWS)]], said
