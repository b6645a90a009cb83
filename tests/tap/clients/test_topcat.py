"""TOPCAT's TAP window, used as a person would, on a screen that nobody sees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.tap.clients.test_live import CONE, CONE_ROWS, LONG

_JAR = Path("/usr/share/java/starlink-topcat.jar")
_MISSING = [name for name in ("xvfb-run", "javac") if shutil.which(name) is None] + ([] if _JAR.exists() else ["topcat"])

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")]


UPLOAD = "SELECT t.source_id, g.mag FROM TAP_UPLOAD.t1 AS t JOIN demo.gaia AS g ON g.source_id = t.source_id WHERE g.mag < 8"
"""The first table that TOPCAT has is t1."""


def test_topcat_asks_uploads_aborts_and_deletes(live: str, tmp_path: Path) -> None:
    source = Path(__file__).with_name("DriveTopcat.java")
    path = f"{_JAR}:{_JAR.parent}/*"
    subprocess.run(["javac", "-nowarn", "-cp", path, "-d", str(tmp_path), str(source)], check=True, timeout=120)
    command = ["xvfb-run", "-a", "java", f"-Duser.home={tmp_path}", "-cp", f"{tmp_path}:{path}", "DriveTopcat", live]
    for text in (CONE, UPLOAD):
        for mode in ("sync", "async"):
            command += [text, mode]
    command += [LONG, "abort", LONG, "delete"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-30000:]
    lines = [line.split() for line in said.splitlines()]
    assert "demo.gaia" in next(words for words in lines if words[:1] == ["TABLES"]), said
    bright = httpx.get(f"{live}/sync", params={"LANG": "ADQL", "FORMAT": "csv", "QUERY": f"{CONE} AND mag < 8"}, trust_env=False)
    counts = [str(CONE_ROWS)] * 2 + [str(len(bright.text.splitlines()) - 1)] * 2
    loaded = [tuple(words[1:3]) for words in lines if words[:1] == ["LOADED"]]
    assert loaded == list(zip(["Synchronous", "Asynchronous"] * 2, counts, strict=True)), said
    jobs = {words[1]: words[2] for words in lines if words[:1] == ["JOB"]}
    assert httpx.get(f"{jobs['Abort']}/phase", trust_env=False).text == "ABORTED"
    assert httpx.get(jobs["Delete"], trust_env=False).status_code == 404
