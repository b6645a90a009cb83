"""Cones in the dense field. By hand means: DuckDB is given the right files, the range of the line, the box and the exact test.

Small cones lie at random places, a new one for each call.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.conftest import WITH_URL, Bench, Pairs, Racing
from bench.datagen import FIELD_DEC, FIELD_RA
from qengine.sky.coverage import coverage
from qengine.sky.region import Circle

COLUMNS = "objectId, coord_ra, coord_dec, g_psfFlux, r_psfFlux"
PLACES = 40


def cone(bench: Bench, ra: float, dec: float, radius: float, columns: str) -> tuple[str, str]:
    """Return the statement and what it is by hand."""
    cells = coverage(Circle(ra, dec, radius))
    files = bench.files("Object", bench.tables["Object"].home.meeting(cells))
    low, high = int(cells.starts[0]), int(cells.stops[-1])
    reach = math.degrees(math.asin(math.sin(math.radians(radius)) / math.cos(math.radians(dec))))
    shown = ", ".join(f'"{c.name}"' for c in bench.tables["Object"].table.columns if not c.hidden) if columns == "*" else columns
    by_hand = f"""
        SELECT {shown} FROM read_parquet({files}) WHERE _healpix_29 >= {low} AND _healpix_29 < {high}
        AND coord_dec BETWEEN {dec - radius} AND {dec + radius} AND coord_ra BETWEEN {ra - reach} AND {ra + reach}
        AND qe_in_circle(coord_ra, coord_dec, {ra}::DOUBLE, {dec}::DOUBLE, {radius}::DOUBLE)"""
    adql = f"SELECT {columns} FROM bench.Object WHERE CONTAINS(POINT(coord_ra, coord_dec), CIRCLE({ra}, {dec}, {radius})) = 1"
    return adql, by_hand


def at_random(bench: Bench, radius: float, columns: str) -> Pairs:
    """Return cones at random places of the field."""
    places = np.random.default_rng(11).uniform(-4, 4, (PLACES, 2)).round(6).tolist()
    return [cone(bench, FIELD_RA + east, FIELD_DEC + north, radius, columns) for east, north in places]


@pytest.mark.parametrize("engine", WITH_URL, indirect=True)
def test_arcminute(race: Racing, bench: Bench) -> None:
    race("cone_0.01667", at_random(bench, 1 / 60, "*"))


def test_tenth_of_a_degree(race: Racing, bench: Bench) -> None:
    race("cone_0.1", at_random(bench, 0.1, COLUMNS))


@pytest.mark.parametrize("radius", [1.0, 10.0], ids=["1deg", "10deg"])
def test_cone(race: Racing, bench: Bench, radius: float) -> None:
    race(f"cone_{radius:.4g}", *cone(bench, FIELD_RA, FIELD_DEC, radius, COLUMNS))


def test_box_joined_to_children(race: Racing, bench: Bench) -> None:
    ra, dec = FIELD_RA, FIELD_DEC
    term = f"o.coord_ra BETWEEN {ra} AND {ra + 0.1} AND o.coord_dec BETWEEN {dec} AND {dec + 0.1}"
    head = "SELECT o.objectId, o.coord_ra, s.sourceId FROM bench.Object o JOIN bench.SourceAssoc s ON s.objectId = o.objectId"
    race("box_with_children", f"{head} WHERE {term}", f"{head} WHERE {term}")
