"""Cells against another HEALPix library, and the two sizes that coverage and rings rest on."""

from __future__ import annotations

import astropy.units as u
import cdshealpix
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.errors import InputError
from qengine.sky.cells import LINE_END
from qengine.sky.healpix import cells_of, center_vectors, centers, max_radius_deg, min_width_deg, neighbours, tile_vertices

from . import truth


def test_cells_are_those_of_another_library() -> None:
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 100_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 100_000)))
    others = cdshealpix.lonlat_to_healpix(Longitude(ra, u.deg), Latitude(dec, u.deg), 29).astype(np.int64)
    differ = cells_of(ra, dec) != others
    assert differ.mean() < 1e-4


@settings(deadline=None)
@given(st.floats(-720, 720), truth.DEC)
def test_any_turn_gives_a_cell_on_the_sky(ra: float, dec: float) -> None:
    found = cells_of([ra], [dec])
    assert 0 <= found[0] < LINE_END
    assert found.dtype == np.int64


def test_ra_wraps_and_poles_are_cells() -> None:
    dec = np.array([-90.0, -41.8, 0.0, 41.8, 90.0])
    for ra in (360.0, -360.0, 720.0, -1e-20):
        assert np.array_equal(cells_of(np.full(5, ra), dec), cells_of(np.zeros(5), dec))
    corners = cells_of([10.0, 100.0, 190.0, 280.0], [90.0] * 4)
    assert sorted(corners >> 58) == [0, 1, 2, 3]


@pytest.mark.parametrize(("ra", "dec"), [(np.nan, 0.0), (np.inf, 0.0), (0.0, np.nan), (0.0, 90.0000001), (0.0, -np.inf)])
def test_what_is_no_position_is_refused(ra: float, dec: float) -> None:
    with pytest.raises(InputError, match="not finite or its declination"):
        cells_of([1.0, ra], [1.0, dec])


@settings(deadline=None)
@given(st.integers(0, 29), st.data())
def test_centers_lie_in_their_pixels(order: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, 12 * 4**order - 1))
    ra, dec = centers(order, [index])
    assert cells_of(ra, dec)[0] >> (2 * (29 - order)) == index
    assert np.allclose(center_vectors(order, [index]).astype(float), truth.vectors(ra, dec).astype(float), atol=1e-14)


@settings(deadline=None)
@given(st.integers(0, 29), st.data())
def test_no_corner_is_further_from_the_centre_than_the_radius(order: int, data: st.DataObject) -> None:
    index = data.draw(
        st.one_of(st.integers(0, 12 * 4**order - 1), st.sampled_from([0, 4**order - 1, 4 * 4**order, 12 * 4**order - 1]))
    )
    corners = tile_vertices(order, index)
    assert truth.distance(*centers(order, [index]), *corners).max() < max_radius_deg(order)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 28), st.data(), truth.SEED)
def test_what_is_within_the_width_is_in_a_neighbour(order: int, data: st.DataObject, seed: int) -> None:
    last = 4**order - 1
    inner = data.draw(
        st.one_of(st.integers(0, last), st.sampled_from([0, last, last // 3, 2 * (last // 3)]))
    )  # corners of base tiles
    index = data.draw(st.integers(0, 11)) * 4**order + inner
    rng = np.random.default_rng(seed)
    border = tile_vertices(order, index, step=8)
    ra, dec = (np.repeat(array, 8) for array in border)
    near = truth.move(ra, dec, np.full(len(ra), min_width_deg(order)), rng.uniform(0, 360, len(ra)))
    allowed = np.r_[index, neighbours(order, [index])]
    assert np.isin(cells_of(*near) >> (2 * (29 - order)), allowed).all()


@pytest.mark.parametrize(("index", "corner"), [(4**28 - 1, 90.0), (8 * 4**28, -90.0)])
def test_corners_at_the_poles_are_exact(index: int, corner: float) -> None:
    """The two corners beside the pole lie a pixel's side away from it, which at order 28 is less than a milliarcsecond."""
    ra, dec = tile_vertices(28, index)
    side = np.degrees(np.sqrt(np.pi / 3)) / 2**28
    off = np.sort(np.abs(dec - corner))
    assert off[0] < 1e-13
    assert 0.5 * side < off[1] < off[3] < 2 * side
    assert ((ra >= 0) & (ra < 360)).all()


def test_neighbours_are_distinct_and_sorted() -> None:
    found = neighbours(3, [0, 1, 2])
    assert (np.diff(found) > 0).all()
    assert found.min() >= 0
    assert len(neighbours(5, np.empty(0, np.int64))) == 0
    assert len(neighbours(0, [4])) == 6
