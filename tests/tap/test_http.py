"""HTTP itself: sizes, methods, errors of what no route answers, other sites' pages, what is logged, and the end of the service."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
import time

import httpx
import pytest

from qengine.errors import IntegrityError, StoreUnavailableError
from qengine.tap.app import create_app
from qengine.tap.failure import as_known, error_response
from qengine.tap.logs import JsonFormatter, start_logging
from qengine.tap.server import listening
from qengine.tap.service import TapSettings
from qengine.tap.web import HttpSettings
from tests.support.fake_service import FakeService
from tests.support.http_server import serving
from tests.tap.test_sync import status_of

STARS = "SELECT source_id FROM demo.stars"
SITE = {"Origin": "https://aladin.example"}


def ask(http: httpx.Client, url: str, text: str = STARS, **parameters: str) -> httpx.Response:
    return http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": text, **parameters})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/async/no-such-job", 404),
        ("GET", "/tables/demo.nothing", 404),
        ("GET", "/links/demo.stars/nothing", 404),
        ("DELETE", "/sync", 405),
        ("PUT", "/tables", 405),
        ("POST", "/examples", 405),
        ("GET", f"/sync?LANG=ADQL&QUERY={'x' * 40_000}", 414),
        ("GET", "/sync?" + "&".join(f"p{n}=1" for n in range(1_500)), 400),
        ("GET", "/sync?LANG=PQL&QUERY=x", 400),
    ],
)
def test_errors_are_votables_with_the_right_status(http: httpx.Client, url: str, method: str, path: str, status: int) -> None:
    answer = http.request(method, url + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/x-votable+xml"
    assert status_of(answer)[0][0] == "ERROR"
    assert "Traceback" not in answer.text
    if status == 405:
        assert "OPTIONS" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/tables/", "/tables/demo.stars/", "/capabilities/", "/availability//", "/examples/"])
def test_slashes_at_the_end_do_not_count(http: httpx.Client, url: str, path: str) -> None:
    answer = http.get(url + path)
    assert (answer.status_code, answer.text) == (200, http.get(url + path.rstrip("/")).text)


def test_bodies_are_bounded_with_and_without_a_length(http: httpx.Client) -> None:
    with serving(create_app(FakeService(), TapSettings(request_bytes=10_000))) as address:
        assert ask(http, f"{address}/tap", "x" * 20_000).status_code == 413

        def endless() -> object:
            yield b"LANG=ADQL&QUERY="
            for _ in range(100):
                yield b"x" * 1000

        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = http.post(f"{address}/tap/sync", content=endless(), headers=form)  # type: ignore[arg-type]
        assert (answer.status_code, status_of(answer)[0][0]) == (413, "ERROR")
        assert ask(http, f"{address}/tap").status_code == 200


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"LANG=ADQL&QUERY=%ff%fe", "application/x-www-form-urlencoded"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x; charset=no-such-charset"),
        (b'--x\r\nContent-Disposition: form-data; name="LANG"\r\n\r\n\xff\xfe\r\n--x--\r\n', "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"\x00\x01", "text/plain; charset=utf-32"),
    ],
)
def test_strange_bodies_are_the_users_fault(http: httpx.Client, url: str, content: bytes, kind: str) -> None:
    answer = http.post(f"{url}/sync", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert status_of(answer)[0][0] == "ERROR"


def test_head_and_options(http: httpx.Client, url: str) -> None:
    for path in ("", "/tables", "/capabilities", "/availability", "/examples", "/openapi.json"):
        head, get = http.head(url + path), http.get(url + path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    answer = http.head(f"{url}/sync", params={"LANG": "ADQL", "QUERY": STARS, "FORMAT": "csv"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv;header=present")
    options = http.options(f"{url}/sync")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert "DELETE" in http.options(f"{url}/async/x").headers["allow"]


def test_pages_of_other_sites(http: httpx.Client, url: str) -> None:
    asked = {**SITE, "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization,x-query-id"}
    before = http.options(f"{url}/async/x", headers=asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "*"
    assert "DELETE" in before.headers["access-control-allow-methods"]
    assert "authorization" in before.headers["access-control-allow-headers"]
    answer = http.get(f"{url}/sync", params={"LANG": "ADQL", "QUERY": STARS}, headers=SITE)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "X-Query-Id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_sites_can_be_chosen(http: httpx.Client) -> None:
    for origins, allowed in ((("https://aladin.example",), SITE["Origin"]), ((), None)):
        with serving(create_app(FakeService(), http=HttpSettings(cors_origins=origins))) as address:
            answer = http.get(f"{address}/tap/tables", headers=SITE)
            assert answer.headers.get("access-control-allow-origin") == allowed
            other = http.get(f"{address}/tap/tables", headers={"Origin": "https://other.example"})
            assert "access-control-allow-origin" not in other.headers


def test_faults_do_not_tell_where_files_are() -> None:
    for error in (
        IntegrityError("part /srv/secret/store/demo/a.parquet is damaged", hint="fetch s3://bucket/prefix/a.parquet again"),
        StoreUnavailableError("cannot read /data/x/y.json: no such file"),
        OSError("/home/someone/file"),
    ):
        body = bytes(error_response(as_known(error)).body).decode()
        assert not re.search(r"/srv|bucket|/data|/home|secret", body), body


def test_unforeseen_failures_are_told_without_details(http: httpx.Client) -> None:
    class Broken(FakeService):
        def workers(self):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError("a secret of the inside")

    with serving(create_app(Broken())) as address:
        answer = http.get(f"{address}/tap/progress")
        assert (answer.status_code, status_of(answer)[0][0]) == (500, "ERROR")
        assert "secret" not in answer.text


def test_one_line_for_each_request(http: httpx.Client) -> None:
    lines = io.StringIO()
    handler = start_logging(stream=lines)
    try:
        with serving(create_app(FakeService())) as address:
            ask(http, f"{address}/tap", FORMAT="csv", MAXREC="7", RUNID="my\nrun")
            http.get(f"{address}/tap/progress/some-query-id?token=secret")
    finally:
        logging.getLogger("qengine").removeHandler(handler)
        logging.getLogger("qengine").propagate = True
    assert isinstance(handler.formatter, JsonFormatter)
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["event"], first["method"], first["path"], first["status"], first["rows"]) == (
        "request",
        "POST",
        "/tap/sync",
        200,
        7,
    )
    assert (first["query"], first["address"], first["user"]) == ("fake-query-0", "127.0.0.1", "")
    assert first["run_id"] == "my\nrun"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert first["bytes"] > 0
    assert first["seconds"] > 0
    assert (second["status"], second["endpoint"]) == (404, "/tap/progress/{query}")
    assert "secret" not in lines.getvalue()


def test_queries_finish_when_the_service_ends() -> None:
    """SIGTERM cancels who serves: nobody is let in any more, and what runs is sent to its end."""
    began, results = threading.Event(), []

    class Slow(FakeService):
        async def query(self, text, **more):  # type: ignore[no-untyped-def]
            began.set()
            await asyncio.sleep(1.0)
            return await super().query(text, **more)

    async def serve() -> None:
        async with listening(create_app(Slow()), shutdown_s=10) as server:
            addresses.append(server.address)
            ready.set()
            await server.wait()

    addresses: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            results.append("cancelled")

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(
            httpx.get(f"{addresses[0]}/tap/sync", params={"LANG": "ADQL", "QUERY": STARS, "FORMAT": "csv"}, trust_env=False)
        )
    )
    asking.start()
    assert began.wait(10)
    loop.call_soon_threadsafe(task.cancel)
    time.sleep(0.2)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{addresses[0]}/tap/availability", trust_env=False)
    asking.join(15)
    thread.join(15)
    loop.close()
    assert results == ["cancelled"]
    assert answers[0].status_code == 200
    assert len(answers[0].text.splitlines()) == 1001
