"""The verbs on a real store, in this process."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import connect
from qengine.cli import run
from qengine.errors import ConfigError
from qengine.tap.app import create_app
from tests.support.fake_service import FakeService
from tests.support.http_server import serving

COUNT = "SELECT COUNT(*) AS n FROM sky.stars"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    generator = np.random.default_rng(5)
    rows = 3000
    pq.write_table(
        pa.table(
            {
                "id": pa.array(range(rows), pa.int64()),
                "ra": generator.uniform(0, 360, rows),
                "dec": np.degrees(np.arcsin(generator.uniform(-1, 1, rows))),
                "mag": pa.array(generator.uniform(0, 20, rows), pa.float32()),
            }
        ),
        folder / "stars.parquet",
    )
    arguments = f"load {folder}/stars.parquet --store {folder}/store --into sky --table stars --key id --ra ra --dec dec"
    assert run([*arguments.split(), "--rows-per-tile", "500"]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def url() -> object:
    with serving(create_app(FakeService())) as address:
        yield address


def test_load_tells_what_it_did(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "more.csv").write_text("name,ra,dec\na,1,2\nb,3,4\n")
    code = run(
        ["load", str(tmp_path / "more.csv"), "--store", str(tmp_path / "s"), "--into", "sky", "--table", "more", "--key", "name"]
    )
    assert code == 0
    assert "sky.more: 2 rows" in capsys.readouterr().err


def test_query_as_a_table(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", COUNT, "--store", str(store)]) == 0
    out = capsys.readouterr().out.split()
    assert out == ["n", "3000", "1", "row"]


def test_only_so_many_rows_are_shown(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "SELECT id FROM sky.stars ORDER BY id", "--store", str(store), "--rows", "3"]) == 0
    out = capsys.readouterr().out
    assert "3,000 rows, the first 3 are shown" in out
    assert len(out.splitlines()) == 5


def test_query_as_csv(store: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["query", "SELECT TOP 3 id, mag FROM sky.stars ORDER BY id", "--store", str(store), "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capfdbinary.readouterr().out.decode(), newline="")))
    assert [row[0] for row in rows] == ["id", "0", "1", "2"]


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.xml", "out.tsv"])
def test_output_files(store: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    assert run(["query", "SELECT id, ra FROM sky.stars", "--store", str(store), "-o", str(path)]) == 0
    assert "3,000 rows written" in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == [name]
    if name == "out.parquet":
        assert pq.read_table(path).num_rows == 3000


def test_output_to_what_is_no_file(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link.csv", tmp_path / "target.csv"
    text = ["query", "SELECT id FROM sky.stars WHERE id < 3 ORDER BY id", "--store", str(store), "--format", "csv", "-o"]
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert run([*text, str(pipe)]) == 0
    assert reader.communicate(timeout=20)[0].split() == [b"id", b"0", b"1", b"2"]
    assert pipe.is_fifo()

    link.symlink_to(target)
    assert run([*text, str(link)]) == 0
    assert link.is_symlink()
    assert target.read_text().split() == ["id", "0", "1", "2"]
    capsys.readouterr()

    assert run([*text, str(tmp_path / "nowhere" / "x.csv")]) == 1
    assert f"there is no directory {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert run([*text, str(tmp_path)]) == 1
    assert f"{tmp_path} is a directory" in capsys.readouterr().err


def test_a_failed_query_leaves_no_file(store: Path, tmp_path: Path) -> None:
    text = "SELECT CAST(1e300 AS INTEGER) AS x, id FROM sky.stars"
    assert run(["query", text, "--store", str(store), "-o", str(tmp_path / "out.csv")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_statement_error_with_a_caret(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "SELECT id,\n\tmagg FROM sky.stars", "--store", str(store)]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith("error[unknown_name]: line 2, column 2: ")
    assert err[1] == " 2 |  magg FROM sky.stars"
    assert err[2] == "   |  ^^^^"


def test_explain(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bright = f"{COUNT} WHERE mag < 6"
    assert run(["explain", bright, "--store", str(store)]) == 0
    assert "sky.stars" in capsys.readouterr().out
    assert run(["explain", bright, "--store", str(store), "--json", "--analyze"]) == 0
    assert json.loads(capsys.readouterr().out)["statement"] == bright


def test_tables(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tables", "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert "sky.stars" in out
    assert "TAP_SCHEMA" not in out
    assert run(["tables", "stars", "--store", str(store)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["id", "ra", "dec", "mag"]
    assert run(["tables", "nothing", "--store", str(store)]) == 1


def test_status(store: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--store", str(store)]) == 0
    assert "sky: snapshot 1 of" in capsys.readouterr().out
    assert run(["status", "--url", url]) == 0
    assert "2 tables, 1,010 rows" in capsys.readouterr().out


def test_remote_query(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "SELECT TOP 1 name FROM demo.stars ORDER BY source_id", "--url", url]) == 0
    assert "star <0> é" in capsys.readouterr().out
    assert run(["query", "SELECT brightness FROM demo.stars", "--url", url]) == 1
    assert "^^^^^^^^^^" in capsys.readouterr().err


def test_statement_from_standard_input(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 42 AS answer"))
    assert run(["query", "-", "--url", url]) == 0
    assert "42" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["query", "SELECT 1"], 1, "no store is named"),
        (["query", "SELECT 1", "--store", "x", "--url", "http://y"], 1, "both --store and --url"),
        (["query", "SELECT 1", "--store", "/nowhere"], 1, "there is no store at /nowhere"),
        (["query", " ", "--store", "x"], 1, "the statement is empty"),
        (["query", "SELECT 1", "--url", "http://127.0.0.1:1"], 3, "cannot be reached"),
        (["query", "SELECT 1", "--url", "http://[::1"], 1, "is not an http address"),
        (["query", "SELECT 1", "--url", "http://127.0.0.1:99999"], 1, "is not an http address"),
        (["query", "SELECT 1", "--url", "ftp://127.0.0.1"], 1, "ftp://127.0.0.1 is not an http address"),
        (["query", "SELECT 1", "--url", "http://127.0.0.1", "--workers", "2"], 1, "workers belong to a store"),
        (["query", "SELECT 1", "--store", "x", "-o", "y.xls"], 1, "the format of y.xls is unknown"),
        (["query", "SELECT 1", "--store", "x", "-o", "y.csv", "--format", "table"], 1, "a table is for the terminal"),
        (["load", "/nowhere.csv", "--into", "a", "--table", "b"], 1, "no store is named"),
        (["query"], 2, "Missing argument"),
        (["query", "SELECT 1", "--format", "fits"], 2, "fits"),
        (["unknown"], 2, "No such command"),
    ],
)
def test_wrong_usage(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QENGINE_STORE", raising=False)
    monkeypatch.delenv("QENGINE_URL", raising=False)
    assert run(arguments) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["query", COUNT], ["explain", COUNT], ["tables"], ["status"], ["serve"]])
def test_directory_that_is_no_store_stays_as_it_is(verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb, "--store", str(tmp_path)]) == 1
    assert f"there is no store at {tmp_path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listen", ["127.0.0.1:99999", "127.0.0.1", "127.0.0.1:http"])
def test_worker_on_a_port_that_is_none(store: Path, listen: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["worker", "--store", str(store), "--listen", listen]) == 1
    assert f"cannot listen on {listen}" in capfd.readouterr().err


def test_wrong_numbers_in_python(store: Path) -> None:
    with pytest.raises(ConfigError, match="-1 workers cannot be started"):
        connect(store, workers=-1)
    with connect(store) as client:
        with pytest.raises(ConfigError, match="maxrec=-1 is not a number of rows"):
            client.query(COUNT, maxrec=-1)
        assert client.query("SELECT id FROM sky.stars", maxrec=0).to_arrow().num_rows == 0


def test_unreadable_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["load", str(tmp_path / "no.parquet"), "--store", str(tmp_path / "s"), "--into", "a", "--table", "b"])
    assert code == 1
    assert "error[input]" in capsys.readouterr().err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in ("load", "attach", "query", "explain", "tables", "status", "serve", "worker"):
        assert verb in out


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_told_to_stop(store: Path, sign: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "qengine.cli", "serve", "--store", str(store), "--workers", "1", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "QENGINE_TAP__MAXREC": "7"})
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://\S+/tap", said)
        assert found, said + process.stderr.read()
        assert run(["query", "SELECT id FROM sky.stars", "--url", found[0]]) == 0
        assert "7 rows, cut by MAXREC" in capsys.readouterr().out
        process.send_signal(sign)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_serve_refuses_unknown_settings(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QENGINE_TAP__MAXRECS", "7")
    assert run(["serve", "--store", str(store), "--port", "0"]) == 1
    assert "tap.maxrecs is not a setting" in capsys.readouterr().err
