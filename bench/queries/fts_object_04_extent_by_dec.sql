-- class: FTSObj, extent for a cut in declination
SELECT MIN(coord_ra) AS low, MAX(coord_ra) AS high FROM bench.Object WHERE coord_dec > -10
