"""Loads that are done by an executor, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qengine.catalog.model import TableKind
from qengine.loader.executor import Executor
from qengine.loader.load import load
from qengine.loader.request import LoadReport, LoadRequest
from tests.loader.stores import Site, sky

Digests = dict[str, dict[str, list[str]]]


def load_with(site: Site, executor: Executor | None, *inputs: Path, **words: Any) -> LoadReport:
    words = {"catalog": "demo", "table": "obj", "rows_per_tile": 100, "workers": 2, **words}
    return load(LoadRequest(inputs=inputs, **words), site.registry, site.store, executor=executor)


def load_family(site: Site, executor: Executor | None) -> list[LoadReport]:
    """A director in two inputs with orphans, rows to quarantine and a child; then more rows for a director that is there."""
    objects = sky(3000)
    objects["ra"][7] = np.nan
    objects["dec"][11] = 95.0
    rng = np.random.default_rng(3)
    half = {name: values[:1000] for name, values in objects.items()}
    rest = {name: values[1000:] for name, values in objects.items()}
    source = {"sid": rng.permutation(9000), "oid": rng.choice(np.append(objects["id"], 10**9), 9000), "flux": rng.normal(size=9000)}
    source["flux"][::50] = np.nan
    more = sky(400, seed=8)
    more["id"] = np.arange(len(more["id"])) + 10**9
    files = [
        site.write(f"{name}.parquet", table) for name, table in (("half", half), ("rest", rest), ("src", source), ("more", more))
    ]
    return [
        load_with(site, executor, *files[:2], key="id"),
        load_with(site, executor, files[2], table="src", kind=TableKind.CHILD, director="obj", director_key="oid", key="sid"),
        load_with(site, executor, files[3]),
    ]


def digests(site: Site) -> Digests:
    """The digests of all files of all tables, in their order, by role."""
    found: Digests = {}
    for one in site.registry.catalog():
        layouts = [one, *([one.other] if one.other is not None else [])]
        for each in layouts:
            parts = {"home": each.home, "orphan": each.orphan, "margin": each.margin}
            found[each.table.name] = {role: kin.digest.to_pylist() for role, kin in parts.items()}
            found[each.table.name]["keys"] = list(each.key_index.digest) if each.key_index else []
    return found


def counts(report: LoadReport) -> dict[str, Any]:
    """What a load has counted."""
    names = (
        "read",
        "stored",
        "orphaned",
        "without_director",
        "quarantined",
        "wrapped",
        "nan",
        "tiles",
        "parts",
        "margin_rows",
        "filtered",
    )
    return {name: getattr(report, name) for name in names}
