"""The store that all suites measure on, made once, and the engines beside each other.

QENGINE_BENCH_ROWS is the number of objects (default 2e6, a few minutes; the targets are stated for 2e7), QENGINE_BENCH_DATA
where data and store are kept (default bench/data). *bare* is DuckDB with two threads on the very files that qengine reads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import qengine
from bench.datagen import CATALOG, TABLES, Recipe, generate
from qengine.catalog.model import TableSnapshot
from qengine.client.local import LocalClient
from qengine.client.remote import RemoteClient
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.sql.macros import MACROS
from qengine.storage.keyindex import KeyReader
from qengine.storage.objects import Store

ROWS = int(float(os.environ.get("QENGINE_BENCH_ROWS", "2e6")))
DATA = Path(os.environ.get("QENGINE_BENCH_DATA", Path(__file__).parent / "data"))


@dataclass(frozen=True, slots=True)
class Bench:
    """The store, its tables and the input files."""

    store: Store
    inputs: Path
    tables: dict[str, TableSnapshot]
    keys: KeyReader

    def files(self, table: str, selected: Any = None) -> list[str]:
        """Paths of the home parts of a table, or of the selected ones."""
        home = self.tables[table].home
        uris = home.uri if selected is None else home.uri.take(pa.array(selected))
        return [str(self.store.path(uri)) for uri in uris.to_pylist()]


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    root = DATA / f"{ROWS}"
    inputs, place = root / "inputs", root / "store"
    if not (inputs / "done").exists():
        generate(Recipe(rows=ROWS), inputs)
        (inputs / "done").touch()
    store, registry = open_store(place, create=True)
    with registry:
        present = {t.table.name for t in registry.catalog() if t.table.schema == CATALOG}
        for name in TABLES:
            if name not in present:
                load(
                    LoadRequest(inputs=(inputs / name,), catalog=CATALOG, table=name, schema=inputs / "schema.yaml"),
                    registry,
                    store,
                )
        tables = {t.table.name: t for t in registry.catalog() if t.table.schema == CATALOG}
        yield Bench(store, inputs, tables, KeyReader(store))


@pytest.fixture(scope="session")
def clients(bench: Bench) -> Iterator[dict[str, LocalClient]]:
    with clients_of(bench) as found:
        yield found


@contextlib.contextmanager
def clients_of(bench: Bench) -> Iterator[dict[str, LocalClient]]:
    """qengine in this process, and with two worker processes of one slot."""
    with qengine.connect(bench.store.root) as local, qengine.connect(bench.store.root, workers=2) as workers:
        assert isinstance(local, LocalClient)
        assert isinstance(workers, LocalClient)
        yield {"qengine": local, "workers": workers}


@pytest.fixture(scope="session")
def bare(bench: Bench) -> Iterator[duckdb.DuckDBPyConnection]:
    with bare_of(bench, CATALOG) as connection:
        yield connection


@contextlib.contextmanager
def bare_of(bench: Bench, catalog: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with two threads, a view of each table over all of its files, and the geometry macros."""
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET parquet_metadata_cache = true")
        for macro in MACROS:
            connection.execute(macro)
        connection.execute(f"CREATE SCHEMA {catalog}")
        for name in bench.tables:
            connection.execute(f'CREATE VIEW {catalog}."{name}" AS SELECT * FROM read_parquet({bench.files(name)})')
        yield connection


