"""What may be uploaded, by whom, how much of it, and when: over HTTP, with addresses of a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qengine.catalog.database import Database
from qengine.catalog.users import Users
from qengine.config import Config
from qengine.tap.access import AccessSettings, Doorkeeper
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.service import TapSettings
from qengine.tap.upload_scan import UploadLimits
from tests.support.fake_service import FakeService
from tests.support.http_server import serving
from tests.support.tap_server import serving_tap

TABLE = b"x,y\n1,2\n3,4\n"
UPLOADS = UploadLimits(bytes=400_000, networks=("127.0.0.0/8",))
TAP = TapSettings(maxrec=1000, maxrec_limit=1000, request_bytes=100_000)
LIMITS = LimitSettings(anonymous="upload=0.2MB", people=("bob: storage=2000",))


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    async def answer(request: Request) -> Response:
        body = {"/t": TABLE, "/large": b"x\n" + b"1\n" * 150_000, "/none": b""}.get(request.url.path)
        return Response(body, media_type="text/csv") if body is not None else Response("secret", 404)

    with serving(Starlette(routes=[Route("/{name}", answer)])) as address:
        yield address


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a service, and tokens of its users."""
    store = tmp_path_factory.mktemp("store")
    database = Database.open(store, None)
    users = Users(database)
    tokens = {name: users.create_token(users.add(name).name)[0] for name in ("ann", "bob")}
    door = Doorkeeper(users, AccessSettings())
    with serving_tap(FakeService(), store, tap=TAP, door=door, gate=Gate(LIMITS, TAP), uploads=UPLOADS) as url:
        yield url, tokens
    database.close()


def _client(served: tuple[str, dict[str, str]], user: str = "") -> httpx.Client:
    headers = {"authorization": f"Bearer {served[1][user]}"} if user else {}
    return httpx.Client(base_url=served[0], trust_env=False, timeout=20, headers=headers)


def _ask(http: httpx.Client, upload: str, file: bytes = b"", path: str = "/sync", **more: str) -> httpx.Response:
    words = {"LANG": "ADQL", "QUERY": "SELECT COUNT(*) AS c FROM TAP_UPLOAD.m", "RESPONSEFORMAT": "csv", "UPLOAD": upload} | more
    return http.post(path, data=words, files={"t": ("t", file)} if file else None)


def _ended(http: httpx.Client, job: str) -> str:
    deadline = time.monotonic() + 20
    while (phase := http.get(f"{job}/phase").text) in ("QUEUED", "EXECUTING") and time.monotonic() < deadline:
        time.sleep(0.05)
    return phase


def test_tables_at_addresses(served: tuple[str, dict[str, str]], elsewhere: str) -> None:
    with _client(served) as http:
        assert _ask(http, f"m,{elsewhere}/t").text.split() == ["c", "2"]
        got = http.get("/sync", params={"LANG": "ADQL", "QUERY": "SELECT y FROM TAP_UPLOAD.m ORDER BY y", "RESPONSEFORMAT": "csv",
                                        "UPLOAD": f"m,{elsewhere}/t"})  # fmt: skip
        assert got.text.split() == ["y", "2", "4"]
        missing = _ask(http, f"m,{elsewhere}/other")
        assert missing.status_code == 400
        assert "upload m: 127.0.0.1 answers with HTTP status 404" in missing.text
        assert "secret" not in missing.text
        assert "empty" in _ask(http, f"m,{elsewhere}/none").text


def test_both_kinds_at_once(served: tuple[str, dict[str, str]], elsewhere: str) -> None:
    with _client(served) as http:
        query = "SELECT a.y FROM TAP_UPLOAD.m AS a JOIN TAP_UPLOAD.n AS b ON a.x = b.x"
        assert _ask(http, f"m,{elsewhere}/t;n,param:t", b"x\n3\n", QUERY=query).text.split() == ["y", "4"]


