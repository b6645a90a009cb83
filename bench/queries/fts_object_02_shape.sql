-- class: FTSObj, positions and three fluxes for a narrow range of a shape column
SELECT coord_ra, coord_dec, g_psfFlux, r_psfFlux, i_psfFlux FROM bench.Object WHERE shape_xx BETWEEN 9.0 AND 9.2
