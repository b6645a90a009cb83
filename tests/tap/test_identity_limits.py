"""Limits: who may ask for how much, what happens beyond, and that slots come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.database import Database
from qengine.catalog.jobs import JobStore, Phase
from qengine.catalog.users import Users
from qengine.catalog.who import ANONYMOUS, Identity
from qengine.errors import ConfigError, TooManyRequestsError
from qengine.tap.access import AccessSettings, Doorkeeper
from qengine.tap.app import create_app
from qengine.tap.jobs import JobSettings
from qengine.tap.limits import UNLIMITED, Gate, Limits, LimitSettings, Slot, limited
from qengine.tap.parameters import Parameters, check_sync
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.http_server import serving
from tests.support.tap_server import serving_tap

ANN, ROOT = Identity("ann", frozenset({"dp1"})), Identity("root", is_admin=True)


def test_words() -> None:
    assert Limits.parse("") == Limits()
    found = Limits.parse("queries=4 maxrec=1e6 rows=2e6 bytes=10GB reads=1TB seconds=10min job_seconds=2d storage=500MB")
    assert found == Limits(queries=4, maxrec=1e6, rows=2e6, bytes=1e10, reads=1e12, seconds=600, job_seconds=172800, storage=5e8)
    for wrong in ("queries", "queries=", "queries=-1", "queries=4 queries=5", "speed=4", "bytes=4XB", "bytes = 4", "rows=many"):
        with pytest.raises(ConfigError, match="is no limit"):
            Limits.parse(wrong)
    for entries in (("dp1 queries=4",), (": queries=4",), ("dp1: speed=1",)):
        with pytest.raises(ConfigError):
            Gate(LimitSettings(groups=entries))


def test_who_may_ask_for_how_much() -> None:
    tap = TapSettings(maxrec=1000, maxrec_limit=10_000_000)
    settings = LimitSettings(
        anonymous="maxrec=10 rows=20 queries=1", users="maxrec=100 rows=200 queries=2 bytes=1MB",
        groups=("DP1: rows=1e6", "big: queries=9 bytes=1TB"), people=("Zoe: rows=7 maxrec=5",),
    )  # fmt: skip
    gate = Gate(settings, tap)

    def of(identity: Identity) -> tuple[float | None, ...]:
        found = gate.limits_of(identity)
        return found.maxrec, found.rows, found.queries, found.bytes

    assert of(ANONYMOUS) == (10, 20, 1, None)
    assert of(Identity("bob")) == (100, 200, 2, 1e6)
    assert of(ANN) == (100, 1e6, 2, 1e6)
    assert of(Identity("eve", frozenset({"dp1", "big", "other"}))) == (100, 1e6, 9, 1e12)
    assert of(Identity("zoe", frozenset({"big"}))) == (5, 7, 9, 1e12)
    assert of(ROOT) == (1e7, 1e7, None, None)
    assert gate.settings_for(ANONYMOUS).maxrec_limit == 20
    open_ = Gate(UNLIMITED, tap)
    for identity in (ANONYMOUS, ANN):
        assert (open_.settings_for(identity).maxrec, open_.settings_for(identity).maxrec_limit) == (1000, 10_000_000)
    standard = Gate(LimitSettings(), TapSettings())
    rows = [(standard.settings_for(one).maxrec, standard.settings_for(one).maxrec_limit) for one in (ANONYMOUS, ANN)]
    assert rows == [(1_000_000, 1_000_000), (100_000_000, 100_000_000)]


def test_what_is_read_is_limited_too() -> None:
    words = [("LANG", "ADQL"), ("QUERY", "SELECT 1 AS a FROM t"), ("MAXCOST", "10GB,60s")]
    checked = check_sync(Parameters.gather(words), default_maxrec=1, maxrec_limit=1)
    assert limited(checked, Limits()).max_cost == "10GB,60s"
    assert limited(checked, Limits(reads=1e9)).max_cost == "1000000000B,60.000s"
    free = check_sync(Parameters.gather(words[:2]), default_maxrec=1, maxrec_limit=1)
    assert limited(free, Limits(reads=1e9)).max_cost == "1000000000B"


def test_queries_take_turns() -> None:
    async def scenario() -> None:
        gate = Gate(LimitSettings(anonymous="queries=2", users="queries=1", patience_s=0.1))
        first, second = await gate.take(ANONYMOUS, "a"), await gate.take(ANONYMOUS, "a")
        other = await gate.take(ANONYMOUS, "b")
        mine = await gate.take(ANN, "a")
        for identity, address in ((ANONYMOUS, "a"), (ANN, "elsewhere")):
            with pytest.raises(TooManyRequestsError) as caught:
                await gate.take(identity, address)
            assert caught.value.details["retry_after_s"] == 0.1
        waiting = asyncio.ensure_future(gate.take(ANONYMOUS, "a"))
        await asyncio.sleep(0.01)
        first.release()
        first.release()  # does no harm
        third = await waiting
        with pytest.raises(TooManyRequestsError):
            await gate.take(ANONYMOUS, "a")
        given_up = asyncio.ensure_future(gate.take(ANONYMOUS, "a"))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        for slot in (second, third, other, mine):
            slot.release()
        assert gate._counters == {}
        for _ in range(3):
            slots = [await gate.take(ANONYMOUS, "a") for _ in range(2)]
            for slot in slots:
                slot.release()

    asyncio.run(scenario())


def test_processes_share_what_is_allowed() -> None:
    async def scenario() -> None:
        settings = LimitSettings(users="queries=4", patience_s=0.05)
        here, there = Gate(settings), Gate(settings)

        def tell() -> None:
            told = here.demand(), there.demand()
            here.hear(told[1])
            there.hear(told[0])

        mine = [await here.take(ANN, "a") for _ in range(4)]
        assert here.demand() == {"user ann": 4}
        tell()
        first = await there.take(ANN, "b")  # one at least
        with pytest.raises(TooManyRequestsError):
            await there.take(ANN, "b")
        waiting = [asyncio.ensure_future(gate.take(ANN, "a")) for gate in (here, there) for _ in range(4)]
        await asyncio.sleep(0)
        tell()
        for slot in (*mine, first):
            slot.release()
        tell()
        await asyncio.sleep(0)
        running = [counter.running for gate in (here, there) for counter in gate._counters.values()]
        assert running == [2, 2], "halves"
        here.hear({})  # the other is no more
        await asyncio.sleep(0)
        assert [counter.running for counter in here._counters.values()] == [4]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(one, TooManyRequestsError) for one in found) == 2
        for one in found:
            if not isinstance(one, BaseException):
                one.release()
        assert here._counters == there._counters == {}

    asyncio.run(scenario())


@given(st.lists(st.tuples(st.sampled_from(["take", "release", "give up", "hear"]), st.integers(0, 9)), max_size=40))
def test_any_history_of_turns(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        gate, elsewhere = Gate(LimitSettings(users="queries=3", patience_s=60)), 0
        taking: list[asyncio.Future[Slot]] = []
        for step, number in steps:
            if step == "take":
                taking.append(asyncio.ensure_future(gate.take(ANN, "a")))
            elif step == "hear":
                elsewhere = number
                gate.hear({"user ann": number})
            elif taking:
                one = taking.pop(number % len(taking))
                if step == "release" and one.done() and not one.exception():
                    one.result().release()
                else:
                    one.cancel()
                    await asyncio.gather(one, return_exceptions=True)
                    if not one.cancelled() and not one.exception():
                        one.result().release()
            for _ in range(4):
                await asyncio.sleep(0)
            taking = [one for one in taking if not one.done() or not one.exception()]
            running = sum(one.done() for one in taking)
            (counter,) = gate._counters.values() or [None]
            assert (0 if counter is None else counter.running) == running
            assert len(taking) == (0 if counter is None else counter.wanted)
            if elsewhere == 0 and not any(name == "hear" for name, _ in steps):
                assert running == min(3, len(taking))
        for one in taking:
            one.cancel()
        await asyncio.gather(*taking, return_exceptions=True)
        for one in taking:
            if not one.cancelled() and not one.exception():
                one.result().release()
        assert gate._counters == {}

    asyncio.run(scenario())


def test_the_queue_is_short() -> None:
    async def scenario() -> None:
        gate = Gate(LimitSettings(anonymous="queries=1", patience_s=5))
        running = await gate.take(ANONYMOUS, "a")
        waiting = [asyncio.ensure_future(gate.take(ANONYMOUS, "a")) for _ in range(4)]
        await asyncio.sleep(0.01)
        with pytest.raises(TooManyRequestsError):
            await gate.take(ANONYMOUS, "a")  # at once
        running.release()
        for one in waiting:
            (await one).release()
        with pytest.raises(TooManyRequestsError):
            await Gate(LimitSettings(anonymous="queries=0")).take(ANONYMOUS, "a")

    asyncio.run(scenario())


@contextmanager
def served(settings: LimitSettings, door: Doorkeeper | None = None, service: FakeService | None = None) -> Iterator[httpx.Client]:
    tap = TapSettings(maxrec=100, maxrec_limit=1000)
    app = create_app(service or FakeService(), tap, door=door, gate=Gate(settings, tap))
    with serving(app) as address, httpx.Client(base_url=f"{address}/tap", trust_env=False, timeout=20) as client:
        yield client


def query(http: httpx.Client, text: str = "SELECT source_id FROM demo.stars", **more: str) -> httpx.Response:
    return http.get("/sync", params={"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv", **more})


HANG = "SELECT source_id FROM demo.stars /* hang after 100 rows */"


def test_one_too_many_is_429() -> None:
    with served(LimitSettings(anonymous="queries=1", patience_s=0.2)) as http:
        with http.stream("GET", "/sync", params={"LANG": "ADQL", "QUERY": HANG, "MAXREC": "1000"}) as running:
            assert running.status_code == 200
            refused = query(http)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["content-type"] == "application/x-votable+xml"
            assert 'value="ERROR"' in refused.text
            assert "1 queries from your address" in refused.text
            assert http.get("/availability").status_code == 200
            analysed = http.get("/query-plan", params={"LANG": "ADQL", "QUERY": "SELECT 1 AS a", "ANALYZE": "1"})
            assert analysed.status_code == 429
        deadline = time.monotonic() + 10
        while (answer := query(http)).status_code == 429 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert answer.status_code == 200  # the one that left gave its slot back
        for bad in ("SELECT FROM", "SELECT * FROM nothing", "/* crash */ SELECT 1"):
            assert query(http, bad).status_code in (400, 500)
        assert query(http).status_code == 200


def test_many_at_once_are_served_in_turn() -> None:
    with served(LimitSettings(anonymous="queries=3")) as http:
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(query(http).status_code)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 12


def test_rows_bytes_and_time() -> None:
    with served(LimitSettings(anonymous="maxrec=5 rows=20 bytes=2kB seconds=0.5")) as http:
        assert len(query(http).text.split()) == 6
        assert len(query(http, MAXREC="1000").text.split()) == 21
        document = http.get("/capabilities").text
        assert '<default unit="row">5</default>' in document
        assert '<hard unit="row">20</hard>' in document
        large = "SELECT name, name AS a, name AS b, name AS c, name AS d, name AS e, name AS f, name AS g FROM demo.stars"
        refused = query(http, large, MAXREC="20", RESPONSEFORMAT="votable/td")
        assert "more than 2000 bytes" in refused.text
        began = time.monotonic()
        slow = query(http, "SELECT source_id FROM demo.stars /* hang after 0 rows */")
        assert time.monotonic() - began < 5
        assert slow.status_code == 408
        assert 'value="ERROR"' in slow.text
        assert "use /async" in slow.text
    with served(LimitSettings(anonymous="seconds=0.5 rows=1000")) as http:
        broken = query(http, HANG, MAXREC="1000", RESPONSEFORMAT="votable/td")
        assert broken.status_code == 200
        assert "takes longer than is allowed" in broken.text  # after rows had gone out


def test_users_have_their_own_limits(tmp_path: Path) -> None:
    database = Database.open(tmp_path, None)
    users = Users(database)
    users.add("ann", groups=["dp1"])
    token, _ = users.create_token("ann")
    settings = LimitSettings(anonymous="rows=10", users="rows=20 maxrec=20", groups=("dp1: rows=50 maxrec=40",))
    with served(settings, Doorkeeper(users, AccessSettings())) as http:
        assert len(query(http).text.split()) == 11
        http.headers["authorization"] = f"Bearer {token}"
        assert len(query(http).text.split()) == 41
        assert len(query(http, MAXREC="1000").text.split()) == 51
        assert '<hard unit="row">50</hard>' in http.get("/capabilities").text
    database.close()


def test_whose_address_counts_behind_a_proxy(tmp_path: Path) -> None:
    database = Database.open(tmp_path, None)
    door = Doorkeeper(Users(database), AccessSettings(proxy_networks=("127.0.0.1", "10.0.0.0/8")))
    for told, expected in (
        ([], "127.0.0.1"), (["192.0.2.7"], "192.0.2.7"), (["6.6.6.6, 192.0.2.7"], "192.0.2.7"), (["192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        (["192.0.2.7", "10.1.1.1"], "192.0.2.7"), (["nonsense"], "127.0.0.1"), (["10.1.1.1"], "10.1.1.1"),
    ):  # fmt: skip
        assert door.address({"x-forwarded-for": told}, "127.0.0.1") == expected
    assert door.address({"x-forwarded-for": ["192.0.2.7"]}, "192.0.2.9") == "192.0.2.9"  # not from our proxy
    database.close()


def job(http: httpx.Client, text: str, **more: str) -> httpx.Response:
    words = {"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv", "PHASE": "RUN", **more}
    return http.post("/async", data=words)


def ended(http: httpx.Client, place: str) -> str:
    deadline = time.monotonic() + 20
    while (phase := http.get(f"{place}/phase").text) in ("QUEUED", "EXECUTING") and time.monotonic() < deadline:
        time.sleep(0.05)
    return phase


def test_jobs_are_limited_too(tmp_path: Path) -> None:
    database = Database.open(tmp_path, None)
    users = Users(database)
    tokens = {name: users.create_token(users.add(name).name)[0] for name in ("ann", "bob")}
    tap = TapSettings(maxrec=1000, maxrec_limit=1000)
    people = ("ann: rows=20 jobs=2 job_seconds=0.5 storage=600", "bob: bytes=1kB")
    gate = Gate(LimitSettings(anonymous="jobs=0", people=people), tap)
    with (
        serving_tap(FakeService(), tmp_path, tap=tap, door=Doorkeeper(users, AccessSettings()), gate=gate) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as http,
    ):
        refused = job(http, "SELECT source_id FROM demo.stars")
        assert refused.status_code == 400
        assert "not offered to you" in refused.text
        http.headers["authorization"] = f"Bearer {tokens['ann']}"
        slow = [job(http, "SELECT source_id FROM demo.stars /* hang after 0 rows */") for _ in range(2)]
        assert [one.status_code for one in slow] == [303, 303]
        full = job(http, "SELECT source_id FROM demo.stars")
        assert full.status_code == 429
        assert "retry-after" in full.headers
        for one in slow:
            assert ended(http, one.headers["location"]) == "ERROR"
            assert "longer than its limit" in http.get(one.headers["location"] + "/error").text
        named = "SELECT source_id, name FROM demo.stars"
        place = job(http, named, MAXREC="1000", RESPONSEFORMAT="csv").headers["location"]
        assert ended(http, place) == "COMPLETED"
        result = http.get(f"{place}/results/result").text
        assert len(result.splitlines()) == 21
        assert 300 < len(result) < 600
        second = job(http, named, MAXREC="1000", RESPONSEFORMAT="csv").headers["location"]
        assert ended(http, second) == "ERROR"
        assert "you may still keep" in http.get(f"{second}/error").text
        assert http.get(f"{second}/results/result").status_code == 404
        http.delete(place)
        place = job(http, named, MAXREC="1000", RESPONSEFORMAT="csv").headers["location"]
        assert ended(http, place) == "COMPLETED"
        http.headers["authorization"] = f"Bearer {tokens['bob']}"
        assert http.get(place).status_code == 404
        place = job(http, "SELECT name FROM demo.stars").headers["location"]
        assert ended(http, place) == "ERROR"
        assert "more than 1000 bytes" in http.get(f"{place}/error").text
    database.close()


def test_a_job_whose_owner_is_disabled_meanwhile_does_not_run(tmp_path: Path) -> None:
    database = Database.open(tmp_path, None)
    users = Users(database)
    token, _ = users.create_token(users.add("ann").name)
    with (
        serving_tap(
            FakeService(), tmp_path, jobs=JobSettings(running=1), door=Doorkeeper(users, AccessSettings(remembered_s=60))
        ) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20, headers={"authorization": f"Bearer {token}"}) as http,
    ):
        first = job(http, "SELECT source_id FROM demo.stars /* hang after 0 rows */").headers["location"]
        second = job(http, "SELECT source_id FROM demo.stars").headers["location"]
        users.change("ann", is_disabled=True)
        registry_jobs = JobStore(database)
        registry_jobs.edit(first.rpartition("/")[2], lambda old: replace(old, phase=Phase.ABORTED))
        deadline = time.monotonic() + 20
        while (found := registry_jobs.find(second.rpartition("/")[2])).phase.is_active and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found.phase is Phase.ERROR
        assert "ann is not let in any more" in str(found.error)
    database.close()
