"""Contributors on other machines: many at once, cut off, said twice; one commit publishes all of it."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from qengine.errors import ClusterError, ConflictError, InputError, IntegrityError, QEngineError, RegistryError
from qengine.loader.contributor import contribute_addresses, contribute_rows
from qengine.loader.request import LoadRequest
from qengine.loader.service import Loader
from qengine.loader.sources.csv import CsvOptions
from qengine.loader.sources.open import InputOptions
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


def text(site: Site, name: str, lines: str) -> Path:
    path = site.inputs / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return path


def send(client: LoaderClient, **words: object) -> None:
    load = client.begin("demo", {})
    contribute_rows(client, load.id, request(**words))
    client.commit(load.id, 0.0, lambda stage, at, total: None)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_texts_that_are_sent_are_read_with_the_types_of_the_table(site: Site, client: LoaderClient, suffix: str) -> None:
    """A contributor does not see the table: what looks like an integer there may be a text, or a float, or NULL."""
    known = pa.table(
        {"id": [1, 2], "ra": [1.5, 2.5], "dec": [0.5, 0.5], "name": ["a", "b"], "flux": [0.5, None], "note": ["x", "y"]}
    )
    site.load(site.write("known.parquet", known), key="id")
    send(client, inputs=(text(site, f"a.csv{suffix}", "id,ra,dec,name,flux,note\n3,3,1,007,7,\n4,4,1,1e3,,\n"),))
    found = {row["id"]: row for row in site.read(site.snapshot().home).to_pylist()}
    assert found[3]["name"] == "007"
    assert found[4]["name"] == "1e3"
    assert (found[3]["flux"], found[4]["flux"], found[3]["note"]) == (7.0, None, None)
    send(client, inputs=(text(site, f"none.csv{suffix}", "id,ra,dec,name,flux,note\n"),))
    assert site.snapshot().rows == 4
    with pytest.raises(InputError, match=r"bad\.csv.*row 3, column 'flux'"):
        send(client, inputs=(text(site, f"bad.csv{suffix}", "id,ra,dec,name,flux,note\n5,3,1,a,1,b\n6,3,1,a,bright,b\n"),))


def test_texts_of_a_new_table_that_are_sent_together_agree_on_types(site: Site, client: LoaderClient) -> None:
    first = text(site, "a.tsv", "id\tra\tdec\tflux\tname\n1\t1\t1\t1\t\n")
    second = text(site, "b.tsv", "id\tra\tdec\tflux\tname\n2\t2.5\t1\t0.5\tb\n")
    send(client, inputs=(first, second))
    rows = sorted(site.read(site.snapshot().home).to_pylist(), key=lambda row: int(row["id"]))
    assert [(row["ra"], row["flux"], row["name"]) for row in rows] == [(1.0, 1.0, None), (2.5, 0.5, "b")]
    with pytest.raises(InputError, match=r"none\.csv: there are no rows"):
        send(client, table="other", inputs=(text(site, "none.csv", "id,ra,dec\n"),))


def test_how_a_text_is_cut_is_said_with_it(site: Site, client: LoaderClient) -> None:
    path = text(site, "odd.txt", "1;2,5;3,5;-\n2;4,5;3,5;'a;b'\n")
    cut = CsvOptions(delimiter=";", names=("id", "ra", "dec", "name"), nulls=("-",), quote="'", decimal=",")
    send(client, inputs=(path,), options=InputOptions(csv=cut, label="odd"))
    rows = sorted(site.read(site.snapshot().home).to_pylist(), key=lambda row: int(row["id"]))
    assert [(row["ra"], row["name"]) for row in rows] == [(2.5, None), (4.5, "a;b")]
    [one] = site.registry.inputs("demo")
    assert (one.label, one.kind, one.sha256) == ("odd", "stream", hashlib.sha256(path.read_bytes()).hexdigest())
