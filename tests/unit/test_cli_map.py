"""qengine tables --map: the picture is of the rows, and big tables are no problem."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qengine import cli
from qengine.catalog.model import TableKind
from qengine.client.picture import Caption, Scale, draw_sky, short
from qengine.sky.density import per_square_degree, rows_of_ranges
from tests.loader.stores import Site, sky


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def colours(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_loaded_table(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    count = 40_000
    columns = sky(count)
    columns["dec"][:] = np.degrees(np.arcsin(rng.uniform(-1, 0, len(columns["dec"]))))  # the southern half only
    columns["ra"][:] = rng.uniform(0, 360, len(columns["ra"]))
    site.load(site.write("a.parquet", columns), key="id", rows_per_tile=5000)
    output = tmp_path / "maps" / "map.png"
    assert cli.run(["tables", "--map", "obj", "-o", str(output), "--store", str(site.store.root)]) == 0
    said = capsys.readouterr().err
    assert "40,009 rows on" in said
    assert "spread evenly" not in said  # counted by the map of the HATS tree
    assert output.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", output.read_bytes()[16:24]) == (1600, 980)
    picture = colours(output)
    north, south = picture[300, 900], picture[700, 900]
    assert np.ptp(north) < 12  # grey: no rows
    assert np.ptp(south) > 30


def test_what_cannot_be_drawn(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.load(site.write("r.parquet", {"id": [1]}), table="list", kind=TableKind.REPLICATED)
    store = ["--store", str(site.store.root)]
    for words, message in (
        (["nosuch"], "no table nosuch"),
        (["list"], "no rows on the sky"),
        (["list", "-o", str(tmp_path / "map.pdf")], "PNG"),
    ):
        assert cli.run(["tables", "--map", *words, *store]) == 1
        assert message in capsys.readouterr().err


def test_a_hundred_thousand_tiles(tmp_path: Path) -> None:
    order, tiles = 7, 100_000
    start = np.sort(np.random.default_rng(1).permutation(12 * 4**order)[:tiles]).astype(np.int64) << (2 * (29 - order))
    rows = np.random.default_rng(2).integers(1, 10**6, tiles)
    counts = rows_of_ranges(start, start + (1 << 2 * (29 - order)), rows, 8)
    assert counts.sum() == pytest.approx(rows.sum())
    draw_sky(per_square_degree(counts), Caption(title="t", about="a"), tmp_path / "map.png")
    assert colours(tmp_path / "map.png").shape == (980, 1600, 3)


def test_right_ascension_increases_to_the_left(tmp_path: Path) -> None:
    counts = rows_of_ranges(np.array([5 << 58]), np.array([6 << 58]), np.array([10**6]), 6)  # a base pixel around ra 90
    draw_sky(per_square_degree(counts), Caption(title="t", about="a"), tmp_path / "map.png")
    picture = colours(tmp_path / "map.png")
    coloured = np.argwhere(np.ptp(picture[120:800], axis=2) > 40)
    assert 1050 < coloured[:, 1].mean() < 1250  # 90 degrees are right of the middle, which is 180


def test_scales() -> None:
    wide = Scale.of(np.array([0.0, 1.0, 10.0, 10_000.0]))
    assert wide.is_log
    assert wide.ticks() == pytest.approx([10.0, 100.0, 1000.0], rel=1e-9) or wide.ticks()[0] >= 1
    flat = Scale.of(np.array([0.0, 90.0, 100.0]))
    assert not flat.is_log
    assert flat.ticks()[:3] == [0.0, 20.0, 40.0]
    assert Scale.of(np.zeros(12)).ticks()
    assert [short(v) for v in (0.5, 20, 5000, 1.5e6, 2e9)] == ["0.5", "20", "5k", "1.5M", "2G"]
