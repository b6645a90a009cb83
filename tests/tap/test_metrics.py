"""/metrics: requests are counted by route, never by job or user; the state is that of the moment."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from qengine.tap.app import create_app
from qengine.tap.service import TapSettings
from qengine.tap.web import HttpSettings
from tests.support.fake_service import FakeService
from tests.support.http_server import serving
from tests.support.tap_server import serving_tap

STARS = "SELECT source_id FROM demo.stars"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(http: httpx.Client, address: str) -> Samples:
    answer = http.get(f"{address}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_requests_rows_and_state(http: httpx.Client, tmp_path: Path) -> None:
    with serving_tap(FakeService(), tmp_path, tap=TapSettings()) as url:
        address = url.removesuffix("/tap")
        for _ in range(3):
            http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": STARS, "FORMAT": "csv", "MAXREC": "10"})
        http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": "SELECT nothing FROM demo.stars"})
        for number in range(5):
            http.get(f"{url}/async/job-{number}")
            http.get(f"{url}/nothing-{number}")
        job = http.post(f"{url}/async", data={"LANG": "ADQL", "QUERY": STARS}).headers["location"]
        found = samples(http, address)
        assert http.delete(job).status_code == 303
    sync = (("endpoint", "/tap/sync"),)
    assert found["qengine_requests_total", (("endpoint", "/tap/sync"), ("method", "POST"), ("status", "200"))] == 3
    assert found["qengine_requests_total", (("endpoint", "/tap/sync"), ("method", "POST"), ("status", "400"))] == 1
    assert found["qengine_sent_rows_total", sync] == 30
    assert found["qengine_sent_bytes_total", sync] > 0
    assert found["qengine_request_seconds_count", sync] == 4
    assert found["qengine_requests_total", (("endpoint", "/tap/async/{job}"), ("method", "GET"), ("status", "404"))] == 5
    assert found["qengine_requests_total", (("endpoint", "unknown"), ("method", "GET"), ("status", "404"))] == 5
    assert found["qengine_workers", (("state", "alive"),)] == 1
    assert found["qengine_workers", (("state", "lost"),)] == 0
    assert found["qengine_queries_running", (("phase", "running"),)] == 0
    assert found["qengine_jobs", (("phase", "PENDING"),)] == 1
    assert found["process_cpu_seconds_total", ()] > 0


def test_metrics_can_be_left_out(http: httpx.Client) -> None:
    with serving(create_app(FakeService(), http=HttpSettings(has_metrics=False))) as address:
        assert http.get(f"{address}/metrics").status_code == 404
        assert http.get(f"{address}/tap/tables").status_code == 200
