"""A load that is resumed does not do again what it had finished, trusts nothing that has changed, and ends as if undisturbed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qengine.catalog.model import TableKind
from qengine.loader.request import LoadRequest
from qengine.loader.stages import Stages
from qengine.loader.transaction import Transaction
from tests.loader.stores import Site, sky
from tests.loader.test_kill import Bench, state_of
from tests.support.kill import HAS_COMPILER
from tests.support.postgres import ON_BOTH

NewSite = Callable[[Path], Site]

STAGES = ("locate", "read", "write", "margin")
CHILD: dict[str, Any] = {"table": "src", "kind": TableKind.CHILD, "director": "obj", "director_key": "oid", "key": "sid"}


class PowerCut(Exception):
    """The load ends here."""


class Watch:
    """Notes the stages that are reported, and ends the load before it goes on after one."""

    def __init__(self, until: str = "", times: int = 1) -> None:
        self.seen: list[str] = []
        self._until = until
        self._times = times

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self.seen or self.seen[-1] != stage:
            self.seen.append(stage)
        if stage == self._until and self.seen.count(stage) == self._times:
            raise PowerCut


def family(site: Site) -> Transaction:
    """A load of objects and their sources that has not begun to commit."""
    objects = sky(600)
    rng = np.random.default_rng(5)
    sources = {"sid": np.arange(3000), "oid": rng.choice(objects["id"], 3000), "flux": rng.normal(size=3000)}
    words = {"catalog": "demo", "rows_per_tile": 50, "workers": 2, "memory_bytes": 100_000}  # for some buckets each
    load = Transaction.begin("demo", site.registry, site.store)
    load.contribute(LoadRequest(inputs=(site.write("obj.parquet", objects),), table="obj", key="id", **words))
    load.contribute(LoadRequest(inputs=(site.write("src.parquet", sources),), **CHILD, **words))
    return load


def append(site: Site) -> Transaction:
    """A load that adds, replaces nothing, and brings directors of orphans."""
    family(site).commit()
    more = sky(200, seed=9)
    more["id"] = np.arange(len(more["ra"])) + 10**6
    load = Transaction.begin("demo", site.registry, site.store)
    load.contribute(LoadRequest(inputs=(site.write("more.parquet", more),), table="obj", catalog="demo", workers=2))
    return load


def parts(site: Site) -> dict[str, Any]:
    return {
        name: [[one.uri.to_pylist(), one.start.tolist()] for one in (found.home, found.orphan, found.margin)]
        + [found.key_index.uri if found.key_index else ()]
        for name, found in ((name, site.snapshot(name)) for name in ("obj", "src"))
    }


@pytest.mark.parametrize("make", [family, append])
@pytest.mark.parametrize(("until", "times"), [("read", 1), ("write", 1), ("margin", 1), ("locate", 2), ("read", 2), ("write", 2)])
def test_finished_stages_are_not_done_again(
    tmp_path: Path, make_site: NewSite, make: Callable[[Site], Transaction], until: str, times: int
) -> None:
    undisturbed, disturbed = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    everything = Watch()
    make(undisturbed).commit(progress=everything)
    if everything.seen.count(until) < times:
        pytest.skip("there is no such stage")
    load = make(disturbed)
    first, second = Watch(until, times), Watch()
    with pytest.raises(PowerCut):
        load.commit(progress=first)
    load.commit(progress=second)
    # what is left of the stage that was cut is done (it may have been its last step), and nothing before it
    assert second.seen in (everything.seen[len(first.seen) - 1 :], everything.seen[len(first.seen) :])
    assert parts(disturbed) == parts(undisturbed)


@ON_BOTH
def test_parts_that_are_written_stay(site: Site) -> None:
    load = family(site)
    with pytest.raises(PowerCut):
        load.commit(progress=Watch("locate", 2))
    before = {path: path.stat().st_mtime_ns for path in (site.store.root / "demo/obj/parts").rglob("*.parquet")}
    assert before
    load.commit()
    assert before.items() <= {path: path.stat().st_mtime_ns for path in before}.items()


@pytest.mark.parametrize("what", ["locate/cells", "distribute/*.arrow", "write.jsonl", "locate.json"])
def test_what_has_changed_is_done_again(tmp_path: Path, make_site: NewSite, what: str) -> None:
    undisturbed, disturbed = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    family(undisturbed).commit()
    load = family(disturbed)
    with pytest.raises(PowerCut):
        load.commit(progress=Watch("write"))
    damaged = next(load.journal.work.glob(f"obj/0/{what}"))
    words = bytearray(damaged.read_bytes())
    words[len(words) // 2] ^= 0xFF
    damaged.write_bytes(words)
    load.commit()
    assert parts(disturbed) == parts(undisturbed)


def test_a_part_that_has_changed_is_written_again(tmp_path: Path, make_site: NewSite) -> None:
    undisturbed, disturbed = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    family(undisturbed).commit()
    load = family(disturbed)
    with pytest.raises(PowerCut):
        load.commit(progress=Watch("margin"))
    damaged = next((disturbed.store.root / "demo/obj/parts").rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-7] + b"nonsens")
    watch = Watch()
    load.commit(progress=watch)
    assert watch.seen[0] == "read", "cells are known, rows are distributed once more"
    assert parts(disturbed) == parts(undisturbed)


def test_stages_belong_to_a_mark(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "work", "one")
    (stages.begin("a") / "file").write_text("words")
    stages.finish("a", {"n": 1}, [stages.seal(stages.folder("a") / "file")])
    stages.begin("b")
    stages.finish("b", {"n": 2})
    again = Stages(tmp_path / "work", "one")
    assert [again.find("a"), again.find("b"), again.find("c")] == [{"n": 1}, {"n": 2}, None]
    assert Stages(tmp_path / "work", "two").find("a") is None


def test_nothing_counts_after_a_stage_that_is_done_again(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "work", "one")
    for name in ("a", "b"):
        (stages.begin(name) / "file").write_text(name)
        stages.finish(name, {}, [stages.seal(stages.folder(name) / "file")])
    stages.keep_lines("log", [])
    stages.add_line("log", {"n": 1})
    again = Stages(tmp_path / "work", "one")
    assert again.find("a") == {}
    assert again.lines("log") == [{"n": 1}]
    (again.folder("b") / "file").write_text("c")
    assert again.find("b") is None
    assert again.lines("log") == []
    again.begin("b")
    third = Stages(tmp_path / "work", "one")
    assert third.find("a") == {}
    assert third.find("b") is None


PROGRAM = """
import os, sys
from pathlib import Path
from qengine.catalog.loads import LoadState
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.loader.request import LoadRequest
from qengine.loader.transaction import Transaction
from qengine.storage.objects import Store
root, inputs, trace = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
words = {"catalog": "demo", "rows_per_tile": 100, "workers": 2}
def progress(stage, done, total):
    log = os.environ.get("KILLER_COUNT")
    with trace.open("a") as file:
        file.write(f"{stage} {os.path.getsize(log) if log and os.path.exists(log) else 0}\\n")
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
    load.commit(progress=progress)
