-- class: FTSSrc, count of one flux range
SELECT COUNT(*) AS n FROM bench.Source WHERE psfFlux BETWEEN 400 AND 410
