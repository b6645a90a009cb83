"""HATS catalogues written by hand, as other writers leave them: the variants that attaching must take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.sky.cells import LINE_END
from qengine.sky.healpix import cells_of

PROPERTIES = {
    "obs_collection": "hand made",
    "dataproduct_type": "object",
    "hats_nrows": "0",
    "hats_col_ra": "ra",
    "hats_col_dec": "dec",
}


def sky(rows: int = 300, seed: int = 1) -> pa.Table:
    """Random positions over the whole sphere with a key, a float that is sometimes NaN, and a text."""
    random = np.random.default_rng(seed)
    mag = random.normal(size=rows)
    mag[::7] = np.nan
    return pa.table(
        {
            "id": np.arange(rows),
            "ra": random.uniform(0, 360, rows),
            "dec": np.degrees(np.arcsin(random.uniform(-1, 1, rows))),
            "mag": mag,
            "name": [f"star {i}" for i in range(rows)],
        }
    )


def with_cells(rows: pa.Table, name: str = "_healpix_29", order: int = 29) -> pa.Table:
    """Append the column of cells."""
    cells = cells_of(rows["ra"].to_numpy(), rows["dec"].to_numpy()) >> (2 * (29 - order))
    return rows.append_column(name, pa.array(cells)).sort_by(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a writer lays files out. `suffix` "/" makes directory leaves of `files_per_leaf` files."""

    suffix: str = ".parquet"
    files_per_leaf: int = 2
    partition_info: bool = True
    properties_file: str = "hats.properties"
    schema_file: str = "_common_metadata"
    row_group_size: int = 10


def write_catalog(
    root: Path, rows: pa.Table, *, order: int = 1, style: Style | None = None, properties: Mapping[str, str] | None = None
) -> Path:
    """Write `rows` (which need ra and dec) as one catalogue with tiles of one order."""
    style = style or Style()
    words = PROPERTIES | dict(properties or {})
    cells = cells_of(rows[words["hats_col_ra"]].to_numpy(), rows[words["hats_col_dec"]].to_numpy())
    tiles = cells >> (2 * (29 - order))
    for tile in np.unique(tiles):
        write_leaf(root, order, int(tile), rows.filter(pa.array(tiles == tile)), style)
    if style.partition_info:
        lines = ["Norder,Npix,num_rows", *(f"{order},{tile},{(tiles == tile).sum()}" for tile in np.unique(tiles))]
        (root / "partition_info.csv").write_text("\n".join(lines) + "\n")
    if style.schema_file:
        pq.write_metadata(rows.schema, root / "dataset" / style.schema_file)
    write_properties(root / style.properties_file, words)
    return root


def write_leaf(root: Path, order: int, tile: int, rows: pa.Table, style: Style) -> list[Path]:
    folder = root / "dataset" / f"Norder={order}" / f"Dir={tile // 10_000 * 10_000}"
    folder.mkdir(parents=True, exist_ok=True)
    if style.suffix != "/":
        path = folder / f"Npix={tile}{style.suffix}"
        pq.write_table(rows, path, row_group_size=style.row_group_size)
        return [path]
    leaf = folder / f"Npix={tile}"
    leaf.mkdir()
    bounds = np.linspace(0, len(rows), style.files_per_leaf + 1).astype(int)
    paths = []
    for number in range(style.files_per_leaf):
        paths.append(leaf / f"night_{number}.parquet")
        pq.write_table(
            rows.slice(bounds[number], bounds[number + 1] - bounds[number]), paths[-1], row_group_size=style.row_group_size
        )
    return paths


def write_properties(path: Path, words: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in words.items() if value))


def whole_sky(starts: np.ndarray, stops: np.ndarray) -> bool:
    """Whether sorted ranges cover the sky without a gap."""
    return bool(starts[0] == 0 and stops[-1] == LINE_END and (starts[1:] == stops[:-1]).all())
