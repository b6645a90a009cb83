"""A load that is killed at any call that changes a file of the store, and resumed, is the load that was never disturbed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.registry import LoadState, Registry
from qengine.storage.hats import read_properties
from qengine.storage.objects import Store, sha256_file
from tests.loader.stores import sky
from tests.support.kill import HAS_COMPILER, Killer

pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler, or not Linux")

ONCE = """
import sys
from pathlib import Path
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.storage.objects import Store
root, inputs = Path(sys.argv[1]), Path(sys.argv[2])
with Registry.open(root) as registry:
    request = LoadRequest(inputs=(inputs / "obj.parquet",), catalog="demo", table="obj", key="id", rows_per_tile=100, workers=2)
    load(request, registry, Store(root), resume=True)
"""

FAMILY = """
import sys
from pathlib import Path
from qengine.catalog.loads import LoadState
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.loader.request import LoadRequest
from qengine.loader.transaction import Transaction
from qengine.storage.objects import Store
root, inputs = Path(sys.argv[1]), Path(sys.argv[2])
words = {"catalog": "demo", "rows_per_tile": 100, "workers": 2}
with Registry.open(root) as registry:
    store = Store(root)
    if registry.loads():
        load = Transaction.open(registry.loads()[0].id, registry, store)
    else:
        load = Transaction.begin("demo", registry, store, context={"why": "a test"})
    if load.load.state is LoadState.OPEN:
        child = {"kind": TableKind.CHILD, "director": "obj", "director_key": "oid", "key": "sid"}
        load.contribute(LoadRequest(inputs=(inputs / "src.parquet",), table="src", **child, **words))
        load.contribute(LoadRequest(inputs=(inputs / "obj.parquet",), table="obj", key="id", **words))
        load.contribute(LoadRequest(inputs=(inputs / "visit.parquet",), table="visit", kind=TableKind.REPLICATED, **words))
    load.commit()
"""

APPEND = """
import sys
from pathlib import Path
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.storage.objects import Store
root, inputs = Path(sys.argv[1]), Path(sys.argv[2])
with Registry.open(root) as registry:
    request = LoadRequest(inputs=(inputs / "more.parquet",), catalog="demo", table="obj", workers=2)
    load(request, registry, Store(root), resume=True)
"""

REPLACE = """
import sys
from pathlib import Path
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import InputOptions
from qengine.storage.objects import Store
root, inputs = Path(sys.argv[1]), Path(sys.argv[2])
with Registry.open(root) as registry:
    options = InputOptions(label=str(inputs / "obj.parquet"))
    request = LoadRequest(inputs=(inputs / "again.parquet",), catalog="demo", table="obj", workers=2, options=options)
    load(request, registry, Store(root), resume=True)
"""

PAIRS = """
import sys
from pathlib import Path
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import InputOptions
from qengine.storage.objects import Store
root, inputs = Path(sys.argv[1]), Path(sys.argv[2])
with Registry.open(root) as registry:
    for name in ("obj", "again"):
        words = {"catalog": "ext", "table": "obj", "key": "id", "options": InputOptions(label="obj")}
        load(LoadRequest(inputs=(inputs / f"{name}.parquet",), rows_per_tile=100, workers=2, **words), registry, Store(root))
        words = {"catalog": "demo", "table": "pair", "kind": TableKind.MATCH, "left": "obj.oid", "right": "ext.obj.sid"}
        if name == "obj":
            words |= {"rows_per_tile": 100, "workers": 2}
            load(LoadRequest(inputs=(inputs / "obj.parquet",), catalog="demo", table="obj", key="id"), registry, Store(root))
            load(LoadRequest(inputs=(inputs / "pair.parquet",), **words), registry, Store(root))
"""

REFRESH = """
import sys
from pathlib import Path
from qengine.catalog.loads import UNFINISHED
from qengine.catalog.registry import Registry
from qengine.loader import leftovers
from qengine.loader.once import refresh
from qengine.loader.transaction import Transaction
from qengine.storage.objects import Store
root = Path(sys.argv[1])
with Registry.open(root) as registry:
    last = registry.loads()[-1]
    if last.context["operation"] != "refresh":
        refresh("demo", (), registry, Store(root))
    elif last.state in UNFINISHED:
        Transaction.open(last.id, registry, Store(root)).commit()
    else:
        leftovers.heal(root, registry, "demo")
