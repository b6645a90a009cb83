"""Loads that are done by an executor, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from qengine.catalog.model import TableKind
from qengine.loader.executor import Executor
from qengine.loader.load import load
from qengine.loader.once import compact
from qengine.loader.request import LoadReport, LoadRequest, OnDuplicate, Progress
from qengine.loader.sources.open import InputOptions
from tests.loader.stores import Site, sky

Digests = dict[str, dict[str, list[str]]]


def load_with(
    site: Site, executor: Executor | None, *inputs: Path, progress: Progress | None = None, resume: bool = False, **words: Any
) -> LoadReport:
    words = {"catalog": "demo", "table": "obj", "rows_per_tile": 100, "workers": 2, **words}
    request = LoadRequest(inputs=inputs, **words)
    return load(request, site.registry, site.store, executor=executor, progress=progress, resume=resume)


def objects(rows: int) -> dict[str, Any]:
    """A director with an orphan and a row to quarantine."""
    found = sky(rows)
    found["ra"][7] = np.nan
    found["dec"][11] = 95.0
    return found


def sources(site: Site, rows: int, *, seed: int = 3) -> Path:
    """A child with rows without a director and NaN, in many row groups that are read as several pieces."""
    rng = np.random.default_rng(seed)
    keys = rng.choice(np.append(np.arange(3000) * 7, 10**9), rows)
    table = {"sid": rng.permutation(rows), "oid": keys, **{f"flux{i}": rng.normal(size=rows) for i in range(6)}}
    table["flux0"][::50] = np.nan
    path = site.inputs / "src.parquet"
    pq.write_table(pa.table(table), path, row_group_size=rows // 20)
    return path


def load_family(site: Site, executor: Executor | None, *, rows: int = 60_000, progress: Progress | None = None) -> list[LoadReport]:
    """A director in two inputs and a child; then more rows for a director that is there."""
    both = objects(3000)
    half = {name: values[:1000] for name, values in both.items()}
    rest = {name: values[1000:] for name, values in both.items()}
    more = sky(400, seed=8)
    more["id"] = np.arange(len(more["id"])) + 10**9
    first, second, third = (site.write(f"{name}.parquet", one) for name, one in (("half", half), ("rest", rest), ("more", more)))
    child = {"table": "src", "kind": TableKind.CHILD, "director": "obj", "director_key": "oid", "key": "sid"}
    return [
        load_with(site, executor, first, second, key="id", progress=progress),
        load_with(site, executor, sources(site, rows), **child, progress=progress),
        load_with(site, executor, third, progress=progress),
    ]


def change_family(site: Site, executor: Executor | None) -> list[LoadReport]:
    """Pairs; a filter over rows of a CSV file; rows that take the place of others, with their children; ranges written anew."""
    rng = np.random.default_rng(5)
    ids = site.read(site.snapshot().home).column("id").to_numpy()
    pairs = {"number": np.arange(2000), "left": rng.choice(ids, 2000), "right": rng.choice(ids, 2000)}
    again = sky(500, seed=6)
    again["id"] = np.arange(len(again["id"])) * 7
    text = sky(300, seed=9)
    text["id"] = np.arange(len(text["id"])) + 2 * 10**9
    pacsv.write_csv(pa.table(text), site.inputs / "text.csv")
    options = InputOptions(label=str(site.inputs / "half.parquet"))
    words = {"table": "pair", "kind": TableKind.MATCH, "left": "obj.left", "right": "obj.right"}
    reports = [
        load_with(site, executor, site.write("pair.parquet", pairs), **words),
        load_with(site, executor, site.inputs / "text.csv", filter="mag > 15"),
        load_with(
            site, executor, site.write("again.parquet", again), on_duplicate=OnDuplicate.REPLACE, allow_orphans=True,
        ),
        load_with(site, executor, site.write("part.parquet", sky(90, seed=2)), options=options, allow_orphans=True,
                  on_duplicate=OnDuplicate.QUARANTINE),
    ]  # fmt: skip
    return [*reports, *compact("demo", (), site.registry, site.store, executor=executor)]


def digests(site: Site) -> Digests:
    """The digests of all files of all tables, in their order, by role."""
    found: Digests = {}
    for one in site.registry.catalog():
        layouts = [one, *([one.other] if one.other is not None else [])]
        for each in layouts:
            parts = {"home": each.home, "orphan": each.orphan, "margin": each.margin}
            found[each.table.name] = {role: kin.digest.to_pylist() for role, kin in parts.items()}
            found[each.table.name]["keys"] = list(each.key_index.digest) if each.key_index else []
            found[each.table.name]["table"] = [repr(each.table)]
    return found


def counts(report: LoadReport) -> dict[str, Any]:
    """What a load has counted."""
    timed = ("load", "seconds", "quarantine")
    return {name: value for name, value in report.to_json().items() if name not in timed}
