"""The second catalogue of the cross-match: a quarter of the objects seen again, seeded, as `Reference` with a HATS tree of its own.

NOT REAL DATA. Every fourth object is there with an error of 0.3 arcseconds in each direction; a fifth of these is moved away by 36
arcseconds, so that it has no counterpart but by chance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EVERY = 4
ERROR_DEG, AWAY_DEG, AWAY_SHARE = 0.3 / 3600, 0.01, 0.2
MARGIN_ARCSEC = 10.0


def generate(objects: Path, out: Path, *, seed: int = 7) -> None:
    """Write a Parquet file of references for each file of objects."""
    out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(objects.glob("*.parquet"))):
        pq.write_table(_references(path, np.random.default_rng([seed, number])), out / path.name)


def _references(path: Path, rng: np.random.Generator) -> pa.Table:
    seen = pq.read_table(path, columns=["objectId", "coord_ra", "coord_dec"])[:]
    key, ra, dec = (seen[name].to_numpy()[::EVERY] for name in ("objectId", "coord_ra", "coord_dec"))
    dec = np.clip(dec + rng.normal(0, ERROR_DEG, len(key)), -90, 90)
    ra = (ra + rng.normal(0, ERROR_DEG, len(key)) / np.maximum(np.cos(np.radians(dec)), 1e-3)) % 360.0
    is_away = rng.random(len(key)) < AWAY_SHARE
    dec = np.where(is_away, np.where(dec > 0, dec - AWAY_DEG, dec + AWAY_DEG), dec)
    mag = rng.normal(20, 2, len(key)).astype(np.float32)
    return pa.table({"refId": key, "ra": np.where(ra >= 360.0, 0.0, ra), "dec": dec, "mag": mag})
