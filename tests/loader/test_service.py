"""Contributors on other machines: many at once, cut off, said twice; one commit publishes all of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from qengine.errors import ClusterError, ConflictError, IntegrityError, QEngineError, RegistryError
from qengine.loader.contributor import contribute_addresses, contribute_rows
from qengine.loader.request import LoadRequest
from qengine.loader.service import Loader
from qengine.transport.loader_client import LoaderClient
from qengine.transport.loader_server import ContributionWords, LoaderServer, StreamWords
from tests.loader.stores import Site, sky


@pytest.fixture
def client(site: Site) -> Iterator[LoaderClient]:
    server = LoaderServer(Loader(site.registry, site.store), "127.0.0.1:0")
    server.start()
    found = LoaderClient(server.address)
    yield found
    found.close()
    server.stop(0.0)


def pieces(site: Site, count: int) -> list[Path]:
    whole = pa.table(sky(600))
    size = -(-whole.num_rows // count)
    return [site.write(f"piece{at:02d}.parquet", whole.slice(at * size, size)) for at in range(count)]


def request(**words: object) -> LoadRequest:
    return LoadRequest(**{"catalog": "demo", "table": "obj", "rows_per_tile": 100, "key": "id", "workers": 2, **words})  # type: ignore[arg-type]


def test_many_contributors_at_once_and_one_commit(site: Site, client: LoaderClient) -> None:
    files = pieces(site, 12)
    load = client.begin("demo", {"why": "a test"})
    assert (load.state, load.catalog) == ("open", "demo")

    def contribute(at: int) -> int:
        wanted = request(inputs=(files[at],))
        if at % 2:
            return contribute_addresses(client, load.id, wanted, contributor=f"node{at}").rows
        return sum(one.rows for one in contribute_rows(client, load.id, wanted, contributor=f"node{at}"))

    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(contribute, reversed(range(12))))
    assert sum(rows) == 609
    assert site.registry.catalog().find("demo", "obj") is None
    told: list[str] = []
    done, reports = client.commit(load.id, 0.0, lambda stage, at, total: told.append(stage))
    assert (done.state, done.snapshot, reports[0]["stored"]) == ("finished", 1, 609)
    assert "write" in told
    inputs = site.registry.inputs("demo", "obj")
    assert [one.label for one in inputs] == [str(path) for path in files]
    assert {one.kind for one in inputs} == {"file", "stream"}
    assert site.registry.load(load.id).context["why"] == "a test"
    assert not [path for path in (site.store.root / "demo/_loads" / load.id).iterdir() if path.is_dir()]
    # the answer was lost, say: asking again gives it again
    assert client.commit(load.id, 0.0, lambda stage, at, total: None)[1] == reports


def test_rows_that_are_sent_give_the_same_parts_as_files(site: Site, client: LoaderClient, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    text = site.inputs / "a.csv"
    names = ["id", "ra", "dec", "mag"]
    columns = sky(300)
    lines = [",".join(names), *(",".join(str(columns[name][at]) for name in names) for at in range(300))]
    text.write_text("\n".join(lines) + "\n")
    other.load(text, key="id", rows_per_tile=100)
    load = client.begin("demo", {})
    contribute_rows(client, load.id, request(inputs=(text,)))
    client.commit(load.id, 0.0, lambda stage, at, total: None)
    assert site.snapshot().home.digest.equals(other.snapshot().home.digest)
    assert site.registry.inputs("demo")[0].version == other.registry.inputs("demo")[0].version


def test_bytes_that_are_cut_off_or_changed_are_not_taken(site: Site, client: LoaderClient) -> None:
    [path] = pieces(site, 1)
    load = client.begin("demo", {})
    stream = StreamWords(label="x", version="1", format="parquet", sha256="0" * 64)
    words = ContributionWords(load=load.id, request=request().to_json(), options={}, contributor="me", stream=stream)
    with pytest.raises(IntegrityError, match="not those that were announced"):
        client.contribute(words, iter([path.read_bytes()[:1000]]))

    def failing() -> Iterator[bytes]:
        yield path.read_bytes()[:1000]
        raise ValueError("the contributor has died")

    with pytest.raises(ClusterError, match="cannot be reached"):
        client.contribute(words, failing())
    folder = site.store.root / "demo/_loads" / load.id
    for _ in range(100):  # the loader hears of it a little later
        left = [one for one in folder.rglob("*") if one.is_file() and one.name != "lock"]
        if not left:
            break
        time.sleep(0.05)
    assert not left


def test_mistakes_are_told_to_the_contributor(site: Site, client: LoaderClient) -> None:
    first, second = pieces(site, 2)
    with pytest.raises(RegistryError, match="unknown"):
        client.find("nothing")
    load = client.begin("demo", {})
    contribute_rows(client, load.id, request(inputs=(first,)))
    contribute_rows(client, load.id, request(inputs=(first,)))  # said again
    with pytest.raises(QEngineError, match="another"):
        contribute_rows(client, load.id, request(inputs=(second,), rows_per_tile=7))
    client.abort(load.id, "enough")
    assert client.find(load.id).state == "aborted"
    with pytest.raises(RegistryError, match="aborted"):
        contribute_rows(client, load.id, request(inputs=(second,)))
    with pytest.raises(RegistryError, match="aborted"):
        client.commit(load.id, 0.0, lambda stage, at, total: None)


def test_a_commit_excludes_contributors_and_other_commits(site: Site, client: LoaderClient) -> None:
    [path] = pieces(site, 1)
    load = client.begin("demo", {})
    contribute_rows(client, load.id, request(inputs=(path,)))
    seen: list[QEngineError] = []
    reached, go_on = threading.Event(), threading.Event()
    from qengine.loader.transaction import Transaction

    def progress(stage: str, done: int, total: int) -> None:
        reached.set()
        go_on.wait(20)

    worker = threading.Thread(target=Transaction.open(load.id, site.registry, site.store).commit, kwargs={"progress": progress})
    worker.start()
    assert reached.wait(20)
    for ask in (
        lambda: contribute_rows(client, load.id, request(inputs=(path,))),
        lambda: client.commit(load.id, 0.0, lambda stage, at, total: None),
    ):
        with pytest.raises(ConflictError, match=r"commit has begun|at work") as error:
            ask()
        seen.append(error.value)
    go_on.set()
    worker.join()
    assert len(seen) == 2
    assert client.find(load.id).state == "finished"
    assert np.isclose(site.snapshot().rows, 609)
