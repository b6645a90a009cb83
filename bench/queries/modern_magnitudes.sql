-- class: modern, AB magnitudes from fluxes in SELECT and WHERE
SELECT objectId, -2.5 * LOG10(g_psfFlux) + 31.4 AS g, -2.5 * LOG10(i_psfFlux) + 31.4 AS i FROM bench.Object WHERE g_psfFlux > 20000 AND -2.5 * LOG10(g_psfFlux / i_psfFlux) > 0.3
