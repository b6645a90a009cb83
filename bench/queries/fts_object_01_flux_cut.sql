-- class: FTSObj, count by a cut on one column
SELECT COUNT(*) AS n FROM bench.Object WHERE r_psfFlux > 5000
