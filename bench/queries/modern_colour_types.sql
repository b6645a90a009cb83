-- class: modern, primary point sources by colour
SELECT objectId, coord_ra, coord_dec FROM bench.Object WHERE refExtendedness = 0 AND g_psfFlux > 8000 AND r_psfFlux / g_psfFlux < 0.6
