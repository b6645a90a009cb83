-- One statement per line (`sql:` names the language) behind what becomes of it: `local`, one leaf makes the rows; `final`, a final part
-- completes those of one leaf; `several`, or of several; `gather`, a block could not run in a leaf and its tables are gathered.
-- Its plan, run task by task over parts, must give the rows of one database.
-- derived tables
local|SELECT d.objectId, f.flux FROM (SELECT o.objectId, o.mag FROM dp.Object o WHERE o.mag < 22) AS d JOIN dp.ForcedSource f ON f.objectId = d.objectId
local|SELECT d.k, f.flux FROM (SELECT o.objectId AS k, o.mag FROM dp.Object o) AS d LEFT JOIN dp.ForcedSource f ON f.objectId = d.k
local|SELECT o.objectId, d.flux FROM dp.Object o LEFT JOIN (SELECT f.objectId, f.flux FROM dp.ForcedSource f WHERE f.flux > 20) AS d ON d.objectId = o.objectId
local|SELECT o.objectId, g.n, g.m FROM dp.Object o JOIN (SELECT f.objectId, COUNT(*) AS n, MAX(f.flux) AS m FROM dp.ForcedSource f GROUP BY f.objectId) AS g ON g.objectId = o.objectId
local|SELECT o.objectId, g.n FROM dp.Object o LEFT JOIN (SELECT f.objectId, COUNT(*) AS n FROM dp.ForcedSource f GROUP BY f.objectId HAVING COUNT(*) > 1) AS g ON g.objectId = o.objectId
final|SELECT g.n, COUNT(*) AS c FROM (SELECT f.objectId, COUNT(*) AS n FROM dp.ForcedSource f GROUP BY f.objectId) AS g GROUP BY g.n
final|SELECT AVG(g.n) AS a, COUNT(*) AS c, MAX(g.m) AS m FROM (SELECT f.objectId, COUNT(*) AS n, SUM(f.flux) AS m FROM dp.ForcedSource f GROUP BY f.objectId) AS g
local|SELECT g.objectId, s.starId FROM (SELECT o.objectId, o.ra, o.dec, COUNT(*) AS n FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY o.objectId, o.ra, o.dec) AS g JOIN ext.Star s ON DISTANCE(POINT(g.ra, g.dec), POINT(s.ra, s.dec)) < 0.001
local|SELECT s.starId, g.objectId, g.n FROM ext.Star s LEFT JOIN (SELECT o.objectId, o.ra, o.dec, COUNT(*) AS n FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY o.objectId, o.ra, o.dec) AS g ON DISTANCE(POINT(g.ra, g.dec), POINT(s.ra, s.dec)) < 0.001
local|SELECT s.starId, d.objectId, d.other FROM ext.Star s LEFT JOIN (SELECT o.objectId, o.ra, o.dec, b.objectId AS other FROM dp.Object o LEFT JOIN dp.Object b ON DISTANCE(POINT(o.ra, o.dec), POINT(b.ra, b.dec)) < 0.01 AND b.objectId <> o.objectId) AS d ON DISTANCE(POINT(d.ra, d.dec), POINT(s.ra, s.dec)) < 0.001
local|SELECT s.starId, d.objectId, d.other FROM ext.Star s JOIN (SELECT o.objectId, b.ra, b.dec, b.objectId AS other FROM dp.Object o JOIN dp.Object b ON DISTANCE(POINT(o.ra, o.dec), POINT(b.ra, b.dec)) < 0.01) AS d ON DISTANCE(POINT(d.ra, d.dec), POINT(s.ra, s.dec)) < 0.001
gather|SELECT d.objectId, f.flux FROM (SELECT TOP 5 o.objectId, o.mag FROM dp.Object o ORDER BY o.objectId) AS d JOIN dp.ForcedSource f ON f.objectId = d.objectId
gather|SELECT d.objectId, d.c FROM (SELECT o.flags AS objectId, COUNT(*) AS c FROM dp.Object o GROUP BY o.flags) AS d JOIN dp.ForcedSource f ON f.objectId = d.objectId
gather|SELECT o.objectId, t.m FROM dp.Object o JOIN (SELECT MAX(f.objectId + 0) AS m FROM dp.ForcedSource f) AS t ON t.m = o.objectId
local|SELECT DISTINCT d.objectId FROM (SELECT DISTINCT f.objectId, f.band FROM dp.ForcedSource f) AS d
local|SELECT o.objectId, d.band FROM dp.Object o LEFT JOIN (SELECT DISTINCT f.objectId, f.band FROM dp.ForcedSource f) AS d ON d.objectId = o.objectId
gather|SELECT o.objectId, d.band FROM dp.Object o LEFT JOIN (SELECT DISTINCT f.band, f.flux FROM dp.ForcedSource f) AS d ON d.flux = o.mag
local|SELECT f.flux, p.w FROM dp.ForcedSource f LEFT JOIN (SELECT q.band, MAX(q.wavelength) AS w FROM dp.Filter q GROUP BY q.band) AS p ON p.band = f.band
gather|SELECT p.band, f.flux FROM (SELECT q.band FROM dp.Filter q) AS p LEFT JOIN dp.ForcedSource f ON p.band = f.band
local|SELECT a.objectId, b.n FROM (SELECT x.objectId FROM dp.Object x WHERE x.flags = 1) AS a LEFT JOIN (SELECT y.objectId, COUNT(*) AS n FROM dp.Source y GROUP BY y.objectId) AS b ON a.objectId = b.objectId
local|SELECT q.objectId FROM (SELECT p.objectId, p.mag FROM (SELECT o.objectId, o.mag FROM dp.Object o WHERE o.flags < 3) AS p WHERE p.mag > 17) AS q WHERE q.objectId > 2
-- groups, DISTINCT, windows by the owner's key
local|SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId
local|SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId HAVING COUNT(*) > 1
final|SELECT TOP 3 objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId ORDER BY COUNT(*) DESC, objectId
final|SELECT objectId, COUNT(DISTINCT band) AS n, MEDIAN(flux) AS m FROM dp.ForcedSource GROUP BY objectId ORDER BY MAX(flux), objectId
local|SELECT o.objectId, o.mag, COUNT(f.flux) AS n FROM dp.Object o LEFT JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY o.objectId, o.mag
local|SELECT f.objectId, COUNT(o.mag) AS n FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY f.objectId
final|SELECT f.objectId, COUNT(*) AS n FROM dp.Object o LEFT JOIN dp.ForcedSource f ON f.objectId = o.objectId AND f.flux > 30 GROUP BY f.objectId
local|SELECT s.starId, COUNT(*) AS n FROM dp.Object o JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.01 GROUP BY s.starId
local|SELECT o.objectId, COUNT(*) AS n FROM dp.Object o JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.01 GROUP BY o.objectId
final|SELECT s.starId, COUNT(*) AS n FROM dp.Object o LEFT JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.01 GROUP BY s.starId
final|SELECT o.flags, COUNT(*) AS n FROM dp.Object o GROUP BY o.flags
local|SELECT DISTINCT TOP 1000 objectId, band FROM dp.ForcedSource
final|SELECT DISTINCT TOP 4 objectId, band FROM dp.ForcedSource ORDER BY band, objectId OFFSET 2
local|SELECT DISTINCT objectId, band FROM dp.ForcedSource
final|SELECT DISTINCT band FROM dp.ForcedSource
local|SELECT objectId, flux, ROW_NUMBER() OVER (PARTITION BY objectId ORDER BY flux, forcedSourceId) AS k FROM dp.ForcedSource
local|SELECT objectId, flux FROM dp.ForcedSource QUALIFY ROW_NUMBER() OVER (PARTITION BY objectId ORDER BY flux DESC, forcedSourceId) <= 2
final|SELECT objectId, flux, RANK() OVER (ORDER BY flux) AS k FROM dp.ForcedSource
final|SELECT objectId, flux, RANK() OVER (PARTITION BY objectId ORDER BY flux) AS k, COUNT(*) OVER (PARTITION BY band) AS c FROM dp.ForcedSource
local|SELECT d.objectId, d.k FROM (SELECT f.objectId, f.flux, ROW_NUMBER() OVER (PARTITION BY f.objectId ORDER BY f.flux, f.forcedSourceId) AS k FROM dp.ForcedSource f) AS d WHERE d.k = 1
local|SELECT o.objectId, d.flux FROM dp.Object o LEFT JOIN (SELECT f.objectId, f.flux FROM dp.ForcedSource f QUALIFY ROW_NUMBER() OVER (PARTITION BY f.objectId ORDER BY f.flux, f.forcedSourceId) = 1) AS d ON d.objectId = o.objectId
-- sub-queries that refer to the row
local|SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId AND f.flux > 20)
local|SELECT o.objectId FROM dp.Object o WHERE NOT EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId)
local|SELECT f.flux FROM dp.ForcedSource f WHERE NOT EXISTS (SELECT 1 FROM dp.Object o WHERE f.objectId = o.objectId)
local|SELECT s.starId FROM ext.Star s WHERE EXISTS (SELECT 1 FROM dp.Object o WHERE DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.001)
local|SELECT s.starId FROM ext.Star s WHERE NOT EXISTS (SELECT 1 FROM dp.Object o WHERE DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.001)
local|SELECT a.objectId FROM dp.Object a WHERE NOT EXISTS (SELECT 1 FROM dp.Object b WHERE b.objectId <> a.objectId AND DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 AND b.mag < a.mag)
local|SELECT s.starId FROM ext.Star s WHERE NOT EXISTS (SELECT 1 FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId WHERE DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.001 AND f.flux > 10)
gather|SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.flux > o.mag)
gather|SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.flux > 20)
gather|SELECT p.band FROM dp.Filter p WHERE NOT EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.band = p.band)
local|SELECT f.flux FROM dp.ForcedSource f WHERE NOT EXISTS (SELECT 1 FROM dp.Filter p WHERE f.band = p.band)
local|SELECT f.flux FROM dp.ForcedSource f WHERE f.band IN (SELECT p.band FROM dp.Filter p WHERE p.wavelength > 500)
local|SELECT f.flux FROM dp.ForcedSource f WHERE f.band NOT IN (SELECT p.band FROM dp.Filter p WHERE p.band <> 'u')
local|SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT f.objectId FROM dp.ForcedSource f WHERE f.flux > 20)
local|SELECT o.objectId FROM dp.Object o WHERE (o.objectId IN (SELECT f.objectId FROM dp.ForcedSource f WHERE f.flux > 20) OR o.flags = 1)
local|SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT f.objectId FROM dp.ForcedSource f GROUP BY f.objectId HAVING COUNT(*) > 1)
gather|SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT MAX(f.objectId) FROM dp.ForcedSource f GROUP BY f.band)
gather|SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT TOP 4 f.objectId FROM dp.ForcedSource f ORDER BY f.forcedSourceId)
gather|SELECT o.objectId FROM dp.Object o WHERE o.objectId NOT IN (SELECT f.objectId FROM dp.ForcedSource f)
local|SELECT o.objectId FROM dp.Object o WHERE o.objectId NOT IN (SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId IS NOT NULL)
local|SELECT o.objectId FROM dp.Object o WHERE o.objectId NOT IN (SELECT s.objectId FROM dp.Source s)
gather|SELECT f.flux FROM dp.ForcedSource f WHERE f.objectId NOT IN (SELECT o.objectId FROM dp.Object o WHERE o.flags = 1)
local|SELECT f.flux FROM dp.ForcedSource f WHERE f.objectId IN (SELECT o.objectId FROM dp.Object o WHERE o.flags = 1)
gather|SELECT f.flux FROM dp.ForcedSource f WHERE NOT (f.objectId IN (SELECT o.objectId FROM dp.Object o WHERE o.flags = 1) OR f.flux > 3)
gather|SELECT f.objectId, CASE WHEN f.objectId IN (SELECT o.objectId FROM dp.Object o WHERE o.flags = 1) THEN 1 WHEN NOT f.objectId IN (SELECT o.objectId FROM dp.Object o WHERE o.flags = 1) THEN 0 END AS x FROM dp.ForcedSource f
local|SELECT o.objectId, (SELECT COUNT(*) FROM dp.ForcedSource f WHERE f.objectId = o.objectId) AS n FROM dp.Object o
local|SELECT o.objectId, (SELECT MAX(f.flux) FROM dp.ForcedSource f WHERE f.objectId = o.objectId) AS m FROM dp.Object o WHERE o.mag > 20
final|SELECT o.flags, SUM((SELECT COUNT(*) FROM dp.ForcedSource f WHERE f.objectId = o.objectId)) AS n FROM dp.Object o GROUP BY o.flags
final|SELECT o.flags, COUNT(*) AS n FROM dp.Object o WHERE EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId) GROUP BY o.flags
gather|SELECT o.flags, COUNT(*) AS n, (SELECT COUNT(*) FROM dp.Filter p WHERE p.wavelength > o.flags) AS m FROM dp.Object o GROUP BY o.flags
local|SELECT o.objectId, COUNT(*) AS n, (SELECT COUNT(*) FROM dp.Source s WHERE s.objectId = o.objectId) AS m FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY o.objectId
gather|SELECT o.objectId FROM dp.Object o WHERE o.mag > (SELECT AVG(x.mag) FROM dp.Object x)
local|SELECT o.objectId FROM dp.Object o WHERE o.mag <= (SELECT MIN(x.mag) FROM dp.Object x WHERE DISTANCE(POINT(o.ra, o.dec), POINT(x.ra, x.dec)) < 0.5)
local|SELECT o.objectId FROM dp.Object o WHERE o.flags < (SELECT COUNT(*) FROM dp.ForcedSource f WHERE f.objectId = o.objectId AND EXISTS (SELECT 1 FROM dp.Source s WHERE s.objectId = f.objectId))
local|SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM (SELECT f.objectId, COUNT(*) AS n FROM dp.ForcedSource f GROUP BY f.objectId) AS g WHERE g.objectId = o.objectId AND g.n > 1)
local|SELECT o.objectId, b.starId FROM dp.Object o LEFT JOIN ext.Star b ON DISTANCE(POINT(o.ra, o.dec), POINT(b.ra, b.dec)) < 0.01 WHERE NOT EXISTS (SELECT 1 FROM ext.Star c WHERE DISTANCE(POINT(b.ra, b.dec), POINT(c.ra, c.dec)) < 0.005 AND c.starId <> b.starId)
-- facts reach through
local|SELECT d.objectId FROM (SELECT o.objectId, o.ra AS x, o.dec AS y FROM dp.Object o) AS d WHERE CONTAINS(POINT(d.x, d.y), CIRCLE(34, 12, 1)) = 1
local|SELECT d.objectId FROM (SELECT o.objectId, o.ra AS x, o.dec AS y FROM dp.Object o WHERE CONTAINS(POINT(o.ra, o.dec), CIRCLE(34, 12, 1)) = 1) AS d WHERE d.objectId > 3
local|SELECT d.k, d.n FROM (SELECT f.objectId AS k, COUNT(*) AS n FROM dp.ForcedSource f GROUP BY f.objectId) AS d WHERE d.k IN (7, 8, 9, 9001)
local|SELECT d.k FROM (SELECT o.objectId AS k, o.mag AS m FROM dp.Object o) AS d WHERE d.m > 24
local|SELECT s.starId, d.objectId FROM ext.Star s JOIN (SELECT o.objectId, o.ra, o.dec FROM dp.Object o WHERE CONTAINS(POINT(o.ra, o.dec), CIRCLE(34, 12, 1)) = 1) AS d ON DISTANCE(POINT(d.ra, d.dec), POINT(s.ra, s.dec)) < 0.01
-- full joins
local|SELECT o.objectId, f.objectId AS k, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId
local|SELECT o.objectId, f.objectId AS k, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId AND f.flux > 20
local|SELECT o.objectId, f.objectId AS k, f.flux FROM dp.ForcedSource f FULL JOIN dp.Object o ON f.objectId = o.objectId WHERE f.flux IS NULL OR o.mag > 20
local|SELECT o.objectId, g.n FROM dp.Object o FULL JOIN (SELECT f.objectId, COUNT(*) AS n FROM dp.ForcedSource f GROUP BY f.objectId) AS g ON g.objectId = o.objectId
final|SELECT COUNT(*) AS n, COUNT(o.mag) AS a, COUNT(f.flux) AS b FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId
final|SELECT o.objectId, COUNT(*) AS n FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY o.objectId
local|SELECT o.objectId, f.flux, s.sourceId FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId LEFT JOIN dp.Source s ON s.objectId = o.objectId
gather|SELECT o.objectId, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.flux = o.mag
gather|SELECT p.band, f.flux FROM dp.Filter p FULL JOIN dp.ForcedSource f ON f.band = p.band
-- common table expressions
local|WITH q AS (SELECT objectId, mag FROM dp.Object WHERE flags = 1) SELECT q.objectId, f.flux FROM q JOIN dp.ForcedSource f ON f.objectId = q.objectId
local|WITH q AS (SELECT objectId, mag FROM dp.Object), r AS (SELECT objectId FROM q WHERE mag < 20) SELECT r.objectId FROM r
local|WITH q AS (SELECT objectId, mag FROM dp.Object) SELECT a.objectId, b.mag FROM q a JOIN q b ON a.objectId = b.objectId WHERE a.mag < 20
local|WITH q AS (SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId) SELECT a.objectId, b.n FROM q a LEFT JOIN q b ON a.objectId = b.objectId AND b.n > 1
final|WITH q AS (SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId) SELECT a.objectId, b.n FROM q a JOIN q b ON a.n = b.n
local|WITH q AS (SELECT objectId FROM dp.Object), unused AS (SELECT starId FROM ext.Star) SELECT q.objectId FROM q
final|WITH q AS (SELECT TOP 5 objectId FROM dp.Object ORDER BY objectId) SELECT a.objectId FROM q a JOIN q b ON a.objectId = b.objectId
local|WITH q AS (SELECT f.objectId FROM dp.ForcedSource f WHERE f.flux > 20) SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM q WHERE q.objectId = o.objectId) OR o.flags = 1
local|SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (WITH q AS (SELECT f.objectId FROM dp.ForcedSource f WHERE f.flux > 20) SELECT q.objectId FROM q)
several|WITH q AS (SELECT objectId, mag FROM dp.Object), r AS (SELECT objectId FROM q UNION ALL SELECT objectId FROM q) SELECT r.objectId FROM r
-- derived tables that are merged
local|SELECT s.starId, d.objectId, d.c FROM ext.Star s JOIN (SELECT o.objectId, o.ra, o.dec, o.mag - o.small AS c FROM dp.Object o WHERE o.flags < 3) AS d ON DISTANCE(POINT(d.ra, d.dec), POINT(s.ra, s.dec)) < 0.001 WHERE d.c > 3
local|SELECT s.starId, d.objectId FROM ext.Star s LEFT JOIN (SELECT o.objectId, o.ra, o.dec FROM dp.Object o WHERE o.flags < 3) AS d ON DISTANCE(POINT(d.ra, d.dec), POINT(s.ra, s.dec)) < 0.001
local|SELECT s.starId, d.x FROM ext.Star s LEFT JOIN (SELECT o.objectId, o.ra, o.dec, 5 AS x FROM dp.Object o WHERE o.flags < 3) AS d ON DISTANCE(POINT(d.ra, d.dec), POINT(s.ra, s.dec)) < 0.001
final|SELECT d.x, d.objectId FROM (SELECT o.objectId, 5 AS x FROM dp.Object o) AS d ORDER BY d.x
local|SELECT f.flux, d.n FROM dp.ForcedSource f JOIN (SELECT o.objectId, s.flux AS n FROM dp.Object o LEFT JOIN dp.Source s ON s.objectId = o.objectId WHERE o.flags = 1) AS d ON d.objectId = f.objectId
local|SELECT f.flux, d.n FROM dp.ForcedSource f LEFT JOIN (SELECT o.objectId, s.flux AS n FROM dp.Object o LEFT JOIN dp.Source s ON s.objectId = o.objectId WHERE o.flags = 1) AS d ON d.objectId = f.objectId
final|SELECT d.k, COUNT(*) AS n FROM (SELECT o.flags + 1 AS k, o.mag FROM dp.Object o WHERE o.mag > 16) AS d GROUP BY d.k ORDER BY d.k
local|SELECT d.objectId FROM (SELECT o.objectId, RAND() AS r FROM dp.Object o) AS d JOIN dp.ForcedSource f ON f.objectId = d.objectId WHERE d.r > 2
-- right joins
local|SELECT o.objectId, p.wavelength FROM dp.Object o RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId LEFT JOIN dp.Filter p ON p.band = f.band
local|SELECT o.mag, s.sourceId, f.flux FROM dp.Object o JOIN dp.Source s ON s.objectId = o.objectId RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId
local|SELECT o.mag, s.sourceId, f.flux FROM dp.Object o LEFT JOIN dp.Source s ON s.objectId = o.objectId RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId WHERE s.flux IS NULL OR s.flux > 3
local|SELECT o.mag, s.sourceId, f.flux, b.band FROM dp.Object o RIGHT JOIN dp.Source s ON s.objectId = o.objectId RIGHT JOIN dp.ForcedSource f ON f.objectId = s.objectId LEFT JOIN dp.Filter b ON b.band = f.band
final|SELECT f.band, COUNT(*) AS n, COUNT(s.sourceId) AS m FROM dp.Object o JOIN dp.Source s ON s.objectId = o.objectId RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId GROUP BY f.band
local|SELECT a.objectId, o.mag, b.starId FROM dp.Object a JOIN dp.Object o ON o.objectId = a.objectId RIGHT JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01
-- full joins on distance
several|SELECT a.objectId, b.starId FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01
several|SELECT a.objectId, b.starId, a.mag, b.mag AS m FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 AND a.mag < 20 WHERE b.mag > 2 OR a.mag > 16
several|SELECT COUNT(*) AS n, COUNT(a.objectId) AS k, COUNT(b.starId) AS m FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 WHERE a.flags = 1 OR a.flags IS NULL
several|SELECT a.objectId, b.objectId AS k FROM dp.Object a FULL JOIN dp.Object b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 AND a.objectId < b.objectId
several|SELECT 4 AS x FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01
several|SELECT 4 AS x FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 WHERE b.mag > 2
-- a radius of the row
local|SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < b.mag / 1000
local|SELECT a.objectId, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < (a.flags + 1) * 0.001 + b.r0 / 1000.0
local|SELECT a.objectId FROM dp.Object a WHERE EXISTS (SELECT 1 FROM ext.Star b WHERE DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < b.mag / 1000)
gather|SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < b.mag * a.mag * a.mag * a.mag / (a.flags + 1)
-- LATERAL: the nearest k, and whatever else
local|SELECT o.objectId, n.flux FROM dp.Object o, LATERAL (SELECT f.flux FROM dp.ForcedSource f WHERE f.objectId = o.objectId ORDER BY f.flux LIMIT 2) AS n
local|SELECT o.objectId, n.starId FROM dp.Object o LEFT JOIN LATERAL (SELECT s.starId FROM ext.Star s WHERE DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)) < 0.01 ORDER BY DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)), s.starId LIMIT 1) AS n ON 1 = 1
local|SELECT o.objectId, n.starId, n.d FROM dp.Object o, LATERAL (SELECT TOP 3 s.starId, DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)) AS d FROM ext.Star s WHERE DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)) < 2 ORDER BY d, s.starId) AS n WHERE o.mag < 23
local|SELECT o.objectId, n.c FROM dp.Object o CROSS JOIN LATERAL (SELECT COUNT(*) AS c FROM ext.Star s WHERE DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)) < 0.01) AS n
gather|SELECT o.objectId, n.starId FROM dp.Object o, LATERAL (SELECT s.starId FROM ext.Star s ORDER BY DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)), s.starId LIMIT 1) AS n WHERE o.ra IS NOT NULL AND o.dec IS NOT NULL
local|SELECT a.objectId, n.objectId AS k, f.flux FROM dp.Object a CROSS JOIN LATERAL (SELECT b.objectId FROM dp.Object b WHERE DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.5 AND b.objectId <> a.objectId ORDER BY DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)), b.objectId LIMIT 1) AS n LEFT JOIN dp.ForcedSource f ON f.objectId = a.objectId
final|SELECT n.c, COUNT(*) AS k FROM dp.Object o, LATERAL (SELECT COUNT(*) AS c FROM dp.ForcedSource f WHERE f.objectId = o.objectId) AS n GROUP BY n.c
-- ASOF chooses one of the rows that its ON lets through
local|SELECT f.forcedSourceId, s.sourceId FROM dp.ForcedSource f ASOF JOIN dp.Source s ON f.objectId = s.objectId AND f.flux >= s.flux WHERE f.flux IS NOT NULL
local|SELECT f.forcedSourceId, s.sourceId FROM dp.ForcedSource f ASOF LEFT JOIN dp.Source s ON f.objectId = s.objectId AND f.flux >= s.flux WHERE f.flux IS NOT NULL
gather|SELECT f.forcedSourceId, s.sourceId FROM dp.ForcedSource f ASOF JOIN dp.Source s ON f.flux >= s.flux WHERE f.objectId = s.objectId AND f.flux IS NOT NULL
-- TOP of groups is not TOP of rows
final|SELECT TOP 7 objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId ORDER BY objectId
final|SELECT TOP 9 objectId, MAX(flux) AS n FROM dp.ForcedSource GROUP BY objectId ORDER BY objectId DESC
final|SELECT DISTINCT TOP 9 objectId FROM dp.ForcedSource ORDER BY objectId
final|SELECT DISTINCT TOP 9 objectId FROM dp.ForcedSource ORDER BY objectId DESC
-- UNION ALL as a derived table
several|SELECT u.f, COUNT(*) AS n, AVG(u.m) AS a, STDDEV(u.m) AS s FROM (SELECT flags AS f, mag AS m FROM dp.Object UNION ALL SELECT forcedSourceId, flux FROM dp.ForcedSource) AS u WHERE u.m < 22 GROUP BY u.f
several|SELECT COUNT(*) AS n, SUM(u.f) AS s FROM (SELECT flags AS f FROM dp.Object UNION ALL SELECT f.flux FROM dp.ForcedSource f JOIN dp.Object o ON o.objectId = f.objectId WHERE o.mag < 21) AS u
several|SELECT TOP 4 u.k, u.m FROM (SELECT objectId AS k, mag AS m FROM dp.Object UNION ALL SELECT forcedSourceId, flux FROM dp.ForcedSource) AS u ORDER BY u.m, u.k
several|SELECT u.m, COUNT(DISTINCT u.k) AS n, MEDIAN(u.k) AS d FROM (SELECT objectId AS k, flags AS m FROM dp.Object UNION ALL SELECT objectId, 3 FROM dp.ForcedSource) AS u GROUP BY u.m
-- what sub-queries say of their row prunes
local|SELECT f.objectId, f.flux FROM dp.ForcedSource f WHERE EXISTS (SELECT 1 FROM dp.Object o WHERE o.objectId = f.objectId AND CONTAINS(POINT(o.ra, o.dec), CIRCLE(10, 0, 20)) = 1)
local|SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT f.objectId FROM dp.ForcedSource f WHERE f.flux > 20 AND f.objectId IN (2, 3, 5))
local|SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT COUNT(*) FROM dp.ForcedSource f WHERE f.objectId = o.objectId AND f.objectId = 3)
local|SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId AND f.objectId = 3 GROUP BY ROLLUP (f.flux))
local|SELECT o.objectId FROM dp.Object o WHERE NOT EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId AND f.objectId = 3) OR o.mag > 30
