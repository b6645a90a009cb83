"""A real Data Butler on disk with tracts and tables, without the Science Pipelines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from lsst.daf.butler import Butler, DatasetRef, DatasetType
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

SKYMAP = "map"


def make_repo(root: Path, tracts: Iterable[int] = range(4)) -> Path:
    """Make a repository with a skymap whose tract n is a square degree at longitude n."""
    Butler.makeRepo(str(root))
    with writing(root, "setup") as butler:
        words = {"name": SKYMAP, "hash": bytes(32), "tract_max": 20_000, "patch_nx_max": 1, "patch_ny_max": 1}
        butler.registry.insertDimensionData("skymap", words)
        for tract in tracts:
            corners = [(tract, 0), (tract + 1, 0), (tract + 1, 1), (tract, 1)]
            region = ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*corner)) for corner in corners])
            butler.registry.insertDimensionData("tract", {"skymap": SKYMAP, "id": tract, "region": region})
            butler.registry.insertDimensionData(
                "patch", {"skymap": SKYMAP, "tract": tract, "id": 0, "cell_x": 0, "cell_y": 0, "region": region}
            )
    return root


def writing(root: Path, run: str) -> Any:
    """A Butler that writes to a run."""
    return Butler.from_config(str(root), writeable=True, run=run)


def put(root: Path, run: str, tract: int, rows: pa.Table, *, name: str = "object", storage: str = "ArrowTable") -> DatasetRef:
    """Store a table as dataset `name` of a tract, in a run of its own or a common one."""
    with writing(root, run) as butler:
        kind = DatasetType(name, ("skymap", "tract"), storage, universe=butler.dimensions)
        butler.registry.registerDatasetType(kind)
        content: Any = rows
        if storage == "DataFrame":
            content = rows.to_pandas()
        elif storage == "ArrowAstropy":
            from astropy.table import Table

            content = Table({name: rows[name].to_numpy() for name in rows.schema.names})
            content["ra"].unit = "deg"
        return butler.put(content, kind, skymap=SKYMAP, tract=tract)


def objects(tract: int, rows: int = 50, *, first: int = 0, shift: float = 0.0) -> pa.Table:
    """Objects spread over a tract; keys are unique over tracts."""
    return pa.table(
        {
            "objectId": pa.array([tract * 1_000_000 + first + i for i in range(rows)], pa.int64()),
            "ra": pa.array([tract + (i + 0.5) / rows for i in range(rows)], pa.float64()),
            "dec": pa.array([((i * 7) % rows + 0.5) / rows for i in range(rows)], pa.float64()),
            "mag": pa.array([20.0 + shift + i / rows for i in range(rows)], pa.float64()),
        }
    )
