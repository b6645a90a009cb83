"""A store in a bucket: loads, readers on other machines, conflicts, sweeps, and what is lost when a machine is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.loads import LoadState
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError, ConflictError, RegistryError, StoreUnavailableError
from qengine.loader.collect import collect
from qengine.loader.executor import Processes
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.loader.transaction import Transaction
from qengine.opening import open_store
from qengine.storage.objects import Store
from tests.loader.stores import sky
from tests.support.buckets import bucket_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with bucket_server("sky", "inputs") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment["AWS_ENDPOINT_URL"]


class Machine:
    """A machine with its own disk, near copy and registry file (or a database that several machines share)."""

    def __init__(self, folder: Path, address: str, patch: pytest.MonkeyPatch, url: str | None = None) -> None:
        self.folder, self.address, self.patch, self.url = folder, address, patch, url

    def open(self, *, create: bool = True, is_rebuilding: bool = False) -> tuple[Store, Registry]:
        self.patch.setenv("QENGINE_NEAR", str(self.folder))
        return open_store(self.address, create=create, registry_url=self.url, is_rebuilding=is_rebuilding)

    def load(self, *inputs: str, **words: object) -> int:
        files, registry = self.open()
        with registry:
            asked = {"catalog": "demo", "table": "obj", "key": "id", "rows_per_tile": 100, **words}
            return load(LoadRequest(inputs=inputs, **asked), registry, files).snapshot  # type: ignore[arg-type]

    def rows(self, table: str = "obj", number: int | None = None) -> list[int]:
        """Return the keys of all rows, read from the bucket."""
        files, registry = self.open(create=False)
        with registry:
            found = registry.catalog(snapshots={"demo": number} if number else None).find("demo", table)
            assert found is not None
            files.files.forget(files.root / "demo" / table)
            tables = [pq.read_table(files.path(uri)) for uri in found.home.uri.to_pylist()]
        return sorted(pa.concat_tables(one.replace_schema_metadata(None) for one in tables)["id"].to_pylist())


@pytest.fixture
def machine(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "one", f"s3://sky/{uuid4().hex}", monkeypatch)


def put(name: str, rows: pa.Table, folder: Path) -> str:
    name = f"{name.removesuffix('.parquet')}.parquet"
    pq.write_table(rows, folder / "input.parquet")
    boto3.client("s3").upload_file(str(folder / "input.parquet"), "inputs", name)
    return f"s3://inputs/{name}"


def objects(machine: Machine) -> set[str]:
    files, registry = machine.open()
    registry.close()
    return {path.relative_to(files.root).as_posix() for path, _ in files.files.listed(files.root)}


def test_load_append_replace_and_collect(machine: Machine, tmp_path: Path) -> None:
    rows = pa.table(sky(600))
    ids = rows["id"].to_pylist()
    first, second = (put(f"{machine.address[-6:]}/{n}", part, tmp_path) for n, part in enumerate((rows[:300], rows[300:])))
    assert machine.load(first) == 1
    assert machine.rows() == sorted(ids[:300])
    assert machine.load(second) == 2
    assert machine.rows() == sorted(ids)
    assert machine.load(second) == 2  # the same input again: skipped
    put(second.removeprefix("s3://inputs/"), rows[300:350], tmp_path)
    assert machine.load(second) == 3
    assert machine.rows() == sorted(ids[:350])
    assert machine.rows(number=2) == sorted(ids)

    files, registry = machine.open()
    before = objects(machine)
    assert not any("/_loads/" in name or "/snapshots/" in name or name.endswith("sqlite") for name in before)
    with registry:
        registry.releases.expire("demo", keep=1)
        done = collect(files.root, registry, "demo", grace=timedelta(0))
    assert done.files > 0
    assert done.bytes > 0
    after = objects(machine)
    assert after < before
    assert machine.rows() == sorted(ids[:350])
    # nothing but what the latest snapshot needs
    files, registry = machine.open()
    with registry:
        found = registry.catalog().find("demo", "obj")
        assert found is not None
        assert found.key_index is not None
        needed = {*found.home.uri.to_pylist(), *found.margin.uri.to_pylist(), *found.key_index.uri}
    assert {name for name in after if "/parts/" in name or "/keys/" in name} == needed
    with pytest.raises(ConfigError, match="near copy") as error:
        open_store(files.root)
    assert machine.address in error.value.hint
    # a load leaves no parts on the disk of its machine
    machine.load(put(f"{machine.address[-6:]}/more", rows[500:], tmp_path))
    assert not list(files.root.glob("demo/*/parts/*"))


def test_load_by_processes(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "obj.parquet"
    pq.write_table(pa.table(sky(300)), path)
    with Processes(2) as executor:
        for name, by in (("threads", None), ("processes", executor)):
            other = Machine(tmp_path / name, f"{machine.address}/{name}", monkeypatch)
            files, registry = other.open()
            with registry:
                load(
                    LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id", rows_per_tile=100),
                    registry,
                    files,
                    executor=by,
                )
                found = registry.catalog().find("demo", "obj")
                assert found is not None
                digests = [kin.digest.to_pylist() for kin in (found.home, found.margin)]
            rows = other.rows()
            if by is None:
                expected = (digests, rows)
    assert (digests, rows) == expected


def test_a_lost_machine_is_replaced_by_a_rebuilt_registry(machine: Machine, tmp_path: Path) -> None:
    rows = pa.table(sky(300))
    uri = put(f"{machine.address[-6:]}/0", rows, tmp_path)
    machine.load(uri)
    _, registry = machine.open()
    with registry:
        registry.releases.tag("demo", 1, "DR1", doi="10.1/x")
    other = Machine(tmp_path / "two", machine.address, machine.patch)
    with pytest.raises(ConfigError, match="not on this machine") as error:
        other.open(create=False)
    assert "registry rebuild" in error.value.hint
    with pytest.raises(ConfigError, match="belongs to another registry"):
        other.load(uri)
    _, registry = other.open(is_rebuilding=True)
    with registry:
        assert registry.rebuild() == 1
        assert [tag.name for tag in registry.releases.history("demo").tags] == ["DR1"]
        assert registry.facts(["quality"]).quality(registry.loads()).num_rows > 0
    assert other.rows() == sorted(rows["id"].to_pylist())
    assert other.load(uri) == 1  # known already
    with pytest.raises(ConfigError, match="belongs to another registry"):
        machine.load(uri)


def test_machines_with_a_common_registry_leave_each_others_loads_alone(machine: Machine, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'common.sqlite'}"
    one, two = (Machine(tmp_path / name, machine.address, machine.patch, url) for name in ("one", "two"))
    rows = pa.table(sky(300))
    ids = rows["id"].to_pylist()
    first, second = (put(f"{machine.address[-6:]}/{n}", part, tmp_path) for n, part in enumerate((rows[:150], rows[150:])))
    one.load(first)
    files, registry = one.open()
    stray = f"demo/obj/parts/ab/{'ab' * 32}.parquet"
    store = Store(files.root, files.far)
    store.write(stray, b"of a load that goes on")
    with registry:
        begun = Transaction.begin("demo", registry, files)
        two.load(second)
        others, common = two.open()
        with common:
            collect(others.root, common, "demo", grace=timedelta(0))
        assert stray in objects(one)
        begun.abort()
    others, common = two.open()
    with common:
        assert collect(others.root, common, "demo", grace=timedelta(0)).files >= 1
    assert stray not in objects(one)
    assert one.rows() == two.rows() == sorted(ids)


def test_a_load_of_another_machine_is_its_own(machine: Machine, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'common.sqlite'}"
    one, two = (Machine(tmp_path / name, machine.address, machine.patch, url) for name in ("one", "two"))
    rows = pa.table(sky(200))
    first, second = (put(f"{machine.address[-6:]}/{n}", part, tmp_path) for n, part in enumerate((rows[:100], rows[100:])))
    asked = LoadRequest(inputs=(first,), catalog="demo", table="obj", key="id")
    files, registry = one.open()
    with registry:
        begun = Transaction.begin("demo", registry, files, context={"operation": "load", "table": "obj"})
        begun.contribute(asked)
        other_files, other = two.open()
        with other:
            elsewhere = Transaction.open(begun.id, other, other_files)
            for refused in (elsewhere.commit, elsewhere.abort, lambda: elsewhere.contribute(asked)):
                with pytest.raises(ConflictError, match="on another machine"):
                    refused()
            # a one-shot load of the same table takes the load for dead on its own machine only
            two.load(second)
            assert begun.load.state is LoadState.OPEN
        begun.commit()
        assert one.rows() == sorted(rows["id"].to_pylist())
        lost = Transaction.begin("demo", registry, files)
        lost.contribute(asked)
        other_files, other = two.open()
        with other:
            Transaction.open(lost.id, other, other_files).abort("its machine is lost", is_anywhere=True)
        with pytest.raises(RegistryError, match="aborted"):
            lost.commit()


def test_two_machines_load_one_table_at_once(machine: Machine, tmp_path: Path) -> None:
    """Neither sees the locks of the other: the registry lets one of them publish, and the other does it again."""
    url = f"sqlite:///{tmp_path / 'common.sqlite'}"
    one, two = (Machine(tmp_path / name, machine.address, machine.patch, url) for name in ("one", "two"))
    rows = pa.table(sky(300))
    uris = [put(f"{machine.address[-6:]}/{n}", rows[n * 100 : n * 100 + 100], tmp_path) for n in range(3)]
    one.load(uris[0])
    files, registry = one.open()
    with registry:
        begun = Transaction.begin("demo", registry, files)
        begun.contribute(LoadRequest(inputs=(uris[1],), catalog="demo", table="obj", key="id"))

        def between(stage: str, done: int, total: int) -> None:
            del done, total
            if stage == "write" and not published:
                published.append(two.load(uris[2]))

        published: list[int] = []
        with pytest.raises(ConflictError):
            begun.commit(progress=between)
        assert published == [2]
        begun.commit()
    assert one.rows() == two.rows() == sorted(rows["id"].to_pylist()[:300])


def test_an_endpoint_that_is_down(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(f"{machine.address[-6:]}/0", pa.table(sky(100)), tmp_path)
    machine.load(uri)
    files, registry = machine.open()
    with registry:
        far = files.far
        assert far is not None
        files.files.forget(files.root / "demo" / "obj" / "keys")
        found = registry.catalog().find("demo", "obj")
        assert found is not None
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(StoreUnavailableError, match="s3://sky/"):
            type(far)(files.root, type(far.bucket)(far.place)).need(files.root / found.home.uri[0].as_py())  # type: ignore[attr-defined, call-arg]
        monkeypatch.undo()
