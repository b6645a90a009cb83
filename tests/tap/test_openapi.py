"""The OpenAPI document: that of the routes, and what really is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from qengine.catalog.registry import Registry
from qengine.storage.objects import Store
from qengine.tap.app import create_app
from qengine.tap.limits import UNLIMITED, Gate
from qengine.tap.mydb_keep import Keeper
from qengine.tap.openapi import document, is_standard
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService

VERBS = {"get", "post", "put", "delete", "patch"}


def described() -> set[tuple[str, str]]:
    paths: dict[str, Any] = document("http://host/tap")["paths"]
    return {(path, verb.upper()) for path, item in paths.items() for verb in item if verb in VERBS}


def test_the_document_has_the_routes_and_nothing_else(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        keeper = Keeper(registry, Store(tmp_path), Gate(UNLIMITED, TapSettings()))
        app = create_app(FakeService(), keeper=keeper)
    routes = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route) and not is_standard(route.path)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described() == routes


def test_the_document_is_openapi() -> None:
    found = document("https://host/there/tap")
    assert found["openapi"] == "3.1.0"
    assert found["servers"] == [{"url": "https://host/there"}]
    assert found["info"]["version"]
    names = [operation["operationId"] for item in found["paths"].values() for verb, operation in item.items() if verb in VERBS]
    assert len(names) == len(set(names))
    for path, item in found["paths"].items():
        given = {one["name"] for one in item.get("parameters", []) if one["in"] == "path"}
        assert given == {word.strip("{}") for word in path.split("/") if word.startswith("{")}


def test_the_document_is_served(http: httpx.Client, url: str) -> None:
    found = http.get(f"{url}/openapi.json").json()
    assert found["servers"] == [{"url": url.removesuffix("/tap")}]
    assert "/tap/query-plan" in found["paths"]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/tap/query-plan?LANG=ADQL&QUERY=SELECT%20ra%20FROM%20demo.stars", 200, "text/plain"),
        ("/tap/query-plan?LANG=ADQL&QUERY=SELECT%20ra%20FROM%20demo.stars&RESPONSEFORMAT=json", 200, "application/json"),
        ("/tap/query-plan?LANG=ADQL", 400, "application/x-votable+xml"),
        ("/tap/progress", 200, "application/json"),
        ("/tap/progress/nothing", 404, "application/x-votable+xml"),
        ("/tap/links/demo.stars/nothing", 404, "application/x-votable+xml"),
        ("/metrics", 200, "text/plain"),
    ],
)
def test_answers_are_those_of_the_document(http: httpx.Client, url: str, path: str, status: int, kind: str) -> None:
    answer = http.get(url.removesuffix("/tap") + path)
    assert answer.status_code == status
    assert answer.headers["content-type"].split(";")[0] == kind
    bare = path.split("?")[0].replace("/nothing", "/{query}") if "progress" in path else path.split("?")[0]
    bare = "/tap/links/{table}/{link}" if "links" in path else bare
    operation = document(url)["paths"][bare]["get"]
    told = operation["responses"][str(status)]
    told = document(url)["components"]["responses"]["Error"] if "$ref" in told else told
    assert kind in told["content"]
