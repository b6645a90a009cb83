"""Random small skies that contain every place where a sharded sky can go wrong.

A `Sky` is a catalogue of six tables: director `Object`, its children `Source` (own position) and `Forced` (none), director `Star` of
another family, child `Spectrum` of `Star`, replicated `Filter`. Always present: the poles, RA 0 and just below 360, tile corners where two,
three and four tiles meet with points on all sides, tight clusters (deep tiles), lonely rows (one-row tiles), empty sky, NULL and NaN
positions, children without, with a NULL and with an unknown director key, a child far from its director and one across the border of its
tile. Numbers are dyadic rationals of few bits, so that their sums are exact in any order; keys include integers that doubles cannot hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import healpy
import pyarrow as pa
import pyarrow.compute as pc

from tests.support.sky_truth import offset, wrap

Position = tuple[float | None, float | None]

MARGIN_ARCSEC = 30.0
ARCSEC = 1 / 3600
JUNCTION = 1
"""Which of a sky's places is the one where three base tiles meet: at |dec| = asin(2/3)."""


class Role(Enum):
    """What a column is for, as the query generator needs to know it."""

    KEY = "key"
    DIRECTOR_KEY = "director_key"
    RA = "ra"
    DEC = "dec"
    VALUE = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyTable:
    """One table. `rows` is what the loader is given (floats may be NaN); empty names mean that there is no such column."""

    name: str
    kind: str
    rows: pa.Table
    key: str = ""
    ra: str = ""
    dec: str = ""
    director: str = ""
    director_key: str = ""

    @property
    def clean(self) -> pa.Table:
        """The rows as queries must see them: NaN is NULL."""
        columns = []
        for column in self.rows.columns:
            if pa.types.is_floating(column.type):
                column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            columns.append(column)
        return pa.table(columns, schema=self.rows.schema)

    def role(self, column: str) -> Role:
        named = {self.key: Role.KEY, self.director_key: Role.DIRECTOR_KEY, self.ra: Role.RA, self.dec: Role.DEC}
        return named.get(column, Role.VALUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """A catalogue; `name` is its schema. `places` are points of interest for regions."""

    name: str
    seed: int
    tables: tuple[SkyTable, ...]
    places: tuple[tuple[float, float], ...]
    rows_per_tile: int
    margin_arcsec: float = MARGIN_ARCSEC

    def table(self, name: str) -> SkyTable:
        return next(table for table in self.tables if table.name == name)


def build_sky(seed: int, *, scale: float = 1.0, name: str = "") -> Sky:
    """Return the sky of this seed; `scale` multiplies the number of rows."""
    return _Builder(random.Random(f"sky {seed}"), scale).build(seed, name or f"sky{seed}")


class _Builder:
    def __init__(self, rng: random.Random, scale: float) -> None:
        self.rng = rng
        self.scale = scale

    def build(self, seed: int, name: str) -> Sky:
        places = self.places()
        objects = self.objects(places)
        stars = self.stars(places, objects)
        tables = (
            objects,
            self.sources(objects),
            self.forced(objects),
            stars,
            self.spectra(stars),
            self.filters(),
        )
        return Sky(name=name, seed=seed, tables=tables, places=tuple(places), rows_per_tile=self.rng.choice((4, 9, 16)))

    # -- where -------------------------------------------------------------------------------------------------------------

    def places(self) -> list[tuple[float, float]]:
        """Points of interest: poles, the RA seam, tile corners of several orders, the equator's corners, anywhere."""
        rng = self.rng
        seam = rng.uniform(-80, 80)
        found = [
            (0.0, 90.0),
            (rng.choice((0.0, 90.0, 180.0, 270.0)), math.degrees(math.asin(2 / 3)) * rng.choice((-1, 1))),
            (rng.uniform(0, 360), 90.0),
            (0.0, -90.0),
            (0.0, seam),
            (math.nextafter(360.0, 0), seam),
            (0.0, 0.0),
            (45.0, 0.0),
        ]
        for order in (0, 1, 3, 6):
            pixel = rng.randrange(12 * 4**order)
            lon, lat = healpy.vec2ang(healpy.boundaries(2**order, pixel, nest=True).T, lonlat=True)
            found += [(wrap(float(lon[i])), float(lat[i])) for i in rng.sample(range(4), 2)]
        found += [self.anywhere() for _ in range(3)]
        return found

    def anywhere(self) -> tuple[float, float]:
        return self.rng.uniform(0, 360), math.degrees(math.asin(self.rng.uniform(-1, 1)))

    def beside(self, place: tuple[float, float], reach: float) -> tuple[float, float]:
        return offset(*place, self.rng.uniform(0, 360), reach * self.rng.random())

    def many(self, count: int) -> int:
        return max(1, round(count * self.scale))

    def director_positions(self, places: Sequence[tuple[float, float]]) -> list[Position]:
        rng = self.rng
        found: list[Position] = list(places)
        pole, junction = places[0], places[JUNCTION]
        for place in (junction, pole, *rng.sample(list(places), 7)):
            # Four directions around a corner: rows of every tile that meets there, within the margin of each other.
            is_certain = place in (pole, junction)
            reach = rng.choice((3, 12) if is_certain else (0.3, 3, 12, 25, 300)) * ARCSEC
            start = rng.uniform(0, 90)
            found += [offset(*place, start + 90 * k, reach) for k in range(4 if is_certain else rng.choice((2, 3, 4)))]
        for _ in range(rng.choice((1, 2))):
            center = rng.choice((*places, self.anywhere()))
            reach = rng.choice((2, 20, 200)) * ARCSEC
            found += [self.beside(center, reach) for _ in range(self.many(12))]
        found += [self.anywhere() for _ in range(self.many(25))]
        found += [(None, None), (math.nan, math.nan), (rng.uniform(0, 360), None), (math.nan, rng.uniform(-90, 90))]
        twin = rng.choice(places)
        found += [twin, twin]
        rng.shuffle(found)
        return found

    # -- what --------------------------------------------------------------------------------------------------------------

    def dyadic(self, *, nulls: float = 0.1, nans: float = 0.05) -> float | None:
        """A multiple of 1/8 in [-32, 32], often small and therefore often equal to another."""
        luck = self.rng.random()
        if luck < nulls:
            return None
        if luck < nulls + nans:
            return math.nan
        reach = self.rng.choice((16, 256))
        return self.rng.randint(-reach, reach) / 8

    def small(self, top: int, *, nulls: float = 0.0) -> int | None:
        return None if self.rng.random() < nulls else self.rng.randrange(top)

    def text(self) -> str | None:
        words = ("M31", "m31", "NGC 1", "ngc_10", "Vega", "vega%", "It's", "", "Ä Cen", "x")
        return None if self.rng.random() < 0.15 else self.rng.choice(words)

    def band(self) -> str | None:
        return None if self.rng.random() < 0.08 else self.rng.choice("ugrizw")

    def time(self) -> datetime | None:
        start = datetime(2020, 1, 1)
        return (
            None
            if self.rng.random() < 0.1
            else start + timedelta(hours=self.rng.randrange(60), microseconds=self.rng.choice((0, 1, 500_000)))
        )

    def keys(self, count: int) -> list[int]:
        """Unique keys in no order; a few beyond 2**53, where doubles are too coarse, and one negative."""
        rng = self.rng
        found = rng.sample(range(1, 20 * count), count)
        for i in rng.sample(range(count), min(4, count)):
            found[i] += 2**55
        found[rng.randrange(count)] = -7
        return found

    def objects(self, places: Sequence[tuple[float, float]]) -> SkyTable:
        at = self.director_positions(places)
        n = len(at)
        rows = pa.table(
            {
                "objectId": pa.array(self.keys(n), pa.int64()),
                "ra": _floats([p[0] for p in at]),
                "dec": _floats([p[1] for p in at]),
                "gMag": _floats([self.dyadic() for _ in range(n)]),
                "rMag": _floats([self.dyadic(nulls=0, nans=0) for _ in range(n)]),
                "flags": pa.array([self.small(8) for _ in range(n)], pa.int32()),
                "grade": pa.array([self.small(4, nulls=0.2) for _ in range(n)], pa.int16()),
                "name": pa.array([self.text() for _ in range(n)], pa.string()),
                "isVariable": pa.array([self.rng.choice((True, False, None)) for _ in range(n)], pa.bool_()),
            }
        )
        return SkyTable(name="Object", kind="director", rows=rows, key="objectId", ra="ra", dec="dec")

    def director_keys(self, director: SkyTable, count: int) -> list[int | None]:
        """Foreign keys: a few directors have many children, many have none; some keys are NULL and some unknown."""
        rng = self.rng
        keys = director.rows[director.key].to_pylist()
        busy = rng.sample(keys, 4)
        some = rng.sample(keys, max(5, len(keys) // 2))
        found: list[int | None] = []
        for _ in range(count):
            luck = rng.random()
            if luck < 0.06:
                found.append(None)
            elif luck < 0.12:
                found.append(10**7 + rng.randrange(5))
            else:
                found.append(rng.choice(busy if luck < 0.4 else some))
        return found

    def near_director(self, director: SkyTable, key: int | None) -> Position:
        """A child's own position: beside its director, across the tile's border, far away, or nowhere."""
        rng = self.rng
        if rng.random() < 0.05:
            return None, None
        row = director.rows[director.key].to_pylist().index(key) if key in director.rows[director.key].to_pylist() else -1
        ra = director.rows[director.ra][row].as_py() if row >= 0 else None
        dec = director.rows[director.dec][row].as_py() if row >= 0 else None
        if ra is None or dec is None or math.isnan(ra) or math.isnan(dec) or rng.random() < 0.08:
            return self.anywhere()
        luck = rng.random()
        if luck < 0.15:
            return ra, dec
        return self.beside((ra, dec), 0.2 * ARCSEC if luck < 0.4 else 10 * ARCSEC if luck < 0.8 else rng.choice((0.1, 5)))

    def sources(self, objects: SkyTable) -> SkyTable:
        keys = self.director_keys(objects, self.many(140))
        at = [self.near_director(objects, key) for key in keys]
        n = len(keys)
        rows = pa.table(
            {
                "sourceId": pa.array(self.keys(n), pa.int64()),
                "objectId": pa.array(keys, pa.int64()),
                "ra": _floats([p[0] for p in at]),
                "dec": _floats([p[1] for p in at]),
                "flux": _floats([self.dyadic() for _ in range(n)]),
                "band": pa.array([self.band() for _ in range(n)], pa.string()),
                "mjd": _floats([59000 + (self.dyadic(nulls=0, nans=0) or 0) for _ in range(n)]),
                "flags": pa.array([self.small(8) for _ in range(n)], pa.int32()),
                "observed": pa.array([self.time() for _ in range(n)], pa.timestamp("us")),
            }
        )
        return SkyTable(
            name="Source", kind="child", rows=rows, key="sourceId", ra="ra", dec="dec", director="Object", director_key="objectId"
        )

    def forced(self, objects: SkyTable) -> SkyTable:
        keys = self.director_keys(objects, self.many(110))
        n = len(keys)
        rows = pa.table(
            {
                "objectId": pa.array(keys, pa.int64()),
                "visit": pa.array([self.small(12) for _ in range(n)], pa.int64()),
                "band": pa.array([self.band() for _ in range(n)], pa.string()),
                "psfFlux": _floats([self.dyadic() for _ in range(n)]),
            }
        )
        return SkyTable(name="Forced", kind="child", rows=rows, director="Object", director_key="objectId")

    def stars(self, places: Sequence[tuple[float, float]], objects: SkyTable) -> SkyTable:
        rng = self.rng
        known = [p for p in zip(objects.rows["ra"].to_pylist(), objects.rows["dec"].to_pylist(), strict=True) if _is_finite(p)]
        at: list[Position] = [
            self.beside(p, rng.choice((0.4, 4, 25, 40, 400)) * ARCSEC) for p in rng.sample(known, len(known) // 2)
        ]
        at += rng.sample(known, 4) + rng.sample(list(places), 3) + [(None, None), (math.nan, 1.0)]
        n = len(at)
        rows = pa.table(
            {
                "starId": pa.array(self.keys(n), pa.int64()),
                "raj2000": _floats([p[0] for p in at]),
                "dej2000": _floats([p[1] for p in at]),
                "mag": _floats([self.dyadic() for _ in range(n)]),
                "pm": _floats([self.dyadic(nulls=0.3) for _ in range(n)]),
                "grade": pa.array([self.small(4, nulls=0.2) for _ in range(n)], pa.int16()),
                "spType": pa.array([self.text() for _ in range(n)], pa.string()),
            }
        )
        return SkyTable(name="Star", kind="director", rows=rows, key="starId", ra="raj2000", dec="dej2000")

    def spectra(self, stars: SkyTable) -> SkyTable:
        keys = self.director_keys(stars, self.many(50))
        n = len(keys)
        rows = pa.table(
            {
                "specId": pa.array([f"s{k:04d}" for k in self.rng.sample(range(5000), n)], pa.string()),
                "star": pa.array(keys, pa.int64()),
                "snr": _floats([self.dyadic() for _ in range(n)]),
                "band": pa.array([self.band() for _ in range(n)], pa.string()),
            }
        )
        return SkyTable(name="Spectrum", kind="child", rows=rows, key="specId", director="Star", director_key="star")

    def filters(self) -> SkyTable:
        bands = "ugriy"
        rows = pa.table(
            {
                "band": pa.array(list(bands), pa.string()),
                "wavelength": _floats([360.5, 480.0, 622.25, 754.0, None]),
                "rank": pa.array(range(len(bands)), pa.int32()),
            }
        )
        return SkyTable(name="Filter", kind="replicated", rows=rows)


def _floats(values: Sequence[float | None]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=False)


def _is_finite(position: Position) -> bool:
    return all(x is not None and not math.isnan(x) for x in position)
