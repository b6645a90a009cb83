-- class: aggregate, a thousand groups
SELECT FLOOR(coord_ra) AS k, COUNT(*) AS n, AVG(g_psfFlux) AS a, STDDEV(r_psfFlux) AS s FROM bench.Object GROUP BY FLOOR(coord_ra)
