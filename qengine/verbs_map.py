"""What `qengine tables --map TABLE -o FILE` does: a picture of where on the sky the rows of a table are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qengine.catalog.model import LAYOUT, SKY_LINE, TableSnapshot
from qengine.client.picture import Caption, draw_sky, short
from qengine.errors import ConfigError
from qengine.opening import open_store
from qengine.sky.density import SKY_SQUARE_DEG, Float64Array, coarsened, per_square_degree, rows_of_ranges
from qengine.sky.healpix import read_map
from qengine.storage.hats import read_properties
from qengine.storage.objects import Store
from qengine.verbs import tell

_RANGE_ORDER = 8
_MAPS = ("skymap.fits", "point_map.fits")


def draw(store: Path, name: str, output: Path | None) -> None:
    """Draw the map of a table of a store into a PNG file."""
    path = output or Path(f"{name}.png")
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path}: maps are PNG files", hint="say -o NAME.png")
    files, registry = open_store(store)
    with registry:
        wanted = [one for one in registry.catalog() if name.lower() in (one.table.full_name.lower(), one.table.name.lower())]
    found = [one for one in wanted if not one.table.name.endswith(LAYOUT)]
    if len(found) != 1:
        known = f"{name} is in {', '.join(one.table.schema for one in found)}" if found else f"there is no table {name}"
        raise ConfigError(known, hint="say CATALOG.TABLE; qengine tables lists them")
    [one] = found
    if not one.table.line_column or not len(one.home) or one.table.line != SKY_LINE:
        raise ConfigError(f"{one.table.full_name} has no rows on the sky", hint="directors and their children have maps")
    counts, is_exact = counted(one, files)
    shown = coarsened(counts)
    density = per_square_degree(shown)
    area = SKY_SQUARE_DEG * float(np.mean(shown > 0))
    about = f"{float(counts.sum()):,.0f} rows on {area:,.4g} square degrees · snapshot {one.number}"
    if not is_exact:
        about += " · spread evenly within parts"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_sky(density, Caption(title=one.table.full_name, about=about), path)
    filled = density[density > 0]
    tell(f"{path}: {about}; {short(float(filled.min()))} to {short(float(filled.max()))} rows per square degree")


def counted(one: TableSnapshot, files: Store) -> tuple[Float64Array, bool]:
    """Return rows per pixel of the sky, and whether they were counted: by the map of the table's HATS catalogue, else the ranges of
    its parts tell how many there are."""
    rows = int(one.home.rows.sum())
    for map_file in _maps(one, files):
        counts = read_map(str(map_file))
        if int(counts.sum()) == rows:
            return counts, True
    return rows_of_ranges(one.home.start, one.home.stop, one.home.rows, _RANGE_ORDER), False


def _maps(one: TableSnapshot, files: Store) -> list[Path]:
    """Return the map files that may be those of the snapshot: of the tree of a table that was loaded, or beside attached files."""
    first = one.home.uri[0].as_py()
    if first.startswith("/"):
        folders = [each.parent for each in Path(first).parents if each.name == "dataset"]
    else:
        table = files.root / one.table.schema / one.table.name
        collection = table / "collection.properties"
        if not collection.is_file():
            return []
        folders = [table / read_properties(collection).get("hats_primary_table_url", "")]
    return [folder / name for folder in folders for name in _MAPS if (folder / name).is_file()]