"""

PROGRAMS = {"once": ONCE, "family": FAMILY, "append": APPEND, "replace": REPLACE, "refresh": REFRESH}
BASES = {"append": FAMILY, "replace": FAMILY, "refresh": PAIRS}
"""What has been loaded before."""


def write_inputs(folder: Path) -> None:
    rng = np.random.default_rng(3)
    objects = sky(300)
    objects["ra"][7] = np.nan  # an orphan
    children = 1500
    keys = rng.choice(np.append(objects["id"], [10**9, 10**9 + 1]), children)
    source = {"sid": rng.permutation(children), "oid": keys, "flux": rng.normal(size=children)}
    again = sky(300, seed=5)
    again["id"] = objects["id"]  # all keys are somewhere else, and their children follow
    more = sky(91, seed=8)
    more["id"] = np.arange(100) + 10**9  # two of them are directors of orphans
    tables = {"obj": objects, "src": source, "visit": {"visit": np.arange(5)}, "more": more, "again": again}
    tables["pair"] = {"number": np.arange(400), "oid": rng.choice(objects["id"], 400), "sid": rng.choice(objects["id"], 400)}
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


class Bench:
    """A killer, inputs, and what an undisturbed load of each program leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killer = Killer.compile(folder)
        write_inputs(folder)
        self.calls: dict[str, int] = {}
        self.expected: dict[str, dict[str, object]] = {}

    def store(self, name: str) -> Path:
        return self.folder / name

    def fresh(self, program: str, name: str) -> Path:
        """Return a new store with what has been loaded before the program."""
        root = self.store(name)
        shutil.rmtree(root, ignore_errors=True)
        if program in BASES:
            base = self.store(f"base-{program}")
            if not base.exists():
                self.killer.calls(BASES[program], [str(base), str(self.folder)], base)
            shutil.copytree(base, root)
        return root

    def prepare(self, program: str) -> int:
        """Run the program undisturbed, once, and return how many calls it makes."""
        if program not in self.calls:
            root = self.fresh(program, f"undisturbed-{program}")
            self.calls[program] = self.killer.calls(PROGRAMS[program], [str(root), str(self.folder)], root)
            self.expected[program] = state_of(root)
        return self.calls[program]

    def check(self, program: str, kills: list[int]) -> None:
        """Kill the program at these calls, one run after the other, then let it end, and compare."""
        root = self.fresh(program, "killed")
        for at in kills:
            self.killer.kill_at(PROGRAMS[program], [str(root), str(self.folder)], root, at)
            check_readable(root)
        self.killer.calls(PROGRAMS[program], [str(root), str(self.folder)], root)
        found, expected = state_of(root), self.expected[program]
        for key, value in expected.items():
            assert found[key] == value, (program, kills)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("kill"))


def state_of(root: Path) -> dict[str, object]:
    """All that a store holds, but for names of loads and times."""
    with Registry.open(root) as registry:
        *before, load = registry.loads()
        assert load.state is LoadState.FINISHED
        store = Store(root)
        tables: dict[str, object] = {}
        referenced: set[str] = set()
        for one in registry.catalog():
            if one.table.schema == "demo":
                layouts = [one, *([one.other] if one.other is not None else [])]
                parts = [uri for each in layouts for kin in (each.home, each.orphan, each.margin) for uri in kin.uri.to_pylist()]
                keys = list(one.key_index.uri) if one.key_index else []
                referenced |= {*parts, *keys}
                assert all(sha256_file(store.path(uri)) == Path(uri).stem for uri in (*parts, *keys))
                tables[one.table.name] = (one.rows, parts, keys)
        inputs = [(one.table, one.number, one.label, one.version, one.replaced_by) for one in registry.inputs_of_load(load.number)]
        number = load.number
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and "sqlite" not in path.name]
    stored = {name for name in files if "/parts/" in name or "/keys/" in name}
    assert referenced <= stored if before else referenced == stored
    trees = {
        path.parent.name: read_properties(path)["hats_primary_table_url"] for path in root.glob("demo/*/collection.properties")
    }
    return {
        "tables": tables, "inputs": inputs, "number": number, "trees": trees,
        "files": sorted(name.replace(load.id, "LOAD") for name in files),
    }  # fmt: skip


def check_readable(root: Path) -> None:
    """What is published is published as a whole, whenever the writer has died."""
    if not (root / "registry.sqlite").is_file():
        return
    with Registry.open(root) as registry:
        rows = {one.table.name: one.rows for one in registry.catalog() if one.table.schema == "demo"}
    whole = {"obj": 309, "src": 1500, "visit": 5}
    assert rows in ({}, {"obj": 309}, whole, {**whole, "obj": 409}, {"obj": 309, "pair": 400})


@pytest.mark.parametrize(("program", "part"), [("once", 0.1), ("family", 0.97), ("append", 0.6)])
def test_a_killed_load_is_resumed(bench: Bench, program: str, part: float) -> None:
    bench.check(program, [max(1, int(part * bench.prepare(program)))])


@pytest.mark.slow
@pytest.mark.parametrize("program", list(PROGRAMS))
@pytest.mark.parametrize("batch", range(4))
def test_a_load_that_is_killed_anywhere_is_resumed(bench: Bench, program: str, batch: int) -> None:
    """240 kills in all, over all of the load; half of the resumed loads are killed again."""
    calls = bench.prepare(program)
    rng = random.Random(batch)
    for step in range(8):
        first = int(calls * (step + rng.random()) / 8) + 1
        bench.check(program, [first, rng.randint(1, calls)] if step % 2 else [first])


@pytest.mark.slow
@pytest.mark.parametrize("program", list(PROGRAMS))
@pytest.mark.parametrize("batch", range(4))
def test_a_load_that_is_killed_in_its_last_steps_is_resumed(bench: Bench, program: str, batch: int) -> None:
    """Around the publish steps are few and each one matters."""
    calls = bench.prepare(program)
    for at in range(calls - 60 + batch, calls + 1, 16):
        bench.check(program, [at])
