"""Sky maps of HATS trees count what is there, however the table came to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from qengine.loader.once import compact
from qengine.loader.request import OnDuplicate
from qengine.loader.sources.open import InputOptions
from qengine.sky.healpix import read_map
from qengine.storage.hats import read_properties
from tests.loader.stores import Site, sky


def is_right(site: Site) -> int:
    """Compare the map with the rows of the parts, and return its order."""
    snapshot = site.snapshot()
    tree = (
        site.store.root / "demo/obj" / read_properties(site.store.root / "demo/obj/collection.properties")["hats_primary_table_url"]
    )
    found = read_map(str(tree / "skymap.fits"))
    order = int(read_properties(tree / "properties")["hats_skymap_order"])
    assert len(found) == 12 * 4**order
    cells = site.read(snapshot.home)["_healpix_29"].to_numpy()
    assert np.array_equal(found, np.bincount(cells >> 2 * (29 - order), minlength=len(found)))
    assert (tree / "point_map.fits").read_bytes() == (tree / "skymap.fits").read_bytes()
    return order


def test_maps_follow_the_rows(site: Site) -> None:
    def load(name: str, columns: dict[str, Any], **words: Any) -> None:
        site.load(site.write(f"{name}.parquet", columns), key="id", options=InputOptions(label=name.rstrip("2")), **words)

    first, second = sky(3000, seed=1), sky(400, seed=2)
    first["ra"][5] = np.nan
    second["id"] += 1_000_000
    load("a", first)
    assert is_right(site) == 4
    load("b", second)
    is_right(site)
    load("b2", {name: values[:50] for name, values in second.items()})  # a new version of the input has fewer rows
    is_right(site)
    moved = {name: values[:20] for name, values in first.items()} | {"ra": np.full(20, 77.0), "dec": np.full(20, -33.0)}
    load("c", moved, on_duplicate=OnDuplicate.REPLACE)
    is_right(site)
    compact("demo", ["obj"], site.registry, site.store)
    is_right(site)
    load("d", sky(15_000, seed=3) | {"id": np.arange(15_009) + 5_000_000})  # a finer map is due
    assert is_right(site) == 5


def test_a_map_that_is_not_there_is_counted_anew(site: Site) -> None:
    columns = sky(500)
    whole = pa.table(columns)
    site.load(site.write("a.parquet", whole.slice(0, 300)), key="id")
    for old in (site.store.root / "demo/obj").rglob("skymap*.fits"):
        old.unlink()
    site.load(site.write("b.parquet", whole.slice(300)), key="id")
    is_right(site)
