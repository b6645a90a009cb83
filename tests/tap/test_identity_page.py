"""The commands of docs/access.md do what the page says, in order, in a shell."""

from __future__ import annotations

import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.stores import sky
from tests.support.pages import run_page


@pytest.mark.slow
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = sky(200)
    rows = pa.table({"objectId": columns["id"], "ra": columns["ra"], "dec": columns["dec"]})
    pq.write_table(rows, tmp_path / "objects.parquet")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("PORT", str(port))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    done = run_page("access.md", tmp_path)
    assert "there is no" in done.stdout
    assert done.stdout.count(f"n\n{rows.num_rows}\n") == 3
    assert "401" in done.stdout.splitlines()
    assert "unknown_name" in done.stdout
    assert "dp1.Object  released  user:bob" in done.stdout
    assert "is revoked" in done.stderr
