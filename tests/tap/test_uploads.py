"""Uploaded tables over HTTP to a cluster: the answer is that of one DuckDB which has them all."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from xml.etree import ElementTree

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import pyvo
from astropy.io.votable import parse_single_table
from astropy.table import Table

from qengine.app import ClusterSettings, cluster
from qengine.cli import run
from qengine.errors import UploadError
from qengine.opening import open_store
from qengine.tap.app import create_app
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import offering_jobs
from qengine.tap.server import listening
from qengine.tap.service import TapSettings
from qengine.tap.uploads import Wanted, wanted_uploads

STARS, MINE = 20_000, 500
RADIUS = 0.2


def _positions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    return ra, dec


def _stars() -> pa.Table:
    ra, dec = _positions(STARS, 1)
    return pa.table({"id": np.arange(STARS), "ra": ra, "dec": dec, "mag": np.round(ra / 20, 2)})


def _mine() -> pa.Table:
    stars, (ra, dec) = _stars(), _positions(MINE, 2)
    near = MINE // 2  # the others are anywhere
    ra[:near] = stars["ra"].to_numpy()[:near]
    dec[:near] = np.clip(stars["dec"].to_numpy()[:near] + RADIUS / 3, -90, 90)
    ids = np.arange(MINE) * 41
    return pa.table({"n": np.arange(MINE), "id": pa.array(ids, mask=ids % 5 == 0), "ra": ra, "dec": dec, "Word": ["é"] * MINE})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("uploads")
    pq.write_table(_stars(), folder / "stars.parquet")
    words = ["--table", "stars", "--key", "id", "--ra", "ra", "--dec", "dec", "--rows-per-tile", "1000"]
    assert run(["load", str(folder / "stars.parquet"), "--store", str(folder / "store"), "--into", "sky", *words]) == 0
    ready, addresses = threading.Event(), list[str]()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    registry = open_store(folder / "store")[1]

    async def serve() -> None:
        ending = asyncio.Event()
        ends.append((asyncio.get_running_loop(), ending))
        async with (
            cluster(folder / "store", ClusterSettings()) as service,
            offering_jobs(registry, service, tap=TapSettings(), settings=JobSettings()) as desk,
            listening(create_app(service, jobs=desk)) as server,
        ):
            addresses.append(server.address)
            ready.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield f"{addresses[0]}/tap"
    ends[0][0].call_soon_threadsafe(ends[0][1].set)
    thread.join(30)
    registry.close()


def _ask(url: str, query: str, content: bytes, **more: str) -> httpx.Response:
    words = {"LANG": "ADQL", "QUERY": query, "RESPONSEFORMAT": "csv", "UPLOAD": "mine,param:t"} | more
    return httpx.post(f"{url}/sync", data=words, files={"t": ("x", content)}, timeout=60, trust_env=False)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _oracle(sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        connection.register("stars", _stars())
        connection.register("mine", _mine())
        connection.execute(
            "CREATE MACRO apart(a, b, c, d) AS degrees(2 * asin(sqrt(pow(sin(radians(d - b) / 2), 2)"
            " + cos(radians(b)) * cos(radians(d)) * pow(sin(radians(c - a) / 2), 2))))"
        )
        return connection.execute(sql).fetchall()


NEAR = f"DISTANCE(POINT(m.ra, m.dec), POINT(s.ra, s.dec)) < {RADIUS}", f"apart(m.ra, m.dec, s.ra, s.dec) < {RADIUS}"
STATEMENTS = {
    "all": "SELECT n, id, ra FROM {mine} ORDER BY n",
    "count": "SELECT COUNT(*) AS c, COUNT(id) AS k FROM {mine}",
    "by id": "SELECT m.n, s.mag FROM {mine} AS m JOIN {stars} AS s ON m.id = s.id ORDER BY m.n",
    "by id, left": "SELECT m.n, s.mag FROM {mine} AS m LEFT JOIN {stars} AS s ON m.id = s.id ORDER BY m.n",
    "stars kept": "SELECT s.id, m.n FROM {stars} AS s LEFT JOIN {mine} AS m ON m.id = s.id ORDER BY s.id",
    "in": "SELECT COUNT(*) AS c FROM {stars} AS s WHERE s.id IN (SELECT id FROM {mine} WHERE n < 90)",
    "not in reach": "SELECT COUNT(*) AS c FROM {mine} AS m WHERE NOT EXISTS (SELECT 1 FROM {stars} AS s WHERE s.id = m.id)",
    "by place": "SELECT m.n, s.id FROM {mine} AS m JOIN {stars} AS s ON {near} ORDER BY m.n, s.id",
    "by place, left": "SELECT m.n, s.id FROM {mine} AS m LEFT JOIN {stars} AS s ON {near} ORDER BY m.n, s.id",
    "groups": "SELECT m.n, COUNT(*) AS c FROM {mine} AS m JOIN {stars} AS s ON {near} GROUP BY m.n ORDER BY m.n",
    "itself": "SELECT COUNT(*) AS c FROM {mine} AS a JOIN {mine} AS b ON a.n = b.id",
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_same_rows_as_one_duckdb(url: str, name: str) -> None:
    words = STATEMENTS[name]
    response = _ask(url, words.format(mine="TAP_UPLOAD.mine", stars="sky.stars", near=NEAR[0]), _parquet(_mine()))
    assert response.status_code == 200, response.text
    wanted = _oracle(words.format(mine="mine", stars="stars", near=NEAR[1]))
    got = pc.read_csv(io.BytesIO(response.content), convert_options=pc.ConvertOptions(strings_can_be_null=True)).to_pylist()
    assert [tuple(row.values()) for row in got] == wanted
    assert wanted


def test_pyvo_sends_tables_and_keeps_their_words(url: str) -> None:
    mine = Table({"n": [1, 2, 3], "ra": [10.0, 20.0, 30.0]})
    mine["ra"].unit, mine["ra"].description = "deg", "where"
    found = pyvo.dal.TAPService(url).run_sync("SELECT * FROM TAP_UPLOAD.t1 ORDER BY n", uploads={"t1": mine})
    assert list(found["n"]) == [1, 2, 3]
    field = found.getdesc("ra")
    assert (str(field.unit), field.description) == ("deg", "where")


def _fields(count: int) -> bytes:
    """Return a VOTable of fields on the sky as points, circles and polygons: small boxes around the first stars."""
    stars = _stars()
    rows = ""
    for n in range(count):
        ra, dec = stars["ra"][n].as_py(), stars["dec"][n].as_py()
        low, high, wide = max(dec - 1, -89.0), min(dec + 1, 89.0), 1 / np.cos(np.radians(dec))
        box = f"{ra - wide} {low} {ra + wide} {low} {ra + wide} {high} {ra - wide} {high}"
        where = f"{ra} {dec}" if n else "NaN NaN"
        rows += f"<TR><TD>{n}</TD><TD>{where}</TD><TD>{ra} {dec} 1.5</TD><TD>{box if n else ''}</TD></TR>"
    return (
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE><FIELD name="n" datatype="int"/>'
        '<FIELD name="centre" datatype="double" arraysize="2" xtype="point" ucd="pos.eq" unit="deg"/>'
        '<FIELD name="disc" datatype="double" arraysize="3" xtype="circle"/>'
        '<FIELD name="box" datatype="double" arraysize="*" xtype="polygon"/>'
        f"<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    ).encode()


def test_geometries_stay_what_they_are(url: str) -> None:
    found = _ask(url, "SELECT * FROM TAP_UPLOAD.mine ORDER BY n", _fields(3), RESPONSEFORMAT="votable/td")
    table = parse_single_table(io.BytesIO(found.content))
    assert [(f.name, f.arraysize, f.xtype) for f in table.fields[1:]] == [
        ("centre", "2", "point"), ("disc", "3", "circle"), ("box", "*", "polygon"),
    ]  # fmt: skip
    assert (table.fields[1].ucd, table.fields[1].unit) == ("pos.eq", "deg")
    assert _ask(url, "SELECT n FROM TAP_UPLOAD.mine WHERE centre IS NULL OR box IS NULL", _fields(3)).text.split() == ["n", "0"]
    # What a geometry means does not depend on where it stands: constants have been compared with one DuckDB elsewhere.
    stars, asked = (
        _stars(),
        "SELECT m.n, s.id FROM TAP_UPLOAD.mine AS m JOIN sky.stars AS s ON 1 = CONTAINS(POINT(s.ra, s.dec), {})",
    )
    rows = {
        name: _ask(url, asked.format(f"m.{name}") + " ORDER BY m.n, s.id", _fields(6)).text.split()[1:] for name in ("disc", "box")
    }
    for n in range(1, 6):
        ra, dec = stars["ra"][n].as_py(), stars["dec"][n].as_py()
        circle = f"SELECT {n} AS n, id FROM sky.stars WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE({ra}, {dec}, 1.5)) ORDER BY id"
        assert [row for row in rows["disc"] if row.startswith(f"{n},")] == _ask(url, circle, _fields(1)).text.split()[1:]
    assert len(rows["box"]) >= 5
    assert set(rows["box"]) <= set(rows["disc"])


def test_numbers_that_are_no_geometry_are_refused(url: str) -> None:
    content = _fields(2).replace(b'arraysize="3" xtype="circle"', b'arraysize="*" xtype="polygon"')
    found = _ask(url, "SELECT * FROM TAP_UPLOAD.mine", content)
    assert found.status_code == 400
    assert "'disc'" in found.text
    assert "3 values are no polygon" in found.text


def test_jobs_keep_their_uploads(url: str) -> None:
    service = pyvo.dal.TAPService(url)
    mine = Table({"n": [1, 2], "id": [41, 82]})
    query = "SELECT m.n, s.mag FROM TAP_UPLOAD.mine AS m JOIN sky.stars AS s ON m.id = s.id ORDER BY m.n"
    assert list(service.run_async(query, uploads={"mine": mine})["n"]) == [1, 2]
    job = service.submit_job(query, uploads={"mine": mine})
    job.run().wait(phases={"COMPLETED", "ERROR"}, timeout=30)
    assert list(job.fetch_result()["n"]) == [1, 2]
    job.delete()


def test_jobs_refuse_bad_uploads_when_they_are_made(url: str) -> None:
    words = {"LANG": "ADQL", "QUERY": "SELECT * FROM TAP_UPLOAD.mine", "UPLOAD": "mine,param:t"}
    response = httpx.post(f"{url}/async", data=words, files={"t": ("t", b"<VOTABLE>")}, trust_env=False)
    assert response.status_code == 400
    assert "upload mine" in response.text


def test_two_uploads_of_any_case(url: str) -> None:
    files = {"a": ("a", b"x,y\n1,2\n3,4\n"), "b": ("b", b"x\n3\n")}
    query = "SELECT p.y FROM tap_upload.first AS p JOIN TAP_UPLOAD.SECOND AS q ON p.x = q.x"
    words = {"LANG": "ADQL", "QUERY": query, "RESPONSEFORMAT": "csv", "UPLOAD": "First,param:a;second,param:b"}
    response = httpx.post(f"{url}/sync", data=words, files=files, trust_env=False)
    assert response.text.split() == ["y", "4"]


@pytest.mark.parametrize("kind", ["votable", "votable/td", "csv", "ecsv", "fits", "json", "parquet", "arrow"])
def test_columns_without_values_and_lists_of_decimals(url: str, kind: str) -> None:
    lists = pa.array([[Decimal("1.5"), None], None], pa.list_(pa.decimal128(5, 2)))
    found = _ask(url, "SELECT * FROM TAP_UPLOAD.mine", _parquet(pa.table({"none": pa.nulls(2), "d": lists})), RESPONSEFORMAT=kind)
    assert found.status_code == 200, found.text
    assert kind in ("fits", "parquet", "arrow") or "1.5" in found.text or kind == "votable"


def test_an_upload_is_gone_with_its_query(url: str) -> None:
    assert _ask(url, "SELECT COUNT(*) AS c FROM TAP_UPLOAD.mine", b"x\n1\n").status_code == 200
    words = {"LANG": "ADQL", "QUERY": "SELECT * FROM TAP_UPLOAD.mine"}
    again = httpx.post(f"{url}/sync", data=words, trust_env=False)
    assert again.status_code == 400
    assert "mine" in again.text


@pytest.mark.parametrize(
    ("upload", "content", "words"),
    [
        ("mine,param:other", b"x\n1\n", "no part"),
        ("mine", b"x\n1\n", "is not"),
        ("a.b,param:t", b"x\n1\n", "name of a table"),
        ("mine,http://127.0.0.1/x", b"x\n1\n", "no public address"),
        ("mine,file:///etc/passwd", b"x\n1\n", "no kind of address"),
        ("mine,param:t", b"", "empty"),
        ("mine,param:t", b'<!DOCTYPE x [<!ENTITY a "b">]><VOTABLE/>', "DOCTYPE"),
        ("mine,param:t", b"\0\1\2\3", "upload mine"),
    ],
)
def test_what_is_refused(url: str, upload: str, content: bytes, words: str) -> None:
    response = _ask(url, "SELECT * FROM TAP_UPLOAD.mine", content, UPLOAD=upload)
    assert response.status_code == 400
    assert words in response.text
    assert "/tmp" not in response.text


def test_values_of_the_parameter() -> None:
    assert wanted_uploads(["a,param:x; b , param:y"]) == (Wanted("a", "x"), Wanted("b", "y"))
    assert wanted_uploads(["a,param:x", "a,param:x"]) == (Wanted("a", "x"),)
    with pytest.raises(UploadError, match="two tables"):
        wanted_uploads(["a,param:x", "A,param:y"])


def test_plans_and_quotes_know_uploads(url: str) -> None:
    words = {"LANG": "ADQL", "QUERY": STATEMENTS["by place"].format(mine="TAP_UPLOAD.mine", stars="sky.stars", near=NEAR[0])}
    files = {"t": ("x", _parquet(_mine()))}
    for more in ({}, {"ANALYZE": "1"}):
        plan = httpx.post(f"{url}/query-plan", data=words | {"UPLOAD": "mine,param:t"} | more, files=files, trust_env=False)
        assert plan.status_code == 200, plan.text
        assert "mine" in plan.text
    assert httpx.post(f"{url}/query-plan", data=words, trust_env=False).status_code == 400
    job = httpx.post(f"{url}/async", data=words | {"UPLOAD": "mine,param:t", "PHASE": "RUN"}, files=files, trust_env=False)
    place = job.headers["location"]
    deadline = time.monotonic() + 20
    while not (quote := httpx.get(f"{place}/quote", trust_env=False).text) and time.monotonic() < deadline:
        if httpx.get(f"{place}/phase", trust_env=False).text not in ("QUEUED", "EXECUTING"):
            break  # it was faster than its estimate
        time.sleep(0.02)
    assert quote or httpx.get(f"{place}/phase", trust_env=False).text == "COMPLETED"


_SHAPES = """<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>
<COOSYS ID="sky" system="GALACTIC" epoch="J2016.0"/><TIMESYS ID="clock" timescale="TDB" refposition="BARYCENTER" timeorigin="MJD-origin"/>
<TABLE>
<FIELD name="n" datatype="int" ucd="meta.id" utype="a:b"><DESCRIPTION>which</DESCRIPTION></FIELD>
<FIELD name="pt" datatype="double" arraysize="2" xtype="point" unit="deg" ref="sky"/>
<FIELD name="circ" datatype="float" arraysize="3" xtype="circle"/>
<FIELD name="poly" datatype="double" arraysize="*" xtype="polygon"/>
<FIELD name="span" datatype="double" arraysize="2" xtype="interval"/>
<FIELD name="cover" datatype="char" arraysize="*" xtype="moc"/>
<FIELD name="mjd" datatype="double" xtype="mjd" unit="d" ref="clock"/>
<FIELD name="at" datatype="char" arraysize="*" xtype="timestamp"/>
<FIELD name="plain" datatype="double" arraysize="2"/>
<DATA><TABLEDATA>
<TR><TD>1</TD><TD>10 20</TD><TD>10 20 1</TD><TD>10 20 11 20 11 21</TD><TD>1 2</TD><TD>4/5-7</TD><TD>59000.5</TD>
<TD>2020-01-02T03:04:05</TD><TD>1 2</TD></TR>
<TR><TD>2</TD><TD/><TD/><TD/><TD/><TD/><TD/><TD/><TD/></TR>
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""


