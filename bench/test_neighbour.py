"""Near neighbours: pairs of objects within a radius. Bare DuckDB gets the same join on a grid, in one statement over all files.

The box of the wide pairs shrinks as rows become dense, so that it holds about as many objects at any number of rows.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import sqlglot

from bench.conftest import ROWS, Bench, Racing
from bench.datagen import FIELD_DEC, FIELD_RA
from qengine.plan.skyjoin import GridEdge, cell_size_deg, grid_join

PAIRS = """SELECT COUNT(*) AS n FROM bench."Object" AS a JOIN bench."Object" AS b
           ON qe_distance(a.coord_ra, a.coord_dec, b.coord_ra, b.coord_dec) < {radius} WHERE a."objectId" < b."objectId"{more}"""


@pytest.mark.parametrize(
    ("name", "arcsec", "size"), [("sky_2arcsec", 2.0, None), ("field_54arcsec", 54.0, 3.0 * math.sqrt(2e6 / ROWS))]
)
def test_pairs(race: Racing, benchmark: Any, bench: Bench, name: str, arcsec: float, size: float | None) -> None:
    radius = arcsec / 3600
    ra, dec = FIELD_RA, FIELD_DEC
    boxes = (
        [
            f"{x}.coord_ra BETWEEN {ra - size} AND {ra + size} AND {x}.coord_dec BETWEEN {dec - size / 2} AND {dec + size / 2}"
            for x in "ab"
        ]
        if size
        else []
    )
    more = "".join(f" AND {box}" for box in boxes)
    position = ("coord_ra", "coord_dec")
    edge = GridEdge(
        home="a", expanded="b", home_position=position, expanded_position=position, radius_deg=radius,
        cell_deg=cell_size_deg(radius, bench.tables["Object"].rows),
    )  # fmt: skip
    tree = sqlglot.parse_one(PAIRS.format(radius=radius, more=more), dialect="duckdb")
    terms = {x: [sqlglot.parse_one(box, dialect="duckdb")] for x, box in zip("ab", boxes, strict=True)} if boxes else {}
    by_hand = grid_join(tree, [edge], terms).sql(dialect="duckdb")  # type: ignore[arg-type]
    adql = f"""SELECT COUNT(*) AS n FROM bench.Object a JOIN bench.Object b
               ON DISTANCE(a.coord_ra, a.coord_dec, b.coord_ra, b.coord_dec) < {radius} WHERE a.objectId < b.objectId{more}"""
    # The first join on distance of a worker loads the kernel: the better of two rounds is without that.
    race(f"pairs_{name}", adql, by_hand, rounds=2)
    if size is None:
        benchmark.extra_info["rows_per_s_core"] = ROWS / benchmark.stats.stats.min / 2
