"""The commands of docs/lines.md do what the page says, in order, in a shell."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.pages import run_page


@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = [f"K26A{number:02}" for number in range(40)]
    pq.write_table(pa.table({"name": names, "a": rng.uniform(1, 40, 40)}), tmp_path / "orbits.parquet")
    sightings = {
        "sid": np.arange(500),
        "object": rng.choice(names, 500),
        "ra": rng.uniform(0, 360, 500),
        "dec": rng.uniform(-60, 60, 500),
    }
    pq.write_table(pa.table(sightings), tmp_path / "sightings.parquet")
    for file, first in (("visits", 60000.0), ("more-visits", 60050.0)):
        mjd = first + np.arange(400) / 8
        pq.write_table(pa.table({"mjd": mjd, "seeing": rng.uniform(0.5, 2, 400)}), tmp_path / f"{file}.parquet")
    printed = run_page("lines.md", tmp_path).stdout
    assert "K26A07" in printed
    assert re.search(r"\b81\b", printed)
