"""The commands of docs/mydb.md do what the page says, in order, in a shell."""

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
    rows = pa.table({"objectId": range(len(columns["ra"])), "ra": columns["ra"], "dec": columns["dec"]})
    pq.write_table(rows, tmp_path / "objects.parquet")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("PORT", str(port))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    done = run_page("mydb.md", tmp_path).stdout.replace("}", "}\n")  # curl ends no line
    north = sum(value > 0 for value in columns["dec"])
    assert [line for line in done.splitlines() if line in ("409", "401")] == ["409", "401"]
    assert all(f',"{note}"\n' in done for note in ("odd", "blue", "gone"))
    assert f'"mydb.north",{north},' in done
    assert f'"mydb.south",{len(columns["dec"]) - north},' in done
    assert done.count(f"n\n{north}\n") == 2
    assert [line for line in done.splitlines() if "there is no" in line] == ["there is no catalogue", "there is no table"]
    assert '"groups":["club"]' in done
    assert '"public":true' in done
