-- class: FTSFSrc, count of one flux range
SELECT COUNT(*) AS n FROM bench.ForcedSource WHERE psfFlux BETWEEN 400 AND 410
