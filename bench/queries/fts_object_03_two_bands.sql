-- class: FTSObj, count where one band is brighter than another
SELECT COUNT(*) AS n FROM bench.Object WHERE g_psfFlux > 2 * i_psfFlux
