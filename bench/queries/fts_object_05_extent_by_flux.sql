-- class: FTSObj, extent for a range of flux
SELECT MIN(coord_ra) AS low, MAX(coord_ra) AS high FROM bench.Object WHERE z_psfFlux BETWEEN 300 AND 310