@pytest.fixture(scope="session")
def served(bench: Bench) -> Iterator[RemoteClient]:
    """A client of `qengine serve`, which is a process of its own and runs tasks itself."""
    program = "import sys, qengine.app; qengine.app.serve(sys.argv[1], workers=0, port=0)"
    command = [sys.executable, "-c", program, str(bench.store.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = next(line for line in server.stderr if line.startswith("TAP at "))
            with qengine.connect(line.split()[2].rstrip(",").removesuffix("/tap")) as client:
                assert isinstance(client, RemoteClient)
                yield client
        finally:
            server.terminate()


Racing = Callable[..., None]
ENGINES = ("bare", "qengine", "workers")
WITH_URL = (*ENGINES, "url")
"""For tests whose targets speak of a URL: `@pytest.mark.parametrize("engine", WITH_URL, indirect=True)`."""

Pairs = Sequence[tuple[str, str]]
"""Statements (adql, by hand) that are measured in turn."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the engines take turns at each statement: what else the machine does then hits all of them alike."""

    def without_engine(item: pytest.Item) -> tuple[str, ...]:
        return tuple(part for part in item.nodeid.rstrip("]").replace("[", "-").split("-") if part not in WITH_URL)

    place = {key: number for number, key in enumerate(dict.fromkeys(map(without_engine, items)))}
    items.sort(key=lambda item: place[without_engine(item)])


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Race:
    """Runs statements on one engine under the clock, and checks that the answer of the first is the bare one."""

    def __init__(self, clients: Mapping[str, LocalClient], bare: duckdb.DuckDBPyConnection) -> None:
        self._clients, self._bare = clients, bare
        self._asked, self._answer = "", pa.table({})

    def run(
        self,
        benchmark: Any,
        engine: str,
        pairs: Pairs,
        *,
        rounds: int | None = None,
        client: LocalClient | RemoteClient | None = None,
    ) -> None:
        """Measure ADQL on qengine, or what is by hand on the bare engine; as often as there is time for, or a number of rounds.

        With several pairs each call takes the next one, so that no answer is that of the call before.
        """
        client = client or self._clients.get(engine)
        turn = itertools.cycle(pairs)

        def ask() -> pa.Table:
            adql, by_hand = next(turn)
            return self._bare.execute(by_hand).to_arrow_table() if client is None else client.query(adql).to_arrow()

        if rounds is None:
            # The first look at a file verifies it: that is not what is measured.
            found, *_ = (ask() for _ in pairs)
            benchmark(ask)
        else:
            found = benchmark.pedantic(ask, rounds=rounds, iterations=1)
        adql, by_hand = pairs[0]
        if client is not None:
            if rounds is None or len(pairs) == 1:
                same_rows(found, self._bare_answer(by_hand))
            benchmark.extra_info["read_mb"] = read_bytes(client, adql) / 1e6
        elif by_hand != self._asked:
            self._asked, self._answer = by_hand, found

    def _bare_answer(self, by_hand: str) -> pa.Table:
        # Engines take turns at a statement, so the last answer of the bare one is the one that is asked for.
        if by_hand != self._asked:
            self._asked, self._answer = by_hand, self._bare.execute(by_hand).to_arrow_table()
        return self._answer


@pytest.fixture(scope="session")
def racing(clients: dict[str, LocalClient], bare: duckdb.DuckDBPyConnection) -> Race:
    return Race(clients, bare)


@pytest.fixture
def race(benchmark: Any, engine: str, racing: Race, request: pytest.FixtureRequest) -> Racing:
    """Return what runs (name, adql, by_hand) on this test's engine; `name` groups the engines. Instead of the two texts several
    pairs may be given, which take turns."""

    def run(name: str, first: str | Pairs, by_hand: str = "", *, rounds: int | None = None) -> None:
        benchmark.group = name
        pairs = [(first, by_hand)] if isinstance(first, str) else first
        racing.run(benchmark, engine, pairs, rounds=rounds, client=request.getfixturevalue("served") if engine == "url" else None)

    return run


def read_bytes(client: LocalClient | RemoteClient, adql: str) -> float:
    """Return how many bytes the statement reads, by its plan."""
    return float(client.explain(adql).to_json()["estimated"]["bytes"])


def same_rows(found: pa.Table, expected: pa.Table) -> None:
    """Compare as multisets, floats to nine digits (sums depend on the order of adding)."""
    assert found.num_rows == expected.num_rows
    assert [name.lower() for name in found.column_names] == [name.lower() for name in expected.column_names]
    # Sums come last in the order of sorting, so that their last digits do not decide which rows are compared.
    places = range(found.num_columns)
    order = sorted(places, key=lambda i: pa.types.is_floating(found.schema.field(i).type))
    names = [str(i) for i in places]
    first, second = (table.rename_columns(names).sort_by([(str(i), "ascending") for i in order]) for table in (found, expected))
    for name in names:
        ours, theirs = first[name], second[name]
        assert ours.null_count == theirs.null_count
        if pa.types.is_floating(ours.type):
            np.testing.assert_allclose(_floats(ours), _floats(theirs), rtol=1e-9)
        else:
            assert ours.equals(theirs.cast(ours.type))


def _floats(column: pa.ChunkedArray) -> Any:
    return column.cast(pa.float64()).to_numpy()
