"""The commands of docs/hats.md do what the page says, in order, in a shell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.pages import run_page


@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ids = np.arange(400)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 400)))
    pq.write_table(pa.table({"id": ids, "ra": rng.uniform(0, 360, 400), "dec": dec}), tmp_path / "stars.parquet")
    sources = {"sid": np.arange(900), "star": rng.choice(ids, 900), "flux": rng.normal(0, 1, 900)}
    pq.write_table(pa.table(sources), tmp_path / "sources.parquet")
    run_page("hats.md", tmp_path)
    leaves = sorted((tmp_path / "light-curves/stars/stars").rglob("Npix=*/*.parquet"))
    nested = [row for path in leaves for row in pq.ParquetFile(path).read(["sources"])["sources"].to_pylist()]
    assert len(nested) == 400
    assert sum(len(row["sid"]) for row in nested) == 900
    assert (tmp_path / "dr1/stars/stars_index_id/dataset/_metadata").is_file()
