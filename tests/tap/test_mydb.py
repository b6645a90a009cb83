"""Tables of users over HTTP to a cluster: made, queried, shared, dropped; what one has does not exist for another."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.app import ClusterSettings, cluster
from qengine.catalog.loads import UNFINISHED
from qengine.catalog.user_tables import UserTables
from qengine.catalog.who import Identity, Origin
from qengine.cli import run
from qengine.coordinator.service import QueryService
from qengine.errors import QueryError
from qengine.loader.collect import collect
from qengine.opening import open_store
from qengine.tap.access import AccessSettings, Doorkeeper
from qengine.tap.app import create_app
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import offering_jobs
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.mydb_into import KeepingService
from qengine.tap.mydb_keep import Keeper
from qengine.tap.server import listening
from qengine.tap.service import TapSettings

STARS, MINE = 20_000, 400
RADIUS = 0.2
LIMITS = LimitSettings(anonymous="", users="", people=("poor: storage=1kB", "dan: storage=300kB"))


def _stars() -> pa.Table:
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, STARS), np.degrees(np.arcsin(rng.uniform(-1, 1, STARS)))
    return pa.table({"id": np.arange(STARS), "ra": ra, "dec": dec, "mag": np.round(ra / 20, 2)})


def _mine() -> pa.Table:
    stars = _stars()
    ids = np.arange(MINE) * 41 % STARS
    ra, dec = stars["ra"].to_numpy()[ids], np.clip(stars["dec"].to_numpy()[ids] + RADIUS / 3, -90, 90)
    field = pa.field("note", pa.string(), metadata={"description": "what I think of it"})
    notes = pa.array([f"note {n}" for n in range(MINE)])
    return pa.table({"id": ids, "ra": ra, "dec": dec}).append_column(field, notes)


@dataclass
class Service:
    """A service over a store, and clients of two users and of nobody."""

    url: str
    tokens: dict[str, str]

    def client(self, user: str = "") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)


@contextmanager
def serving(store: Path) -> Iterator[str]:
    ready, addresses = threading.Event(), list[str]()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        ending = asyncio.Event()
        ends.append((asyncio.get_running_loop(), ending))
        files, registry = open_store(store)
        gate = Gate(LIMITS, TapSettings())
        keeper = Keeper(registry, files, gate)
        with registry:
            async with (
                cluster(store, ClusterSettings()) as engine,
                nullcontext(KeepingService(engine, keeper, gate)) as service,
                offering_jobs(registry, service, tap=TapSettings(), settings=JobSettings(), gate=gate) as desk,
                listening(
                    create_app(service, jobs=desk, gate=gate, door=Doorkeeper(registry.users, AccessSettings()), keeper=keeper)
                ) as server,
            ):
                addresses.append(f"{server.address}/tap")
                ready.set()
                await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield addresses[0]
    finally:
        loop, ending = ends[0]
        loop.call_soon_threadsafe(ending.set)
        thread.join(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mydb")
    pq.write_table(_stars(), made / "stars.parquet")
    words = ["--table", "stars", "--key", "id", "--ra", "ra", "--dec", "dec", "--rows-per-tile", "1000"]
    assert run(["load", str(made / "stars.parquet"), "--store", str(made / "store"), "--into", "sky", *words]) == 0
    return made


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    with open_store(folder / "store")[1] as registry:
        users = registry.users
        return {name: users.create_token(users.add(name, groups=["club"]).name)[0] for name in ("ann", "bob", "poor", "dan")}


@pytest.fixture(scope="module")
def service(folder: Path, tokens: dict[str, str]) -> Iterator[Service]:
    with serving(folder / "store") as url:
        yield Service(url, tokens)


@pytest.fixture
def ann(service: Service) -> Iterator[httpx.Client]:
    with service.client("ann") as client:
        yield client
        for table in client.get("/mydb").json()["tables"]:
            client.delete(f"/mydb/{table['name']}")


@pytest.fixture
def bob(service: Service) -> Iterator[httpx.Client]:
    with service.client("bob") as client:
        yield client


def body(table: pa.Table, kind: str = "parquet") -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink) if kind == "parquet" else pc.write_csv(table, sink)
    return sink.getvalue()


def put(client: httpx.Client, name: str, table: pa.Table | None = None, kind: str = "parquet") -> dict[str, Any]:
    answer = client.put(f"/mydb/{name}", content=body(_mine() if table is None else table, kind))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def query(client: httpx.Client, text: str, status: int = 200, **more: str | list[str]) -> str:
    answer = client.get("/sync", params={"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv"} | more)
    assert answer.status_code == status, answer.text
    return answer.text


def oracle(text: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    for name, table in {"stars": _stars(), **tables}.items():
        connection.register(name, table)
    return connection.execute(text).fetchall()


def rows(text: str) -> list[tuple[Any, ...]]:
    found = pc.read_csv(io.BytesIO(text.encode()))
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def test_a_table_is_made_described_and_dropped(ann: httpx.Client) -> None:
    made = put(ann, "mine")
    assert (made["rows"], made["name"], made["has_position"], made["public"], made["groups"]) == (MINE, "mine", True, False, [])
    assert made["columns"] == ["id", "ra", "dec", "note"]
    assert made["bytes"] > 0
    assert ann.get("/mydb/mine").json() == made
    assert [one["name"] for one in ann.get("/mydb").json()["tables"]] == ["mine"]
    assert ann.put("/mydb/MINE", content=body(_mine())).status_code == 409
    assert ann.delete("/mydb/mine").status_code == 204
    for verb in ("GET", "DELETE"):
        assert ann.request(verb, "/mydb/mine").status_code == 404
    query(ann, "SELECT * FROM mydb.mine", 400)
    assert put(ann, "mine")["rows"] == MINE  # the same rows under the same name
    other = put(ann, "words", _mine().select(["id", "note"]), "csv")
    assert not other["has_position"]
    assert ann.get("/mydb").json()["bytes"] == sum(one["bytes"] for one in ann.get("/mydb").json()["tables"])


@pytest.mark.parametrize("columns", [["id", "ra", "dec", "note"], ["id", "note"]])
def test_it_is_joined_by_key(ann: httpx.Client, columns: list[str]) -> None:
    put(ann, "mine", _mine().select(columns))
    found = rows(query(ann, "SELECT s.id, m.note, s.mag FROM sky.stars s JOIN mydb.mine m ON m.id = s.id ORDER BY s.id"))
    expected = "SELECT s.id, m.note, s.mag FROM stars s JOIN mine m ON m.id = s.id ORDER BY s.id"
    assert found == oracle(expected, mine=_mine())
    found = rows(query(ann, "SELECT count(*) AS n FROM MyDB.mine m LEFT JOIN sky.stars s ON m.id = s.id AND s.mag < 5"))
    assert found == [(MINE,)]


def test_it_is_joined_by_position(ann: httpx.Client) -> None:
    put(ann, "mine")
    text = "SELECT m.note, s.id FROM mydb.mine m JOIN sky.stars s ON DISTANCE(s.ra, s.dec, m.ra, m.dec) < {} ORDER BY 1, 2"
    x = "cos(radians({0}.ra))*cos(radians({0}.dec))"
    y, z = x.replace("cos(radians({0}.ra))", "sin(radians({0}.ra))"), "sin(radians({0}.dec))"
    dots = " + ".join(f"{one.format('s')}*{one.format('m')}" for one in (x, y, z))
    expected = f"SELECT m.note, s.id FROM mine m JOIN stars s ON degrees(acos(least(1, {dots}))) < {RADIUS} ORDER BY 1, 2"
    assert sorted(rows(query(ann, text.format(RADIUS)))) == sorted(oracle(expected, mine=_mine()))


def test_it_does_not_exist_for_others(service: Service, ann: httpx.Client, bob: httpx.Client) -> None:
    put(ann, "mine")
    tables = "SELECT table_name FROM TAP_SCHEMA.tables WHERE table_name LIKE '%mine%'"
    assert "user_ann.mine" in query(ann, tables)
    assert "note" in query(ann, "SELECT column_name FROM TAP_SCHEMA.columns WHERE table_name = 'user_ann.mine'")
    assert "user_ann.mine" in ann.get("/tables").text
    with service.client() as nobody:
        for client in (bob, nobody):
            assert "mine" not in query(client, tables)
            assert "user_ann" not in query(client, "SELECT schema_name FROM TAP_SCHEMA.schemas")
            assert "user_ann" not in client.get("/tables").text
            for name in ("user_ann.mine", "mydb.mine", "mine"):
                other = name.replace("mine", "nope")
                for path in ("/sync", "/query-plan"):
                    said = client.get(path, params={"LANG": "ADQL", "QUERY": f"SELECT * FROM {name}"})
                    same = client.get(path, params={"LANG": "ADQL", "QUERY": f"SELECT * FROM {other}"})
                    assert said.status_code == same.status_code == 400
                    assert said.text.replace("mine", "nope") == same.text
        assert bob.get("/mydb").json()["tables"] == []
        assert bob.get("/mydb/mine").status_code == bob.delete("/mydb/mine").status_code == 404
        assert bob.patch("/mydb/mine", json={"public": True}).status_code == 404
        for verb, path in (("GET", "/mydb"), ("GET", "/mydb/mine"), ("DELETE", "/mydb/mine"), ("PUT", "/mydb/x")):
            assert nobody.request(verb, path).status_code == 401
        assert nobody.patch("/mydb/mine", json={"public": True}).status_code == 401


def test_it_is_shared(service: Service, ann: httpx.Client, bob: httpx.Client) -> None:
    put(ann, "mine")
    count = "SELECT count(*) AS n FROM user_ann.mine"
    query(bob, count, 400)
    assert ann.patch("/mydb/mine", json={"group": "club"}).json()["groups"] == ["club"]
    assert rows(query(bob, count)) == [(MINE,)]
    assert "user_ann.mine" in query(bob, "SELECT table_name FROM TAP_SCHEMA.tables")
    with service.client() as nobody:
        query(nobody, count, 400)
        assert ann.patch("/mydb/mine", json={"public": True}).json()["public"] is True
        assert rows(query(nobody, count)) == [(MINE,)]
        assert ann.patch("/mydb/mine", json={"group": "club", "shared": False}).json()["groups"] == []
        assert ann.patch("/mydb/mine", json={"public": False}).json()["public"] is False
        query(nobody, count, 400)
        query(bob, count, 400)
        # what is dropped was shared; what comes after it is not
        ann.patch("/mydb/mine", json={"public": True})
        ann.delete("/mydb/mine")
        assert put(ann, "mine")["public"] is False
        query(nobody, count, 400)
    for words in ({}, {"group": "club", "public": True}, {"group": 3}, {"public": True, "shared": False}, {"group": "no group"}):
        assert ann.patch("/mydb/mine", json=words).status_code == 400
    assert ann.patch("/mydb/mine", content=b"[1").status_code == 400


def test_what_cannot_be_a_table_is_refused(service: Service, ann: httpx.Client) -> None:
    for name in ("1x", "a-b", "x" * 65, "a.b"):
        assert ann.put(f"/mydb/{name}", content=body(_mine())).status_code == 400
    for content in (b"", b"nothing", body(_mine())[:1000]):
        assert ann.put("/mydb/broken", content=content).status_code == 400
    outside = pa.table({"ra": [1.0, 400.0], "dec": [1.0, 2.0]})
    answer = ann.put("/mydb/outside", content=body(outside))
    assert answer.status_code == 400
    assert "ra = 400.0 is outside" in answer.text
    hours = pa.table([[1.0], [2.0]], pa.schema([pa.field("ra", pa.float64(), metadata={"unit": "hour"}), ("dec", pa.float64())]))
    assert "not degrees in ICRS" in ann.put("/mydb/hours", content=body(hours)).text
    assert ann.get("/mydb").json()["tables"] == []
    with service.client("poor") as poor:
        answer = poor.put("/mydb/mine", content=body(_mine()))
        assert answer.status_code == 413, answer.text
        assert poor.get("/mydb").json()["tables"] == []
        query(poor, "SELECT * FROM mydb.mine", 400)


def test_it_is_there_after_a_restart(folder: Path, service: Service) -> None:
    with service.client("bob") as bob:
        put(bob, "kept")
        bob.patch("/mydb/kept", json={"group": "club"})
        known = bob.get("/mydb/kept").json()
    with serving(folder / "store") as url:
        again = Service(url, service.tokens)
        with again.client("bob") as bob, again.client("ann") as ann:
            assert bob.get("/mydb/kept").json() == known
            assert rows(query(ann, "SELECT count(*) AS n FROM user_bob.kept")) == [(MINE,)]
            assert bob.delete("/mydb/kept").status_code == 204
    with service.client("bob") as bob:  # another process has dropped it
        deadline = time.monotonic() + 10
        while bob.get("/mydb/kept").status_code != 404 and time.monotonic() < deadline:
            time.sleep(0.1)
        query(bob, "SELECT * FROM mydb.kept", 400)


def job(client: httpx.Client, text: str) -> tuple[str, str]:
    """Run a job to its end and return its phase and its result, or its error."""
    words = {"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv", "PHASE": "RUN"}
    address = client.post("/async", data=words).headers["location"]
    deadline = time.monotonic() + 30
    while (phase := client.get(f"{address}/phase").text) in ("QUEUED", "EXECUTING") and time.monotonic() < deadline:
        time.sleep(0.05)
    return phase, client.get(f"{address}/results/result" if phase == "COMPLETED" else f"{address}/error").text


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_answer_becomes_a_table(ann: httpx.Client, way: str) -> None:
    text = "SELECT id, ra, dec, mag * 2 AS double_mag INTO mydb.bright FROM sky.stars WHERE mag < 5"
    (count,) = oracle("SELECT count(*) FROM stars WHERE mag < 5")
    answer = query(ann, text) if way == "sync" else job(ann, text)[1]
    known = ann.get("/mydb/bright").json()
    assert rows(answer) == [("mydb.bright", *count, known["bytes"])]
    assert known["columns"] == ["id", "ra", "dec", "double_mag"]
    assert known["has_position"]
    expected = "SELECT id, ra, dec, mag * 2 FROM stars WHERE mag < 5 ORDER BY id"
    assert rows(query(ann, "SELECT * FROM mydb.bright ORDER BY id")) == oracle(expected)
    joined = "SELECT sum(b.double_mag - s.mag) AS x FROM mydb.bright b JOIN sky.stars s ON s.id = b.id"
    found = rows(query(ann, joined))[0][0]
    assert found == pytest.approx(oracle("SELECT sum(mag) FROM stars WHERE mag < 5")[0][0])
    # it is there, and is not made again
    again = query(ann, text, 400) if way == "sync" else job(ann, text)[1]
    assert "mydb.bright is there already" in again
    assert ann.get("/mydb/bright").json() == known
    # of tables of one's own, as often as one likes
    query(
        ann, "SELECT count(*) AS n, max(double_mag) AS most INTO MyDB.Total FROM mydb.bright UNION SELECT 1, 2.0 FROM mydb.bright"
    )
    assert ann.get("/mydb/total").json()["rows"] == 2


def test_units_and_descriptions_stay(ann: httpx.Client) -> None:
    put(ann, "mine")
    query(ann, "SELECT note, id INTO mydb.notes FROM mydb.mine")
    known = query(ann, "SELECT description FROM TAP_SCHEMA.columns WHERE table_name = 'user_ann.notes' AND column_name = 'note'")
    assert "what I think of it" in known


def test_older_snapshots_are_read(service: Service, ann: httpx.Client, bob: httpx.Client) -> None:
    put(ann, "first", pa.table({"n": [1, 2]}))
    said = query(ann, "SELECT n FROM mydb.first", RESPONSEFORMAT="votable")
    (before,) = re.findall(r'name="SNAPSHOT" value="user_ann[@: ](\d+)"', said)
    put(ann, "second", pa.table({"n": [1, 2, 3]}))
    for name in ("mydb", "MyDB", "user_ann"):
        assert rows(query(ann, "SELECT COUNT(*) AS n FROM mydb.first", SNAPSHOT=f"{name}:{before}")) == [(2,)]
        assert "there is no table" in query(ann, "SELECT n FROM mydb.second", 400, SNAPSHOT=f"{name}:{before}")
    assert rows(query(ann, f"SELECT COUNT(*) AS n FROM mydb.first AT (VERSION => {before})")) == [(2,)]
    assert "is what mydb means" in query(ann, "SELECT n FROM mydb.first", 400, SNAPSHOT=["mydb:1", f"user_ann:{before}"])
    for number in ("0", "77", "99999999999999999999"):
        assert f"has no snapshot {number}" in query(ann, "SELECT n FROM mydb.first", 400, SNAPSHOT=f"mydb:{number}")
    for client, mine in ((bob, "user_bob"), (service.client(), "mydb")):
        for name, told in (("mydb:1", mine), (f"user_ann:{before}", "user_ann"), ("user_nobody:1", "user_nobody")):
            assert f"there is no catalogue {told}" in query(client, "SELECT TOP 1 id FROM sky.stars", 400, SNAPSHOT=name)
    assert ann.delete("/mydb/second").status_code == 204
    assert "expired" in query(ann, "SELECT n FROM mydb.first", 400, SNAPSHOT=f"mydb:{before}")  # what is dropped is gone


def test_what_fails_leaves_nothing(service: Service, ann: httpx.Client) -> None:
    for text, said in (
        ("SELECT 1 / (id - id) AS x, sqrt(-1 - id) AS y INTO mydb.bad FROM sky.stars", ""),
        ("SELECT CAST('x' || ra AS BIGINT) AS x INTO mydb.bad FROM sky.stars", ""),
        ("SELECT id INTO mydb.bad FROM sky.nothing", "nothing"),
        ("SELECT id, 400.0 AS ra, dec INTO mydb.bad FROM sky.stars", "ra = 400.0 is outside"),
        ("SELECT id INTO bad FROM sky.stars", "INTO mydb."),
        ("SELECT id INTO sky.bad FROM sky.stars", "INTO mydb."),
        ("SELECT id INTO mydb.a FROM sky.stars UNION SELECT id INTO mydb.b FROM sky.stars", ""),
        ("SELECT id FROM (SELECT id INTO mydb.bad FROM sky.stars) x", ""),
    ):
        answer = ann.get("/sync", params={"LANG": "ADQL", "QUERY": text})
        assert answer.status_code == 400, (text, answer.text)
        assert said in answer.text
        assert ann.get("/mydb").json()["tables"] == [], text
    phase, said = job(ann, "SELECT CAST('x' || ra AS BIGINT) AS x INTO mydb.bad FROM sky.stars")
    assert phase == "ERROR"
    text = "SELECT id INTO mydb.none FROM sky.stars"
    for words in ({"MAXREC": "0"}, {"MAXCOST": "1B"}):
        ann.get("/sync", params={"LANG": "ADQL", "QUERY": text, **words})
        assert ann.get("/mydb").json()["tables"] == [], words
    assert ann.get("/query-plan", params={"LANG": "ADQL", "QUERY": text, "ANALYZE": "1"}).status_code == 200
    assert ann.get("/mydb").json()["tables"] == []
    with service.client() as nobody, service.client("poor") as poor:
        assert nobody.get("/sync", params={"LANG": "ADQL", "QUERY": text}).status_code == 401
        assert "allowed" in query(poor, text, 400) or "may still keep" in query(poor, text, 400)
        assert poor.get("/mydb").json()["tables"] == []


def test_a_job_that_runs_again_finds_what_it_made(folder: Path) -> None:
    asyncio.run(_run_again(folder))


async def _run_again(folder: Path) -> None:
    identity, text = Identity("cat"), "SELECT id INTO mydb.once FROM sky.stars WHERE id < 10"
    gate = Gate(LIMITS, TapSettings())
    files, registry = open_store(folder / "store")
    with registry:
        async with cluster(folder / "store", ClusterSettings()) as engine:
            service = KeepingService(engine, Keeper(registry, files, gate), gate)
            found = []
            for _ in range(2):
                answer = await service.query(text, identity=identity, origin=Origin("async", "job 1"))
                found += [batch.to_pylist() async for batch in answer.batches]
                await answer.close()
            assert found[0] == found[1]
            assert found[0][0]["row_count"] == 10
            with pytest.raises(QueryError, match="there already"):
                await service.query(text, identity=identity, origin=Origin("async", "job 2"))
            # one that is given up while its table is made leaves none
            answer = await service.query("SELECT * INTO mydb.never FROM sky.stars", identity=identity)
            making = asyncio.ensure_future(anext(aiter(answer.batches)))
            while not any(load.catalog == "user_cat" and load.state in UNFINISHED for load in registry.loads()):
                await asyncio.sleep(0.001)
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            await answer.close()
        tables = UserTables(registry)
        assert [one.name for one in tables.of("cat")] == ["once"]
        tables.drop("cat", "once")


def test_tables_and_jobs_share_a_quota(service: Service) -> None:
    with service.client("dan") as dan:
        put(dan, "mine")
        allowed = dan.get("/mydb").json()["allowed_bytes"]
        assert allowed == 300_000
        number = 1
        while (answer := dan.put(f"/mydb/more_{number}", content=body(_mine()))).status_code == 201:
            number += 1
        assert answer.status_code == 413
        assert number > 1
        assert dan.get("/mydb").json()["bytes"] <= allowed
        assert len(dan.get("/mydb").json()["tables"]) == number
        query(dan, "SELECT id FROM sky.stars", 200)
        said = query(dan, "SELECT * INTO mydb.big FROM sky.stars", 400)
        assert "GB" in said
        phase, text = job(dan, "SELECT TOP 20000 * FROM sky.stars")
        assert phase == "ERROR"
        assert "you may still keep" in text
        for table in dan.get("/mydb").json()["tables"]:
            assert dan.delete(f"/mydb/{table['name']}").status_code == 204
        put(dan, "mine")


def test_one_of_many_at_once_makes_the_table(folder: Path) -> None:
    asyncio.run(_at_once(folder))


async def _at_once(folder: Path) -> None:
    identity, gate = Identity("eve"), Gate(LIMITS, TapSettings())
    files, registry = open_store(folder / "store")

    async def make(engine: QueryService, most: int, name: str = "race") -> int:
        # each as if it were a process of its own
        service = KeepingService(engine, Keeper(registry, files, gate), gate)
        text = f"SELECT id INTO mydb.{name} FROM sky.stars WHERE id < {most}"
        try:
            answer = await service.query(text, identity=identity)
            found = [batch.to_pylist() async for batch in answer.batches]
            await answer.close()
        except QueryError as error:
            refused.append(str(error))
            return 0
        return int(found[0][0]["row_count"])

    refused: list[str] = []
    with registry:
        async with cluster(folder / "store", ClusterSettings()) as engine:
            made = await asyncio.gather(*(make(engine, most, f"own_{most}") for most in range(10, 15)))
            assert made == list(range(10, 15))  # others do not stand in the way, not even in a new catalogue
            await asyncio.gather(*(asyncio.to_thread(UserTables(registry).drop, "eve", f"own_{most}") for most in range(10, 15)))
            for _ in range(4):
                made = await asyncio.gather(*(make(engine, most) for most in range(10, 15)))
                (winner,) = [rows for rows in made if rows]
                tables = UserTables(registry)
                assert [one.rows for one in tables.of("eve")] == [winner]
                assert winner in range(10, 15)
                tables.drop("eve", "race")
    assert len(refused) == 4 * 4
    assert all("there already" in said or "another request" in said for said in refused), refused


def test_whatever_is_sent_is_answered(service: Service) -> None:
    shares = st.dictionaries(st.sampled_from(["group", "public", "shared", "x"]), st.booleans() | st.text(max_size=5) | st.none())
    bodies = shares.map(lambda words: json.dumps(words).encode()) | st.binary(max_size=60)

    with service.client("bob") as bob:

        @settings(max_examples=120, deadline=None)
        @given(
            st.sampled_from(["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD"]),
            st.text(max_size=8) | st.sampled_from(["kept", "mine"]),
            bodies,
            st.sampled_from(["application/json", "text/csv", "multipart/form-data", "application/x-www-form-urlencoded"]),
        )
        def check(verb: str, name: str, content: bytes, kind: str) -> None:
            path = f"/mydb/{quote(name, safe='')}"
            answer = bob.request(verb, path, content=content, headers={"content-type": kind}, follow_redirects=True)
            assert answer.status_code < 500, (verb, name, content, answer.text)
            assert "Traceback" not in answer.text
            assert "/tmp/" not in answer.text

        check()
        for table in bob.get("/mydb").json()["tables"]:
            bob.delete(f"/mydb/{table['name']}")


def test_what_is_dropped_takes_no_place(folder: Path, service: Service) -> None:
    with service.client("bob") as bob:
        put(bob, "placed")
        put(bob, "words", _mine().select(["id", "note"]))
        for name in ("placed", "words"):
            assert bob.delete(f"/mydb/{name}").status_code == 204
    place = folder / "store" / "user_bob"
    assert list(place.glob("[a-z]*/**/*.parquet"))  # queries may read them still
    with open_store(folder / "store")[1] as registry:
        collect(folder / "store", registry, "user_bob", grace=timedelta(0))
    assert not list(place.glob("[a-z]*/**/*.parquet"))
    with service.client("bob") as bob:
        assert put(bob, "placed")["rows"] == MINE
        assert rows(query(bob, "SELECT count(*) AS n FROM mydb.placed")) == [(MINE,)]
        bob.delete("/mydb/placed")
