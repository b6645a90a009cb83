"""TOPCAT's TAP window, used as a person would, on a screen that nobody sees."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.tap.clients.test_end_jobs import until_quiet
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
    near = _asked(live, CONE)
    bright = _asked(live, f"{CONE} AND mag < 8")
    assert (len(near), 0 < len(bright) < len(near)) == (CONE_ROWS, True)
    uploaded = [(row[0], row[3]) for row in bright]
    wanted = [(mode, rows) for rows in (near, uploaded) for mode in ("Synchronous", "Asynchronous")]
    loaded = _loaded(lines)
    assert [mode for mode, _ in loaded] == [mode for mode, _ in wanted], said
    for (_, found), (_, rows) in zip(loaded, wanted, strict=True):
        assert sorted(found) == sorted(rows)
    jobs = {words[1]: words[2] for words in lines if words[:1] == ["JOB"]}
    assert httpx.get(f"{jobs['Abort']}/phase", trust_env=False).text == "ABORTED"
    assert httpx.get(jobs["Delete"], trust_env=False).status_code == 404
    until_quiet(live)


def _asked(live: str, text: str) -> list[tuple[float, ...]]:
    words = {"LANG": "ADQL", "FORMAT": "csv", "QUERY": text}
    answer = httpx.get(f"{live}/sync", params=words, trust_env=False, timeout=60).raise_for_status()
    return [_row(row) for row in list(csv.reader(answer.text.splitlines()))[1:]]


def _loaded(lines: list[list[str]]) -> list[tuple[str, list[tuple[float, ...]]]]:
    tables: list[tuple[str, list[tuple[float, ...]]]] = []
    for words in lines:
        if words[:1] == ["LOADED"]:
            tables.append((words[1], []))
        elif words[:1] == ["ROW"]:
            tables[-1][1].append(_row(words[1:]))
    return tables


def _row(cells: list[str]) -> tuple[float, ...]:
    """The identifier is too long for a float."""
    return int(cells[0]), *(float(cell) for cell in cells[1:])
