-- class: aggregate, four columns filtered
SELECT COUNT(*) AS n, AVG(g_psfFlux) AS a, MIN(r_psfFlux) AS b, MAX(i_psfFlux) AS c FROM bench.Object WHERE z_psfFlux > 100
