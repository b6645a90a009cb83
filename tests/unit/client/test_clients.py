"""What both clients must do alike: one suite, on a local service and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from qengine.client.local import LocalClient
from qengine.client.loop import LoopThread
from qengine.client.remote import RemoteClient
from qengine.errors import ClusterError, ConfigError, QueryError, QuerySyntaxError, QueryTimeoutError, UnknownNameError
from qengine.tap.app import create_app
from tests.support.fake_service import FakeService
from tests.support.http_server import serving

STARS = "SELECT source_id, ra, dec, mag, name FROM demo.stars ORDER BY source_id"

Client = LocalClient | RemoteClient


@contextlib.asynccontextmanager
async def opened(service: FakeService) -> AsyncIterator[FakeService]:
    yield service


@pytest.fixture(scope="module")
def service() -> FakeService:
    return FakeService()


@pytest.fixture(scope="module", params=["local", "remote"])
def client(request: pytest.FixtureRequest, service: FakeService) -> Iterator[Client]:
    if request.param == "local":
        with LocalClient(opened(service)) as local:
            yield local
    else:
        with serving(create_app(service)) as address, RemoteClient(address) as remote:
            yield remote


def test_to_arrow(client: Client) -> None:
    result = client.query(STARS)
    table = result.to_arrow()
    assert table.num_rows == len(result) == 1000
    assert table.column("source_id").to_pylist() == list(range(1000))
    assert table.schema.field("ra").metadata[b"unit"] == b"deg"
    assert result.to_arrow() is table


def test_columns_warnings_snapshots(client: Client) -> None:
    result = client.query("SELECT ra, CASE WHEN dec > 0 THEN 1 ELSE 0 END AS north FROM demo.stars")
    assert [(column.name, column.unit, column.ucd) for column in result.columns] == [
        ("ra", "deg", "pos.eq.ra;meta.main"),
        ("north", "", ""),
    ]
    assert result.warnings == ("CASE is an extension of ADQL",)
    assert dict(result.snapshots) == {"demo": 3}
    assert result.statement.startswith("SELECT ra, CASE")
    result.close()


def test_batches_once(client: Client) -> None:
    result = client.query(STARS)
    sizes = [batch.num_rows for batch in result]
    assert sum(sizes) == 1000
    assert len(sizes) > 1
    with pytest.raises(QueryError, match="already read"):
        result.to_arrow()


def test_batches_after_a_conversion(client: Client) -> None:
    result = client.query(STARS)
    result.to_arrow()
    assert sum(batch.num_rows for batch in result) == sum(batch.num_rows for batch in result) == 1000


def test_to_pandas_keeps_integers_exact(client: Client) -> None:
    big = 2**60 + 1
    frame = client.query(
        f"SELECT source_id, CASE WHEN source_id = 0 THEN NULL ELSE {big} + source_id END AS big FROM demo.stars"
    ).to_pandas()
    assert list(frame.columns) == ["source_id", "big"]
    assert frame["source_id"].dtype == np.int64
    assert frame["big"].isna().sum() == 1
    assert set(frame["big"].dropna()) == {big + i for i in range(1, 1000)}
    assert isinstance(frame, pd.DataFrame)


def test_to_polars(client: Client) -> None:
    frame = client.query(STARS).to_polars()
    assert frame.shape == (1000, 5)
    assert frame["mag"].null_count() == 100


def test_to_astropy(client: Client) -> None:
    table = client.query(STARS).to_astropy()
    assert len(table) == 1000
    assert str(table["ra"].unit) == "deg"
    assert table["ra"].description == "Right ascension"
    assert table["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert table["mag"].mask.sum() == 100
    assert table["name"][0] == "star <0> é"
    assert table["name"].mask[5]
    assert table.meta["SNAPSHOTS"] == {"demo": 3}


def test_to_astropy_without_rows(client: Client) -> None:
    assert len(client.query("SELECT ra, name FROM demo.stars WHERE ra > 1000").to_astropy()) == 0


def test_maxrec_and_overflow(client: Client) -> None:
    result = client.query(STARS, maxrec=7)
    assert (len(result), result.is_overflow) == (7, True)
    result = client.query("SELECT TOP 7 source_id FROM demo.stars", maxrec=10)
    assert (len(result), result.is_overflow) == (7, False)


@pytest.mark.parametrize("lang", ["adql", "adql-strict", "sql"])
def test_languages(client: Client, service: FakeService, lang: str) -> None:
    client.query("SELECT 1 AS one", lang).close()
    assert service.asked[-1][1] == lang


def test_snapshots_are_passed_on(client: Client, service: FakeService) -> None:
    client.query("SELECT 1 AS one", snapshots={"demo": 3}).close()
    assert service.asked[-1][3] == {"demo": 3}


def test_statement_error_with_place(client: Client) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        client.query("SELECT source_id,\n  brightness FROM demo.stars")
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.column) == (2, 3)
    assert caught.value.hint == "look again"


def test_failure_on_the_way(client: Client) -> None:
    result = client.query("SELECT source_id FROM demo.stars /* fail after 300 rows */")
    batches = iter(result)
    assert sum(next(batches).num_rows for _ in range(3)) == 300
    with pytest.raises(QueryTimeoutError, match="deadline"):
        next(batches)


def test_leaving_early_ends_the_query(client: Client, service: FakeService) -> None:
    result = client.query(STARS + " /* hang after 300 rows */")
    for _ in result:
        break
    result.close()
    deadline = time.monotonic() + 5
    while not service.answers[-1].is_closed and time.monotonic() < deadline:
        time.sleep(0.02)
    assert service.answers[-1].is_closed


def test_explain(client: Client) -> None:
    plan = client.explain("SELECT ra FROM demo.stars", analyze=True)
    assert plan.to_text() == "plan of SELECT ra FROM demo.stars, measured"
    assert plan.to_json() == {"plan": "plan of SELECT ra FROM demo.stars, measured"}


def test_tables(client: Client) -> None:
    stars = next(table for table in client.tables() if table.full_name == "demo.stars")
    assert (stars.rows, stars.kind, stars.snapshot) == (1000, "replicated", 3)
    assert [column.name for column in stars.columns] == ["source_id", "ra", "dec", "mag", "name"]


def test_repr(client: Client) -> None:
    result = client.query("SELECT TOP 20 name, ra FROM demo.stars ORDER BY source_id")
    assert repr(result) == "<Result: rows not read yet; name VARCHAR, ra DOUBLE>"
    html = result._repr_html_()
    assert "star &lt;0&gt; é" in html
    assert "20 rows, 10 shown" in html
    assert '<th title="Right ascension">ra<br><small>deg</small></th>' in html
    assert repr(result).startswith("<Result: 20 rows")


def test_interrupt_cancels_the_query(service: FakeService) -> None:
    """Ctrl-C while a local client waits: raised in the main thread by a real signal."""
    import _thread

    with LocalClient(opened(service)) as local:
        result = local.query(STARS + " /* hang after 100 rows */")
        assert next(iter(result)).num_rows == 100
        timer = threading.Timer(0.3, _thread.interrupt_main)
        timer.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            result._source.read()
        assert time.monotonic() - began < 5
        assert service.answers[-1].is_closed


def test_closed_client_says_so(service: FakeService) -> None:
    local = LocalClient(opened(service))
    result = local.query(STARS)
    local.close()
    local.close()
    result.close()
    with pytest.raises(QueryError, match="closed"):
        local.query(STARS)


def test_failure_to_open_reaches_the_caller() -> None:
    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[FakeService]:
        await asyncio.sleep(0)
        raise ConfigError("there is no store here")
        yield FakeService()

    before = threading.active_count()
    with pytest.raises(ConfigError, match="no store"):
        LocalClient(broken())
    assert threading.active_count() == before


def test_a_timeout_inside_the_work_is_not_taken_for_waiting() -> None:
    async def fail() -> None:
        raise TimeoutError("inside")

    with LoopThread() as loop, pytest.raises(TimeoutError, match="inside"):
        loop.run(fail())


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8080", "http://"])
def test_wrong_address(url: str) -> None:
    with pytest.raises(ConfigError):
        RemoteClient(url)


def test_nobody_there() -> None:
    with pytest.raises(ClusterError, match="cannot be reached"):
        RemoteClient("http://127.0.0.1:1").query("SELECT 1 AS one")


def test_something_else_there(service: FakeService) -> None:
    with serving(create_app(service)) as address, pytest.raises(UnknownNameError, match="nothing at this address"):
        RemoteClient(f"{address}/elsewhere/tap").tables()


@pytest.mark.parametrize("path", ["", "/", "/tap", "/tap/"])
def test_addresses(path: str) -> None:
    assert RemoteClient(f"http://localhost:8080{path}").url == "http://localhost:8080/tap"


def test_cut_stream_is_an_error() -> None:
    from qengine.client.remote import _RemoteRows
    from qengine.tap.formats.choose import ARROW
    from tests.support.result_samples import HEADER, sample_table

    writer = ARROW.writer(HEADER)
    whole = writer.begin() + writer.write(sample_table().to_batches()[0])

    class Response(pa.BufferReader):
        pass

    rows = _RemoteRows(Response(whole), "http://x")  # type: ignore[arg-type]
    batch = rows.read()
    assert batch is not None
    assert batch.num_rows == 4
    with pytest.raises(ClusterError, match="broke off"):
        rows.read()
