"""The verbs of loads, as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine import cli
from qengine.opening import open_store
from tests.loader.stores import sky


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    columns = sky(200)
    child = {"sid": list(range(300)), "oid": [int(columns["id"][at % 200]) for at in range(300)]}
    found = {}
    for name, table in (("obj", columns), ("src", child)):
        found[name] = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(table), found[name])
    return found


def say(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> tuple[str, str]:
    assert cli.run([str(word) for word in words]) == status
    said = capsys.readouterr()
    return said.out, " ".join(said.err.split())


def test_begin_contribute_commit(tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", tmp_path / "store")
    load = say(capsys, "begin", "--into", "demo", "--why", "a test", "--context", "pipeline=v1", *store)[0].strip()
    assert len(load) == 32
    child = ("--kind", "child", "--director", "obj", "--director-key", "oid", "--key", "sid")
    assert "300 rows" in say(capsys, "contribute", load, files["src"], "--table", "src", *child, *store)[1]
    assert "209 rows" in say(capsys, "contribute", load, files["obj"], "--table", "obj", "--key", "id", *store)[1]

    listed = say(capsys, "loads", *store)[0]
    assert "open, nobody at work" in listed
    assert "a test" in listed
    shown = say(capsys, "loads", load[:5], *store)[0]
    assert "pipeline: v1" in shown
    assert "contributed to src" in shown
    assert str(files["obj"]) in shown

    committed = say(capsys, "commit", load[:5], *store)[1]
    assert "demo.obj: 209 rows" in committed
    assert "load 1 is finished, snapshot 1 of demo" in committed
    assert "load 1 is finished" in say(capsys, "commit", load, *store)[1]
    words = json.loads(say(capsys, "loads", load, "--json", *store)[0])
    assert (words["state"], words["snapshot"], len(words["inputs"])) == ("finished", 1, 2)
    assert "input 0 of obj" in say(capsys, "loads", load, *store)[0]
    assert "is finished" in say(capsys, "abort", load, *store, status=1)[1]


def test_abort_and_sweep(tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", tmp_path / "store")
    load = say(capsys, "begin", "--into", "demo", *store)[0].strip()
    say(capsys, "contribute", load, files["obj"], "--table", "obj", "--key", "id", *store)
    assert "load 1 is aborted" in say(capsys, "abort", load, "--why", "not needed", *store)[1]
    assert "not needed" in say(capsys, "loads", *store)[0]
    assert "demo: 0 loads cleaned up, 0 files removed" in say(capsys, "sweep", *store)[1]


def test_load_says_what_is_there_already(tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("load", files["obj"], "--into", "demo", "--table", "obj", "--key", "id", "--store", tmp_path / "store")
    assert "209 rows" in say(capsys, *words, "--resume")[1]
    assert "nothing new, one input is there already (snapshot 1)" in say(capsys, *words)[1]
    out, err = say(capsys, *words, "--json", "--label", "other name", "--on-duplicate", "error", status=1)
    assert not out
    assert "error" in err


def test_wrong_words(tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", tmp_path / "store")
    assert "KEY=VALUE" in say(capsys, "begin", "--into", "demo", "--context", "x", *store, status=1)[1]
    load = say(capsys, "begin", "--into", "demo", *store)[0].strip()
    assert "nothing to load" in say(capsys, "contribute", load, "--table", "obj", *store, status=1)[1]
    words = ("contribute", load, files["obj"], "--table", "obj")
    assert "--loader" in say(capsys, *words, "--copy", *store, status=1)[1]
    assert "are of a Butler" in say(capsys, *words, "--dataset-type", "object", *store, status=1)[1]
    assert "unknown" in say(capsys, "commit", "abc", *store, status=1)[1]
    assert "cannot be reached" in say(capsys, "commit", "abc", "--loader", "127.0.0.1:1", status=3)[1]
    assert "TLS needs" in say(capsys, "loader", "--authority", "x.pem", *store, status=1)[1]


def test_a_loader_that_wants_certificates(tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from qengine.loader.service import Loader
    from qengine.transport.loader_server import LoaderServer
    from tests.contract.test_channel_tls import _authority, _member

    _authority(tmp_path / "tls")
    own, other = _member(tmp_path / "tls", "loader"), _member(tmp_path / "tls", "contributor")
    store, registry = open_store(tmp_path / "store", create=True)
    with registry:
        server = LoaderServer(Loader(registry, store), "127.0.0.1:0", tls=own)
        server.start()
        try:
            words = ("--authority", other.authority, "--certificate", other.certificate, "--private-key", other.key)
            there = ("--loader", server.address, *words, "--peer-name", "worker.test")
            load = say(capsys, "begin", "--into", "demo", *there)[0].strip()
            assert "209 rows" in say(capsys, "contribute", load, files["obj"], "--table", "obj", "--key", "id", *there)[1]
            assert "demo.obj: 209 rows" in say(capsys, "commit", load, *there)[1]
            assert cli.run(["begin", "--into", "demo", "--loader", server.address]) != 0
        finally:
            server.stop(1.0)


def test_loads_by_processes(tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", tmp_path / "store", "--executor", "processes")
    assert "209 rows" in say(capsys, "load", files["obj"], "--into", "demo", "--table", "obj", "--key", "id", *store)[1]
    assert "demo.obj: nothing to do" in say(capsys, "compact", "demo", *store)[1]
    said = say(capsys, "load", files["obj"], "--into", "demo", "--table", "obj", "--dask", "tcp://127.0.0.1:1", *store, status=1)[1]
    assert "contradict each other" in said
    said = say(capsys, "commit", "abc", "--loader", "here:1", *store, status=1)[1]
    assert "are for loads of this machine" in said
