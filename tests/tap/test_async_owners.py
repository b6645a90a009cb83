"""Whose jobs are whose: with tokens, on a service that also serves anybody."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from qengine.catalog.registry import Registry
from qengine.tap.credentials import AccessSettings, Doorkeeper
from qengine.tap.jobs import JobSettings
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.tap_server import serving_tap

CHILDREN = (
    "",
    "/phase",
    "/owner",
    "/parameters",
    "/quote",
    "/destruction",
    "/executionduration",
    "/error",
    "/results",
    "/results/result",
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Client]]:
    """Ann, Bob, an administrator and anybody, each with a client of the service."""
    root = tmp_path_factory.mktemp("store")
    with Registry.open(root) as registry:
        tokens = {}
        for name in ("ann", "bob", "root"):
            registry.users.add(name, is_admin=name == "root")
            tokens[name] = registry.users.create_token(name)[0]
        door = Doorkeeper(registry.users, AccessSettings())
        with serving_tap(FakeService(), root, tap=TapSettings(), jobs=JobSettings(active_limit=5), door=door) as url:
            clients = {name: {"authorization": f"Bearer {token}"} for name, token in tokens.items()} | {"anybody": {}}
            found = {
                name: httpx.Client(base_url=f"{url}/async", headers=headers, trust_env=False, timeout=30)
                for name, headers in clients.items()
            }
            yield found
            for client in found.values():
                client.close()


def make(client: httpx.Client, **given: str) -> str:
    response = client.post("", data={"LANG": "ADQL", "QUERY": "SELECT 1 AS x", "FORMAT": "csv", **given})
    assert response.status_code == 303
    return "/" + response.headers["location"].rpartition("/")[2]


def test_a_job_of_somebody_is_there_for_nobody_else(people: dict[str, httpx.Client]) -> None:
    place = make(people["ann"], PHASE="RUN")
    while people["ann"].get(f"{place}?WAIT=5").text.count("COMPLETED") == 0:
        pass
    assert people["ann"].get(f"{place}/owner").text == "ann"
    assert people["ann"].get(f"{place}/results/result").text == "x\r\n1\r\n"
    missing = people["bob"].get("/" + "0" * 32).text.replace("0" * 32, place[1:])
    for other in ("bob", "anybody"):
        for child in CHILDREN:
            response = people[other].get(place + child)
            assert (response.status_code, response.text) == (404, missing), child
        for response in (
            people[other].delete(place),
            people[other].post(place, data={"ACTION": "DELETE"}),
            people[other].post(f"{place}/phase", data={"PHASE": "ABORT"}),
            people[other].post(f"{place}/destruction", data={"DESTRUCTION": "2001-01-01T00:00:00Z"}),
            people[other].post(f"{place}/parameters", data={"QUERY": "SELECT 2"}),
        ):
            assert response.status_code == 404
        own, deleting = make(people[other]), str(people[other].base_url).rstrip("/").replace("/async", "/deletejobs")
        several = people[other].post(deleting, data={"JOB_IDS": f"{own[1:]},{place[1:]}"})
        assert (several.status_code, several.text) == (404, missing)
        assert people[other].post(deleting, data={"JOB_IDS": own[1:]}).text == "deleted 1"
    assert people["root"].get(f"{place}/phase").text == "COMPLETED"
    assert people["ann"].get(f"{place}/phase").text == "COMPLETED"


def test_lists_show_ones_own(people: dict[str, httpx.Client]) -> None:
    mine, other, open_ = (make(people[name]) for name in ("ann", "bob", "anybody"))
    assert mine[1:] in people["ann"].get("").text
    for place in (other, open_):
        assert place[1:] not in people["ann"].get("").text
    listed = people["anybody"].get("")
    assert (listed.status_code, "jobref" in listed.text) == (200, False)


def test_a_job_of_nobody_is_open_to_who_knows_it(people: dict[str, httpx.Client]) -> None:
    place = make(people["anybody"])
    assert [client.get(f"{place}/phase").text for client in people.values()] == ["PENDING"] * 4
    assert people["anybody"].get(f"{place}/owner").text == ""
    assert people["anybody"].delete(place).status_code == 303


def test_one_may_have_so_many(people: dict[str, httpx.Client]) -> None:
    places = [make(people["root"]) for _ in range(5)]
    given = {"LANG": "ADQL", "QUERY": "SELECT 1"}
    response = people["root"].post("", data=given)
    assert (response.status_code, response.headers["retry-after"]) == (429, "60")
    assert "5 jobs of root have not ended" in response.text
    assert people["root"].delete(places[0]).status_code == 303
    assert people["root"].post("", data=given).status_code == 303


def test_parameters_have_a_size(people: dict[str, httpx.Client]) -> None:
    response = people["bob"].post("", data={"QUERY": "x" * 4_000_001})
    assert (response.status_code, "at most 4000000" in response.text) == (400, True)
