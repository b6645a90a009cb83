"""Maps of rows from ranges, and the plane that they are drawn on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.sky.cells import LINE_END, ORDER
from qengine.sky.density import SKY_SQUARE_DEG, coarsened, per_square_degree, rows_of_ranges
from qengine.sky.mollweide import from_plane, to_plane


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12 * 4**6 - 1), st.integers(0, 10**7)), max_size=60), st.integers(0, 5))
def test_rows_of_ranges_are_those_of_their_pixels(parts: list[tuple[int, int, int]], order: int) -> None:
    pixels = [(depth, index % (12 * 4**depth), rows) for depth, index, rows in parts]
    width = np.array([4 ** (ORDER - depth) for depth, _, _ in pixels], np.int64)
    start = np.array([index for _, index, _ in pixels], np.int64) * width
    rows = np.array([count for _, _, count in pixels], np.int64)
    found = rows_of_ranges(start, start + width, rows, order)
    expected = np.zeros(12 * 4**order)
    for depth, index, count in pixels:
        if depth >= order:
            expected[index >> 2 * (depth - order)] += count
        else:
            expected[index << 2 * (order - depth) : (index + 1) << 2 * (order - depth)] += count / 4 ** (order - depth)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6 * max(1, rows.sum()))


def test_ranges_beyond_the_sky_do_not_count() -> None:
    found = rows_of_ranges(np.array([0, LINE_END]), np.array([LINE_END, LINE_END + 100]), np.array([1200, 7]), 0)
    assert np.allclose(found, 100)
    assert per_square_degree(found).sum() / 12 * SKY_SQUARE_DEG == pytest.approx(1200)


def test_sparse_maps_are_made_coarser() -> None:
    counts = np.zeros(12 * 4**6)
    counts[np.random.default_rng(1).integers(0, len(counts), 10_000)] += 1
    shown = coarsened(counts)
    assert len(shown) == 12 * 4**4
    assert shown.sum() == counts.sum()
    assert len(coarsened(np.full(12 * 4**6, 9.0))) == 12 * 4**6
    assert len(coarsened(np.zeros(12 * 4**6))) == 12 * 4**6


@given(st.floats(0, 359.999), st.floats(-89.9, 89.9), st.sampled_from([0.0, 180.0, 266.0]))
def test_the_plane_is_left_and_found_again(ra: float, dec: float, center: float) -> None:
    x, y = to_plane(ra, dec, center_ra=center)
    assert (x / 2) ** 2 + y**2 <= 1 + 1e-12
    back_ra, back_dec = from_plane(x * (1 - 1e-12), y * (1 - 1e-12), center_ra=center)
    assert back_dec == pytest.approx(dec, abs=1e-5)
    assert abs((back_ra - ra + 180) % 360 - 180) * np.cos(np.radians(dec)) < 1e-5


def test_right_ascension_increases_to_the_left_and_areas_stay_equal() -> None:
    x, _ = to_plane([90.0, 180.0, 270.0], [0.0, 0.0, 0.0])
    assert np.allclose(x, [1.0, 0.0, -1.0])
    assert np.allclose(to_plane([0.0, 77.0], [90.0, -90.0]), [[0, 0], [1, -1]])
    assert np.isnan(from_plane(1.9, 0.9)[0])
    grid_x, grid_y = np.meshgrid((np.arange(2000) + 0.5) / 500 - 2, (np.arange(1000) + 0.5) / 500 - 1)
    _, dec = from_plane(grid_x, grid_y)
    on_sky = dec[np.isfinite(dec)]
    for limit in (-60, -20, 0, 30, 75):
        assert np.mean(on_sky < limit) == pytest.approx((1 + np.sin(np.radians(limit))) / 2, abs=1e-3)