def test_sizes_depend_on_who_sends(served: tuple[str, dict[str, str]], elsewhere: str) -> None:
    large = b"x\n" + b"1\n" * 150_000
    with _client(served) as http:
        inline, fetched = _ask(http, "m,param:t", large), _ask(http, f"m,{elsewhere}/large")
        assert (inline.status_code, fetched.status_code) == (413, 400)
        assert "200000" in inline.text
        assert "200,000" in fetched.text
        assert '<hard unit="byte">200000</hard>' in http.get("/capabilities").text
    with _client(served, "ann") as http:
        assert _ask(http, "m,param:t", large).text.split() == ["c", "150000"]
        assert _ask(http, f"m,{elsewhere}/large").text.split() == ["c", "150000"]
        both = _ask(http, f"m,{elsewhere}/large;n,param:t", large)
        assert both.status_code == 400
        assert "together" in both.text
        assert _ask(http, "m,param:t", large * 2).status_code == 413
        assert '<hard unit="byte">400000</hard>' in http.get("/capabilities").text


def test_texts_are_bounded_as_ever(served: tuple[str, dict[str, str]]) -> None:
    with _client(served, "ann") as http:
        files = {"t": ("t", TABLE)}
        words = {f"w{number}": "x" * 30_000 for number in range(4)}
        assert http.post("/sync", data={"LANG": "ADQL", "QUERY": "SELECT 1 AS a", **words}, files=files).status_code == 413
        assert http.post("/sync", data={"LANG": "ADQL", "QUERY": "SELECT 1 AS a", **words}).status_code == 413
        del words["w3"]
        assert http.post("/sync", data={"LANG": "ADQL", "QUERY": "SELECT 1 AS a", **words}, files=files).status_code == 200


def test_jobs_get_tables_before_they_run(served: tuple[str, dict[str, str]], elsewhere: str) -> None:
    with _client(served, "ann") as http:
        query = "SELECT a.y FROM TAP_UPLOAD.m AS a JOIN TAP_UPLOAD.n AS b ON a.x = b.x"
        job = http.post("/async", data={"LANG": "ADQL", "QUERY": query, "RESPONSEFORMAT": "csv"}).headers["location"]
        assert http.post(f"{job}/parameters", data={"UPLOAD": f"m,{elsewhere}/none"}).status_code == 400
        for upload, file in ((f"m,{elsewhere}/t", b""), ("n,param:t", b"x\n7\n"), ("N,param:t", b"x\n3\n")):
            files = {"t": ("t", file)} if file else None
            assert http.post(f"{job}/parameters", data={"UPLOAD": upload}, files=files).status_code == 303
        assert http.post(f"{job}/phase", data={"PHASE": "RUN"}).status_code == 303
        assert _ended(http, job) == "COMPLETED"
        assert http.get(f"{job}/results/result").text.split() == ["y", "4"]
        late = http.post(f"{job}/parameters", data={"UPLOAD": "m,param:t"}, files={"t": ("t", b"x\n1\n")})
        assert late.status_code == 400


def test_tables_of_jobs_are_kept_and_count(served: tuple[str, dict[str, str]]) -> None:
    with _client(served, "bob") as http:
        job = _ask(http, "m,param:t", TABLE, "/async")
        assert job.status_code == 303
        for _ in range(3):  # replaces
            again = http.post(f"{job.headers['location']}/parameters", data={"UPLOAD": "m,param:t"}, files={"t": ("t", TABLE)})
        for path in ("/async", f"{job.headers['location']}/parameters"):
            refused = _ask(http, "o,param:t", b"x,y\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(500)), path)
            assert refused.status_code == 400
            assert "delete jobs or tables" in refused.text
        assert again.status_code == 303
        http.delete(job.headers["location"])
        assert _ask(http, "m,param:t", TABLE, "/async").status_code == 303


def test_settings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text('[uploads]\nbytes = 1000\nrows = 7\nnetworks = ["10.0.0.0/8"]\nfetch_s = 2.5\n')
    config = Config.read(file, {"QENGINE_UPLOADS__ROWS": "8"})
    assert config.fill("uploads", UploadLimits) == UploadLimits(bytes=1000, rows=8, networks=("10.0.0.0/8",), fetch_s=2.5)
    config.finish()
