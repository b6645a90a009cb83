"""Whatever is sent, the answer is one that its sender can act on: no fault of ours, no hang, nothing of the inside.

The service is a real one: a coordinator and a worker in this process over a small sky, so that statements go all the way. The default
suite sends some hundred requests, the slow one twenty thousand.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.app import ClusterSettings, cluster
from qengine.tap.app import create_app
from qengine.tap.server import listening
from qengine.tap.service import TapSettings
from tests.support.cluster import load_skies
from tests.support.sky_builder import build_sky

QUICK, SLOW = 60, 4_000
HANG_S = 10.0
LEAKS = re.compile(r'Traceback|File "|\.py\b|/tmp/|/work/|/home/|site-packages|\.parquet|duckdb|sqlglot|sqlalchemy', re.IGNORECASE)

WORDS = (
    "SELECT", "TOP 5", "TOP -1", "*", "FROM", "WHERE", "AND", "OR", "NOT", "GROUP BY", "ORDER BY", "HAVING", "JOIN", "LEFT JOIN", "ON", "USING (id)", "UNION", "WITH q AS (",
    "CASE WHEN", "THEN", "END", "COUNT(*)", "SUM(", "MAX(", "ABS(", "LOG(", "SQRT(", "MOD(", "POWER(", "CAST(", "AS INTEGER)", "AS TIMESTAMP)", "POINT(", "CIRCLE(", "POLYGON(",
    "CONTAINS(", "DISTANCE(", "AREA(", "IN_UNIT(", "COALESCE(", ")", ",", "= 1", "< 2", "0", "1e308", "-9223372036854775808", "99999999999999999999", "'", "'a'", "NULL", "IS NULL",
    "BETWEEN 1 AND 2", "LIKE '%'", "/ 0", "% 0", "||", ";", "--", "/*", '"', "\x00", "\ud7ff", "é", "TAP_SCHEMA.tables", "TAP_SCHEMA.columns", "qengine_meta.parts",
    "read_parquet('/etc/passwd')", "'/etc/passwd'", '"/etc/passwd"', "PRAGMA", "ATTACH", "COPY", "INSTALL httpfs", "OFFSET 3", "id", "ra", "dec", "a.id", "SKY.Object AS a",
    "SKY.Object", "SKY.Star AS b", "SKY.Source", "DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.01", "CIRCLE(0, 90, 1)",
)  # fmt: skip


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    made = build_sky(7)
    return load_skies(tmp_path_factory.mktemp("fuzz"), [made]), made.name


@pytest.fixture(scope="module")
def address(sky: tuple[Path, str]) -> Iterator[str]:
    started, addresses, ends = threading.Event(), [], []

    async def serve() -> None:
        ending = asyncio.Event()
        ends.append((asyncio.get_running_loop(), ending))
        tap = TapSettings(request_bytes=200_000, maxrec=1000)
        async with cluster(sky[0], ClusterSettings()) as service, listening(create_app(service, tap)) as server:
            addresses.append(f"{server.address}/tap")
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(60)
    yield addresses[0]
    loop, ending = ends[0]
    loop.call_soon_threadsafe(ending.set)
    thread.join(30)


def check(send: httpx.Client, method: str, url: str, **more: object) -> httpx.Response:
    began = time.monotonic()
    answer = send.request(method, url, timeout=HANG_S, **more)  # type: ignore[arg-type]
    assert time.monotonic() - began < HANG_S
    assert answer.status_code < 500, (method, url, more, answer.text[:2000])
    if answer.status_code >= 400 or b'"ERROR"' in answer.content[:1000]:
        # What was sent may be quoted.
        sent = f"{url} {more}"
        told = [found[0] for found in LEAKS.finditer(answer.text) if found[0].lower() not in sent.lower()]
        assert not told, (told, more, answer.text[:2000])
    return answer


STATEMENTS = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=25).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=12).map(lambda words: "SELECT " + " ".join(words)),
    st.builds(
        lambda columns, table, rest: f"SELECT TOP 5 {', '.join(columns)} FROM {table} {' '.join(rest)}",
        st.lists(st.sampled_from(["id", "ra", "dec", "*", "COUNT(*)", "ra / 0", "SQRT(-1)", "LOG(0)", "ACOS(2)", "id * 9223372036854775807", "CAST('x' AS INTEGER)", "POINT(ra, dec)", "AREA(CIRCLE(1, 2, 3))", "1e308 * 1e308", "CAST(ra AS SMALLINT)"]), min_size=1, max_size=4),
        st.sampled_from(["SKY.Object", "SKY.Source", "SKY.Object AS a JOIN SKY.Star AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.01", "TAP_SCHEMA.columns"]),
        st.lists(st.sampled_from(["WHERE ra > 0", "WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 90, 1)) = 1", "ORDER BY 1", "GROUP BY id", "OFFSET 2"]), max_size=2),
    ),
    st.text(max_size=200),
)  # fmt: skip
PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["LANG", "QUERY", "MAXREC", "FORMAT", "RESPONSEFORMAT", "REQUEST", "SNAPSHOT", "MAXCOST", "UPLOAD", "RUNID", "lang", "PHASE", "VERSION"])
        | st.text(max_size=10),
        st.sampled_from(["ADQL", "SQL", "csv", "votable", "fits", "parquet", "0", "-1", "1e9", "99999999999999999999999", "doQuery", "SKY:1", "SKY:x", "t,param:t", "t,http://127.0.0.1/", "SELECT 1 FROM TAP_SCHEMA.tables"])
        | st.text(max_size=30),
    ),
    max_size=8,
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=400),
    st.builds(
        lambda name, value, kind, end: (
            b"--x\r\nContent-Disposition: form-data; " + name + b"\r\n" + kind + b"\r\n\r\n" + value + b"\r\n--x" + end
        ),
        st.sampled_from(
            [b'name="QUERY"', b'name="UPLOAD"', b'name="t"; filename="t.xml"', b"name=", b'name="LANG"; filename*=x', b""]
        ),
        st.sampled_from(
            [b"SELECT", b"t,param:t", b"<VOTABLE/>", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>']
        )
        | st.binary(max_size=200),
        st.sampled_from([b"", b"Content-Type: text/xml", b"Content-Type: x; charset=utf-99", b"Content-Transfer-Encoding: base64"]),
        st.sampled_from([b"--\r\n", b"\r\n", b"", b"--"]),
    ),
)
KINDS = st.sampled_from(
    [
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json",
        "text/xml",
        "",
    ]
)
PATHS = st.sampled_from(["", "/sync", "/tables", "/tables/x", "/capabilities", "/examples", "/query-plan", "/progress", "/progress/x", "/links/a/b", "/async", "/../x", "/%00", "/openapi.json"])  # fmt: skip


class Fuzz:
    """The same checks for both numbers of requests."""

    def __init__(self, address: str, sky: str, count: int) -> None:
        self.address, self.sky = address, sky
        self.settings = settings(
            max_examples=count, deadline=None, database=None, derandomize=count == QUICK,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        )  # fmt: skip

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=HANG_S) as send:

            @self.settings
            @given(
                STATEMENTS, st.sampled_from(["ADQL", "ADQL-2.1-strict", "SQL"]), st.sampled_from(["votable", "csv", "json", "fits"])
            )
            def statements(text: str, lang: str, kind: str) -> None:
                words = {"LANG": lang, "QUERY": text.replace("SKY", self.sky), "RESPONSEFORMAT": kind, "MAXREC": "10"}
                check(send, "POST", f"{self.address}/sync", data=words)

            @self.settings
            @given(PAIRS, st.sampled_from(["GET", "POST"]))
            def parameters(pairs: list[tuple[str, str]], method: str) -> None:
                gathered: dict[str, list[str]] = {}
                for name, value in pairs:
                    gathered.setdefault(name, []).append(value)
                where = "params" if method == "GET" else "data"
                check(send, method, f"{self.address}/sync", **{where: gathered})

            @self.settings
            @given(BODIES, KINDS)
            def bodies(content: bytes, kind: str) -> None:
                headers = {"Content-Type": kind} if kind else {}
                check(send, "POST", f"{self.address}/sync", content=content, headers=headers)

            @self.settings
            @given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]), PATHS, PAIRS)
            def paths(method: str, path: str, pairs: list[tuple[str, str]]) -> None:
                check(send, method, self.address + path, params=pairs)

            @self.settings
            @given(STATEMENTS, st.sampled_from(["", "json", "x"]), st.sampled_from(["0", "1"]))
            def plans(text: str, kind: str, analyze: str) -> None:
                words = {"LANG": "ADQL", "QUERY": text.replace("SKY", self.sky), "RESPONSEFORMAT": kind, "ANALYZE": analyze}
                check(send, "GET", f"{self.address}/query-plan", params=words)

            for each in (statements, parameters, bodies, paths, plans):
                each()
            assert check(send, "GET", f"{self.address}/availability").status_code == 200


def test_requests(address: str, sky: tuple[Path, str]) -> None:
    Fuzz(address, sky[1], QUICK).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_requests(address: str, sky: tuple[Path, str]) -> None:
    Fuzz(address, sky[1], SLOW).run()