"""


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler, or not Linux")
def test_a_load_that_is_killed_after_a_stage_does_the_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    root, trace = bench.store("undisturbed"), tmp_path / "trace"
    bench.killer.calls(PROGRAM, [str(root), str(tmp_path), str(trace)], root)
    lines = [line.split() for line in trace.read_text().splitlines()]
    expected = state_of(root)
    runs = [next(group) for _, group in itertools.groupby(lines, key=lambda line: line[0])]
    stages = [stage for stage, _ in runs]
    assert stages == [*STAGES, *STAGES[:3]]
    for at, (stage, calls) in enumerate(runs):
        killed = bench.store(f"killed-{at}")
        killed.mkdir()
        assert bench.killer.kill_at(PROGRAM, [str(killed), str(tmp_path), str(tmp_path / "x")], killed, int(calls) + 1), stage
        trace.unlink()
        bench.killer.calls(PROGRAM, [str(killed), str(tmp_path), str(trace)], killed)
        again = [line.split()[0] for line in trace.read_text().splitlines()]
        # A stage that was on its last step when it was killed may have nothing left to report.
        assert [one for one, _ in itertools.groupby(again)] in (stages[at:], stages[at + 1 :])
        assert state_of(killed) == expected


@ON_BOTH
def test_rows_are_put_aside_once(site: Site) -> None:
    """Of a table that puts rows aside, the file of these is there after a resumed load too."""
    objects = sky(300)
    objects["dec"][3] = 91.0
    load = Transaction.begin("demo", site.registry, site.store)
    load.contribute(LoadRequest(inputs=(site.write("o.parquet", pa.table(objects)),), table="obj", key="id", catalog="demo"))
    with pytest.raises(PowerCut):
        load.commit(progress=Watch("write"))
    (report,) = load.commit().reports
    assert (report.read, report.quarantined) == (309, 1)
    assert site.read_one(report.quarantine).num_rows == 1
