-- class: FTSObj, density per tract
SELECT tract, COUNT(*) AS n, AVG(coord_ra) AS ra, AVG(coord_dec) AS decl FROM bench.Object GROUP BY tract
-- bare
SELECT tract, COUNT(*) AS n, AVG(coord_ra) AS ra, AVG(coord_dec) AS decl FROM bench.Object GROUP BY tract