@pytest.mark.parametrize("serialisation", ["tabledata", "binary", "binary2"])
@pytest.mark.parametrize("through", ["votable", "parquet"])
def test_what_columns_are_survives(url: str, serialisation: str, through: str) -> None:
    content = _SHAPES.encode()
    if through == "parquet":
        content = _ask(url, "SELECT * FROM TAP_UPLOAD.mine", content, RESPONSEFORMAT="parquet").content
    response = _ask(url, "SELECT * FROM TAP_UPLOAD.mine ORDER BY n", content, RESPONSEFORMAT=f"votable/{serialisation}")
    table = parse_single_table(io.BytesIO(response.content))
    assert {field.name: (field.xtype, field.arraysize) for field in table.fields} == {
        "n": (None, None), "pt": ("point", "2"), "circ": ("circle", "3"), "poly": ("polygon", "*"), "span": ("interval", "2"),
        "cover": ("moc", "*"), "mjd": ("mjd", None), "at": ("timestamp", "*"), "plain": (None, "*"),
    }  # fmt: skip
    assert (table.fields[0].ucd, table.fields[0].utype, table.fields[0].description) == ("meta.id", "a:b", "which")
    assert str(table.fields[1].unit) == "deg"
    document = ElementTree.fromstring(response.content)
    ids = {e.get("ID"): {k: v for k, v in e.items() if k != "ID"} for e in document.iter() if e.get("ID")}
    refs = {e.get("name"): ids[e.get("ref")] for e in document.iter() if e.get("ref")}
    assert refs == {
        "pt": {"system": "galactic", "epoch": "J2016.0"},
        "mjd": {"timescale": "TDB", "refposition": "BARYCENTER", "timeorigin": "MJD-origin"},
    }
    row = table.array[0]
    assert [list(row[name]) for name in ("pt", "circ", "span")] == [[10, 20], [10, 20, 1], [1, 2]]
    assert (list(row["poly"]), row["cover"], row["mjd"]) == ([10, 20, 11, 20, 11, 21], "4/5-7", 59000.5)


def test_uploaded_shapes_are_shapes(url: str) -> None:
    query = "SELECT n FROM TAP_UPLOAD.mine WHERE CONTAINS(pt, CIRCLE(10.1, 20, 1)) = 1 AND CONTAINS(POINT(10.9, 20.1), poly) = 1"
    assert _ask(url, query, _SHAPES.encode(), RESPONSEFORMAT="csv").text.split() == ["n", "1"]


def test_what_is_no_shape_is_refused(url: str) -> None:
    wrong = pa.table({"pt": pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float64()))})
    wrong = wrong.cast(pa.schema([wrong.schema.field("pt").with_metadata({"xtype": "point"})]))
    response = _ask(url, "SELECT * FROM TAP_UPLOAD.mine", _parquet(wrong))
    assert response.status_code == 400
    assert "column 'pt': 1 numbers are no point" in response.text
