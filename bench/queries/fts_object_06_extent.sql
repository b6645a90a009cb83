-- class: FTSObj, extent of both coordinates
SELECT MIN(coord_ra) AS a, MAX(coord_ra) AS b, MIN(coord_dec) AS c, MAX(coord_dec) AS d FROM bench.Object
