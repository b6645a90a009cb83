-- One statement per line (`sql:` names the language). Its plan, run task by task over parts, must give the rows of one database.
SELECT objectId FROM dp.Object
SELECT COUNT(*) AS n FROM dp.Object WHERE mag > 0
SELECT objectId FROM dp.Object WHERE objectId = 9007199254740992.0
SELECT objectId FROM dp.Object WHERE CAST(objectId AS DOUBLE) = 9007199254740992
SELECT objectId FROM dp.Object WHERE objectId = 5.5
SELECT objectId FROM dp.Object WHERE objectId IN (5, NULL)
SELECT objectId FROM dp.Object WHERE objectId IN (-3, 7, 9001)
SELECT objectId FROM dp.Object WHERE objectId NOT IN (5, 6)
SELECT starId FROM ext.Star WHERE starId = '7'
SELECT starId FROM ext.Star WHERE CAST(starId AS INTEGER) = 7 AND starId IN ('7','07')
SELECT starId FROM ext.Star WHERE starId = 'x'' OR 1=1'
SELECT objectId FROM dp.Object WHERE small = 16777217
SELECT objectId FROM dp.Object WHERE small >= 16777217
SELECT objectId FROM dp.Object WHERE small = 0.1
SELECT objectId FROM dp.Object WHERE empty > 3
SELECT objectId FROM dp.Object WHERE name > 'n3'
SELECT a.objectId, b.objectId AS o FROM dp.Object a JOIN dp.ForcedSource b ON CAST(a.objectId AS DOUBLE) = CAST(b.objectId AS DOUBLE)
SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.001
SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) <= 0
SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE CONTAINS(POINT(a.ra,a.dec),CIRCLE(b.ra,b.dec,0)) = 1
SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < -1
SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 200
SELECT a.objectId, b.starId AS o FROM dp.Object a, ext.Star b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 1e300
SELECT a.objectId, b.starId AS o FROM dp.Object a LEFT JOIN ext.Star b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01
SELECT a.objectId, b.starId AS o FROM dp.Object a LEFT JOIN ext.Star b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01 WHERE b.starId IS NULL
SELECT a.objectId, b.starId AS o FROM dp.Object a RIGHT JOIN ext.Star b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01
SELECT a.objectId, b.starId AS o FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01
SELECT a.objectId, b.starId AS o FROM dp.Object a LEFT JOIN ext.Star b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01 WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.001
SELECT a.objectId, b.starId AS o FROM dp.Object a JOIN ext.Star b ON DISTANCE(POINT(CAST(a.ra AS DOUBLE),a.dec),POINT(b.ra,CAST(b.dec AS DOUBLE))) < 0.001
SELECT a.objectId, b.starId AS o FROM dp.Object a JOIN ext.Star b ON DISTANCE(POINT(CAST(a.ra AS INTEGER),a.dec),POINT(b.ra,CAST(b.dec AS DOUBLE))) < 0.5
SELECT s.sourceId, b.starId AS o FROM dp.Source s JOIN ext.Star b ON DISTANCE(POINT(s.ra,s.dec),POINT(b.ra,b.dec)) < 0.001
SELECT TOP 0 objectId FROM dp.Object
SELECT DISTINCT flags FROM dp.Object ORDER BY flags OFFSET 2
SELECT DISTINCT TOP 2 flags FROM dp.Object ORDER BY flags OFFSET 1
SELECT flags FROM dp.Object GROUP BY flags ORDER BY MAX(mag) DESC
SELECT COUNT(*) AS n FROM dp.Object HAVING COUNT(*) > 3
SELECT COUNT(*) AS n FROM dp.Object HAVING COUNT(*) > 3000
SELECT 5 AS n FROM dp.Object HAVING 1 = 1
sql:SELECT 5 AS n, COUNT(*) AS m FROM dp.Object GROUP BY 2+1
sql:SELECT 5 AS n, COUNT(*) AS m FROM dp.Object GROUP BY 'a'
SELECT COUNT(*) AS n, SUM(mag) AS s, MIN(name) AS m, AVG(mag) AS a, STDDEV(mag) AS sd FROM dp.Object WHERE CONTAINS(POINT(ra,dec),CIRCLE(77,-77,0.001))=1
SELECT flags, COUNT(*) AS n FROM dp.Object WHERE CONTAINS(POINT(ra,dec),CIRCLE(77,-77,0.001))=1 GROUP BY flags
SELECT CASE WHEN COUNT(*) > 5 THEN MAX(mag) ELSE MIN(mag) END AS x, flags FROM dp.Object GROUP BY flags
SELECT mag AS "order 0", ra AS "order 1" FROM dp.Object ORDER BY dec, flags
SELECT mag AS a, ra AS mag FROM dp.Object ORDER BY mag
SELECT objectId FROM dp.Object UNION ALL SELECT r0.objectId FROM dp.Object r0 FULL JOIN dp.ForcedSource f ON r0.flags = f.objectId
WITH r0 AS (SELECT objectId FROM dp.Object WHERE flags = 1) SELECT r0.objectId, f.flux FROM r0 JOIN dp.ForcedSource f ON f.objectId = r0.objectId
WITH x AS (SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId) SELECT a.objectId, b.n FROM x a JOIN x b ON a.n = b.n
SELECT r0.r0 FROM ext.Star r0 ORDER BY r0.r0
SELECT t0.objectId FROM dp.Object t0 JOIN dp.ForcedSource t1 ON t0.objectId = t1.objectId
SELECT o.objectId, (SELECT MAX(f.flux) FROM dp.ForcedSource f WHERE f.objectId = o.objectId) AS m FROM dp.Object o
SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId AND f.band = 'u')
SELECT o.objectId FROM dp.Object o WHERE NOT EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.objectId = o.objectId)
SELECT o.objectId FROM dp.Object o WHERE o.objectId NOT IN (SELECT f.objectId FROM dp.ForcedSource f)
SELECT o.objectId FROM dp.Object o WHERE o.mag > (SELECT AVG(mag) FROM dp.Object)
SELECT COUNT(DISTINCT flags) AS n, COUNT(DISTINCT name) AS m, MAX(mag) AS x FROM dp.Object
SELECT COUNT(DISTINCT flags) AS n, COUNT(*) AS m FROM dp.Object
sql:SELECT flags, MAX(order) FILTER (WHERE good) AS x FROM dp.Object GROUP BY flags
SELECT p.band, f.flux FROM dp.Filter p LEFT JOIN dp.ForcedSource f ON f.band = p.band
SELECT p.band, f.flux FROM dp.ForcedSource f LEFT JOIN dp.Filter p ON f.band = p.band
SELECT f.forcedSourceId, o.mag FROM dp.ForcedSource f LEFT JOIN dp.Object o ON o.objectId = f.objectId
SELECT f.forcedSourceId, o.mag FROM dp.ForcedSource f FULL JOIN dp.Object o ON o.objectId = f.objectId
SELECT a.objectId, s.starId, t.starId AS u FROM dp.Object a, ext.Star s, ext.Star t WHERE DISTANCE(POINT(a.ra,a.dec),POINT(s.ra,s.dec)) < 0.01 AND DISTANCE(POINT(s.ra,s.dec),POINT(t.ra,t.dec)) < 0.02
SELECT objectId FROM dp.Object WHERE dec > 11
SELECT objectId FROM dp.Object WHERE ra < 35
SELECT objectId FROM dp.Object WHERE ra < 35 OR dec > 80
SELECT objectId FROM dp.Object WHERE NOT (ra < 35)
SELECT objectId FROM dp.Object WHERE ra BETWEEN 30 AND 35 AND dec BETWEEN 10 AND 13
SELECT objectId FROM dp.Object WHERE NOT (CONTAINS(POINT(ra,dec),CIRCLE(34,12,1))=1)
SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra,dec),CIRCLE(34,12,1))=0
SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra,dec),CIRCLE(34,12,1))=1 OR objectId = 3
SELECT objectId FROM dp.Object WHERE (CONTAINS(POINT(ra,dec),CIRCLE(34,12,1))=1) IS NULL
SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra,dec),CIRCLE(0,0,0.01))=1 AND ra > 350
SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra,dec),CIRCLE(0,90,0.01))=1
SELECT objectId, ROW_NUMBER() OVER (ORDER BY objectId) AS n FROM dp.Object
SELECT TOP 5 objectId, mag FROM dp.Object ORDER BY mag DESC, objectId OFFSET 3
SELECT COUNT(*) AS n FROM dp.Object
SELECT COUNT(*) AS n FROM (SELECT TOP 3 objectId FROM dp.Object) AS q
SELECT mag < 1000000000000000000000000000000000000000000 AS x FROM dp.Object WHERE RAND() < 2
SELECT f.forcedSourceId FROM dp.ForcedSource f JOIN dp.Object o ON f.objectId = o.objectId WHERE o.dec > 11
SELECT f.forcedSourceId FROM dp.ForcedSource f JOIN dp.Object o ON f.objectId = o.objectId WHERE o.objectId IN (10, 11, 9007199254740993)
SELECT a.objectId, b.starId AS o FROM ext.Star b LEFT JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) AND CONTAINS(POINT(b.ra,b.dec),CIRCLE(34,12,2))=1
SELECT a.objectId, b.starId AS o FROM ext.Star b LEFT JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) AND CONTAINS(POINT(a.ra,a.dec),CIRCLE(34,12,2))=1
SELECT a.objectId, b.starId AS o FROM ext.Star b LEFT JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) WHERE CONTAINS(POINT(b.ra,b.dec),CIRCLE(0,0,2))=1
SELECT a.objectId, b.starId AS o FROM ext.Star b JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) WHERE CONTAINS(POINT(b.ra,b.dec),CIRCLE(0,0,0.001))=1
SELECT a.objectId, b.starId AS o, f.flux FROM ext.Star b LEFT JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) LEFT JOIN dp.ForcedSource f ON f.objectId = a.objectId
SELECT a.objectId, b.starId AS o, f.flux FROM ext.Star b LEFT JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) JOIN dp.ForcedSource f ON f.objectId = a.objectId
SELECT b.starId, COUNT(*) AS n, COUNT(a.objectId) AS m FROM ext.Star b LEFT JOIN dp.Object a ON 0.01 > DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) GROUP BY b.starId
SELECT a.objectId, b.objectId AS bo, c.objectId AS co FROM dp.Object a LEFT JOIN dp.Object b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01 AND a.objectId < b.objectId LEFT JOIN dp.Object c ON DISTANCE(POINT(b.ra,b.dec),POINT(c.ra,c.dec)) < 0.01
SELECT a.objectId, b.objectId AS bo, c.starId AS co FROM dp.Object a LEFT JOIN dp.Object b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01 LEFT JOIN ext.Star c ON DISTANCE(POINT(a.ra,a.dec),POINT(c.ra,c.dec)) < 0.01 AND c.mag > b.mag
SELECT q.objectId, s.starId FROM (SELECT objectId, ra, dec FROM dp.Object WHERE mag > 17) AS q JOIN ext.Star s ON DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 0.1
SELECT q.objectId, s.starId FROM (SELECT objectId, ra - 360 AS ra, dec FROM dp.Object WHERE mag > 17) AS q JOIN ext.Star s ON DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 0.1
SELECT q.objectId, s.starId FROM (SELECT objectId, ra + 720 AS ra, dec FROM dp.Object WHERE mag > 17) AS q LEFT JOIN ext.Star s ON DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 0.1
SELECT q.objectId, s.starId FROM ext.Star s LEFT JOIN (SELECT objectId, ra - 360 AS ra, dec FROM dp.Object WHERE mag > 17) AS q ON DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 0.1
SELECT q.n, s.starId FROM (SELECT flags, AVG(ra) AS ra, AVG(dec) AS dec, COUNT(*) AS n FROM dp.Object GROUP BY flags) AS q JOIN ext.Star s ON DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 30
SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT 1 FROM ext.Star s WHERE DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01)
SELECT o.objectId, (SELECT COUNT(*) FROM ext.Star s, ext.Star t WHERE DISTANCE(POINT(t.ra,t.dec),POINT(s.ra,s.dec)) < 0.01 AND o.flags = s.r0) AS n FROM dp.Object o
SELECT s.sourceId, t.sourceId AS u FROM dp.Source s JOIN dp.Source t ON DISTANCE(POINT(s.ra,s.dec),POINT(t.ra,t.dec)) < 0.001 AND s.objectId <> t.objectId
SELECT s.sourceId FROM dp.Source s WHERE CONTAINS(POINT(s.ra,s.dec),CIRCLE(34,12,0.0001))=1
SELECT s.sourceId FROM dp.Source s WHERE CONTAINS(POINT(s.ra,s.dec),BOX(0,0,0.001,0.001))=1
SELECT s.sourceId FROM dp.Source s JOIN dp.Object o ON o.objectId = s.objectId WHERE CONTAINS(POINT(s.ra,s.dec),CIRCLE(0,0,0.00015))=1 AND CONTAINS(POINT(o.ra,o.dec),CIRCLE(0,0,1))=1
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(ra,dec),POLYGON(33,11,35,11,35,13,33,13))=1
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(ra,dec),POLYGON(359,-1,1,-1,1,1,359,1))=1 OR CONTAINS(POINT(ra,dec),POLYGON(0,89,120,89,240,89))=1
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(o.ra,o.dec),CIRCLE(45,0,0))=1
SELECT o.objectId FROM dp.Object o WHERE DISTANCE(POINT(o.ra,o.dec),POINT(45,0)) <= 0
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(o.ra,o.dec),CIRCLE(405,0,0.001))=1
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(o.ra,o.dec),CIRCLE(-315,0,0.001))=1
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(o.ra,o.dec),CIRCLE(45,0,180))=1
SELECT o.objectId FROM dp.Object o WHERE CONTAINS(POINT(o.ra,o.dec),CIRCLE(45,0,135))=1
SELECT o.objectId FROM dp.Object o WHERE DISTANCE(POINT(o.ra,o.dec),POINT(45,0)) > 120
SELECT o.objectId FROM dp.Object o WHERE DISTANCE(POINT(o.ra,o.dec),POINT(o.ra,0)) < 5
SELECT o.objectId FROM dp.Object o WHERE ra = 360
SELECT o.objectId FROM dp.Object o WHERE ra < 0 OR dec > 89
SELECT o.objectId FROM dp.Object o WHERE ra >= 0
SELECT o.objectId FROM dp.Object o WHERE ra IN (34, 45, NULL)
SELECT o.objectId FROM dp.Object o WHERE dec IN (12.0, 90)
SELECT o.objectId FROM dp.Object o WHERE mag IN (NULL)
SELECT o.objectId FROM dp.Object o WHERE NOT (mag > 20 OR dec > 0)
SELECT o.objectId FROM dp.Object o WHERE (mag > 20) IS NULL
SELECT flags, COUNT(*) AS n FROM dp.Object GROUP BY flags HAVING SUM(mag) > 100 ORDER BY COUNT(*), flags
SELECT flags + 1 AS f, flags, COUNT(*) + flags AS n FROM dp.Object GROUP BY flags
SELECT flags + 1 AS f, COUNT(*) AS n FROM dp.Object GROUP BY flags + 1 ORDER BY flags + 1
SELECT DISTINCT COUNT(*) AS n FROM dp.Object GROUP BY flags ORDER BY n
SELECT TOP 2 flags, AVG(small) AS a, SUM(small) AS s, STDDEV_POP(mag) AS d, VAR_SAMP(order) AS v FROM dp.Object GROUP BY flags ORDER BY flags
SELECT SUM(objectId) AS s FROM dp.Object WHERE objectId < 1000
SELECT AVG(objectId) AS s FROM dp.Object
SELECT MEDIAN(mag) AS m FROM dp.Object
SELECT COUNT(good) AS n, MIN(good) AS a, MAX(good) AS b, SUM(good) AS s, AVG(good) AS v FROM dp.Object
sql:SELECT flags, SUM(mag) OVER (PARTITION BY flags ORDER BY objectId) AS s FROM dp.Object QUALIFY ROW_NUMBER() OVER (PARTITION BY flags ORDER BY objectId) <= 2
SELECT flags FROM dp.Object UNION SELECT r0 FROM ext.Star
SELECT flags FROM dp.Object EXCEPT SELECT r0 FROM ext.Star WHERE mag > 3
SELECT flags FROM dp.Object INTERSECT ALL SELECT r0 FROM ext.Star
SELECT COUNT(*) AS n FROM dp.Object UNION ALL SELECT COUNT(*) FROM ext.Star
SELECT COUNT(*) AS n FROM dp.Filter
SELECT COUNT(*) AS n FROM dp.Filter f, dp.Filter g
SELECT TOP 1 wavelength FROM dp.Filter ORDER BY wavelength DESC
SELECT wavelength FROM dp.Filter ORDER BY wavelength DESC
SELECT MAX(wavelength) AS m FROM dp.Filter
SELECT f.objectId, o.name FROM dp.ForcedSource f RIGHT JOIN dp.Object o ON o.objectId = f.objectId WHERE f.flux > 10 OR f.flux IS NULL
SELECT f.objectId, o.name, g.band FROM dp.ForcedSource f RIGHT JOIN dp.Object o ON o.objectId = f.objectId LEFT JOIN dp.Filter g ON g.band = f.band
SELECT f.objectId, o.name, g.band FROM dp.Filter g RIGHT JOIN dp.ForcedSource f ON g.band = f.band RIGHT JOIN dp.Object o ON o.objectId = f.objectId AND g.wavelength > 400 WHERE o.flags = 1
SELECT f.objectId, o.name, s.sourceId FROM dp.Object o LEFT JOIN dp.ForcedSource f ON o.objectId = f.objectId LEFT JOIN dp.Source s ON s.objectId = f.objectId
SELECT f.objectId, o.name, s.sourceId FROM dp.Object o LEFT JOIN dp.ForcedSource f ON o.objectId = f.objectId JOIN dp.Source s ON s.objectId = o.objectId WHERE o.objectId = 4
SELECT f.objectId, o.name FROM dp.Object o LEFT JOIN dp.ForcedSource f ON o.objectId = f.objectId AND f.objectId = 4
SELECT f.objectId, o.name FROM dp.Object o LEFT JOIN dp.ForcedSource f ON o.objectId = f.objectId AND o.objectId = 4
SELECT f.objectId, o.name FROM dp.Object o LEFT JOIN dp.ForcedSource f ON o.objectId = f.objectId WHERE f.objectId = 4
SELECT f.objectId, g.forcedSourceId FROM dp.ForcedSource f JOIN dp.ForcedSource g ON f.objectId = g.objectId AND f.forcedSourceId < g.forcedSourceId WHERE f.objectId IN (9001, 9002, 5)
SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId IS NULL
SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId = 99999999999999999999
SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId IN (99999999999999999999, 5)
SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId = -3 OR f.objectId = - 2 OR 4 = f.objectId
SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId BETWEEN 4 AND 6
SELECT f.objectId FROM dp.ForcedSource f WHERE f.objectId = 4 OR f.flux > 100
SELECT o.objectId, f.n FROM dp.Object o JOIN (SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId) AS f ON f.objectId = o.objectId WHERE o.dec > 10
SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT objectId FROM dp.ForcedSource WHERE flux > 100)
SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT TOP 3 objectId FROM dp.ForcedSource WHERE flux > 100 ORDER BY flux)
SELECT COUNT(*) AS n FROM dp.Object WHERE 1 = 0
SELECT COUNT(*) AS n FROM dp.Object, dp.Filter
SELECT objectId, objectId FROM dp.Object
SELECT objectId AS a, mag AS A FROM dp.Object ORDER BY a
SELECT a.objectId, b.objectId FROM dp.Object a, dp.Object b WHERE a.objectId = b.objectId AND a.objectId + 0 = b.objectId
SELECT a.objectId FROM dp.Object a, dp.Object b WHERE a.objectId = b.objectId + 1
SELECT TOP 3 RAND() * 0 AS z FROM dp.Object ORDER BY RAND()
SELECT o.objectId FROM dp.Object o JOIN ext.Star s ON o.name = s.starId OR DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01
SELECT o.objectId FROM dp.Object o CROSS JOIN ext.Star s WHERE NOT DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) >= 0.01
SELECT o.objectId FROM dp.Object o CROSS JOIN ext.Star s WHERE o.name = s.starId AND DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 100
SELECT o.objectId FROM dp.Object o CROSS JOIN ext.Star s WHERE o.flags = s.r0 AND DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 1
SELECT o.objectId, s.starId FROM ext.Star s LEFT JOIN dp.Object o ON o.flags = s.r0 AND DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 1
SELECT objectId FROM dp.Object WHERE objectId IN (5.0, 9007199254740993)
SELECT objectId FROM dp.Object WHERE objectId IN (5, 9007199254740993)
SELECT q.objectId, s.starId FROM (SELECT objectId, ra - 360 AS ra, dec FROM dp.Object WHERE mag > 17) AS q LEFT JOIN ext.Star s ON DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 0.1
SELECT q.objectId, s.objectId AS b FROM (SELECT objectId, ra - 360 AS ra, dec FROM dp.Object WHERE mag > 17) AS q, (SELECT objectId, ra - 180 AS ra, dec FROM dp.Object WHERE mag > 17) AS s WHERE DISTANCE(POINT(q.ra,q.dec),POINT(s.ra,s.dec)) < 10
SELECT objectId FROM (SELECT objectId, ra, 180-dec AS dec FROM dp.Object WHERE mag > 17) AS q WHERE CONTAINS(POINT(ra,dec),CIRCLE(0,0,40))=1
sql:SELECT COUNT(*) AS n FROM dp.Object LIMIT 0
SELECT TOP 0 COUNT(*) AS n FROM dp.Object
SELECT COUNT(*) AS n FROM dp.Object OFFSET 1
SELECT 2 * COUNT(*) AS n, COUNT(*) + 1 AS m FROM dp.Object
SELECT COUNT(*) AS n, 'a' AS b FROM dp.Object
SELECT COUNT(*) AS n FROM dp.Object HAVING COUNT(*) > 1000
SELECT objectId FROM dp.Object WHERE (SELECT COUNT(*) FROM dp.Object) > objectId
SELECT COUNT(*) AS n, (SELECT COUNT(*) FROM ext.Star) AS m FROM dp.Object
SELECT DISTINCT COUNT(*) AS n FROM dp.Object
SELECT o.objectId FROM dp.Object o WHERE EXISTS (SELECT COUNT(*) FROM ext.Star)
SELECT COUNT(*) AS n FROM dp.Object o JOIN ext.Star s ON DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01
SELECT COUNT(*) AS n, MAX(s.mag) AS m FROM dp.Object o LEFT JOIN ext.Star s ON DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01 WHERE CONTAINS(POINT(o.ra,o.dec),CIRCLE(34,12,1))=1
sql:SELECT DISTINCT flags, name FROM dp.Object ORDER BY flags NULLS FIRST, name DESC NULLS FIRST LIMIT 7 OFFSET 2
sql:SELECT objectId FROM dp.Object ORDER BY flags NULLS FIRST, objectId DESC LIMIT 7 OFFSET 2
SELECT TOP 3 o.objectId, o.mag FROM dp.Object o ORDER BY o.mag DESC NULLS FIRST, o.objectId
SELECT objectId, CASE WHEN objectId IN (SELECT objectId FROM dp.ForcedSource) THEN 1 ELSE 0 END AS x FROM dp.Object
SELECT o.flags, COUNT(*) AS n FROM dp.Object o GROUP BY o.flags HAVING COUNT(*) > (SELECT COUNT(*) FROM dp.Filter)
SELECT o.objectId FROM dp.Object o JOIN dp.Source s ON o.objectId = s.objectId AND o.ra = s.ra AND o.dec = s.dec
SELECT o.name || 'x' AS a, UPPER(name) AS b FROM dp.Object o ORDER BY 2, 1
SELECT s.starId, o.objectId FROM ext.Star s JOIN dp.Object o ON DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01 AND o.objectId = 23
SELECT s.starId, o.objectId FROM ext.Star s JOIN dp.Object o ON DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01 WHERE s.starId = 'S23'
SELECT s.starId, f.flux FROM ext.Star s JOIN dp.Object o ON DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01 JOIN dp.ForcedSource f ON f.objectId = o.objectId WHERE f.objectId IN (22, 23, 24)
SELECT s.starId, f.flux FROM ext.Star s LEFT JOIN dp.Object o ON DISTANCE(POINT(o.ra,o.dec),POINT(s.ra,s.dec)) < 0.01 LEFT JOIN dp.ForcedSource f ON f.objectId = o.objectId AND f.objectId IN (22, 23, 24)
SELECT COUNT(*) AS n FROM (SELECT DISTINCT flags FROM dp.Object) AS q
SELECT q.flags FROM (SELECT TOP 2 flags, COUNT(*) AS n FROM dp.Object GROUP BY flags ORDER BY n, flags) AS q
(SELECT TOP 2 objectId FROM dp.Object ORDER BY objectId) UNION ALL (SELECT TOP 2 objectId FROM dp.Object ORDER BY objectId DESC)
SELECT f.band, COUNT(*) AS n FROM dp.Filter p JOIN dp.ForcedSource f ON f.band = p.band GROUP BY f.band
SELECT p.band, q.n FROM dp.Filter p LEFT JOIN (SELECT band, COUNT(*) AS n FROM dp.ForcedSource GROUP BY band) AS q ON q.band = p.band
SELECT p.band FROM dp.Filter p WHERE NOT EXISTS (SELECT 1 FROM dp.ForcedSource f WHERE f.band = p.band)
SELECT a.objectId FROM dp.Object a WHERE a.objectId = a.objectId
SELECT o.objectId FROM dp.Object o WHERE o.objectId = 9007199254740992.0 OR o.objectId = 4
SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (-3, -2.0)
SELECT a.objectId, b.starId FROM dp.Object a, ext.Star b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01 AND a.ra < 180
SELECT a.objectId, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01 WHERE b.mag > 3
SELECT a.objectId FROM dp.Object a WHERE (SELECT COUNT(*) FROM ext.Star b WHERE DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01) > 1
SELECT a.objectId FROM dp.Object a WHERE a.mag > (SELECT MAX(b.mag) FROM ext.Star b WHERE b.r0 = a.flags) + 10
SELECT flags, (SELECT COUNT(*) FROM ext.Star b WHERE b.r0 = a.flags) AS n FROM dp.Object a GROUP BY flags
SELECT a.flags FROM dp.Object a GROUP BY a.flags HAVING EXISTS (SELECT 1 FROM ext.Star b WHERE b.r0 = a.flags)
sql:SELECT COUNT(*) AS n FROM (SELECT objectId FROM dp.Object LIMIT 5 OFFSET 91) AS q
sql:SELECT COUNT(*) AS n FROM dp.Object WHERE good
sql:SELECT COUNT(*) FILTER (WHERE mag > 20) AS n, SUM(mag) FILTER (WHERE good) AS m FROM dp.Object
sql:SELECT flags, RANK() OVER (ORDER BY COUNT(*) DESC) AS n FROM dp.Object GROUP BY flags
sql:SELECT objectId FROM dp.Object WHERE objectId IS NOT DISTINCT FROM 4
sql:SELECT a.objectId FROM dp.Object a JOIN dp.ForcedSource b ON a.objectId IS NOT DISTINCT FROM b.objectId
SELECT o.flags + 1 AS flags, o.flags AS g FROM dp.Object o ORDER BY flags, g, o.objectId
SELECT mag AS ra, ra AS mag FROM dp.Object WHERE ra > 100 ORDER BY ra, mag
SELECT DISTINCT mag + 1 AS m FROM dp.Object ORDER BY m DESC
SELECT TOP 3 mag + 1 AS m, COUNT(*) AS n FROM dp.Object GROUP BY mag + 1 ORDER BY mag + 1
SELECT MAX(mag) - MIN(mag) AS d, COUNT(*) / 10 AS n, COUNT(*) / 10.0 AS m FROM dp.Object
SELECT SUM(flags) / COUNT(flags) AS a, SUM(flags) * 1.0 / COUNT(*) AS b FROM dp.Object
SELECT ROUND(AVG(mag), 2) AS r, flags FROM dp.Object GROUP BY flags HAVING AVG(mag) > 10 AND MIN(name) < 'n5'
SELECT MIN(name || 'x') AS a, MAX(UPPER(name)) AS b FROM dp.Object
SELECT f.band, AVG(f.flux) AS a FROM dp.ForcedSource f LEFT JOIN dp.Filter p ON p.band = f.band WHERE p.wavelength > 350 GROUP BY f.band
SELECT o.objectId FROM dp.Object o JOIN dp.ForcedSource f ON o.objectId = f.objectId JOIN dp.Filter p ON p.band = f.band AND p.wavelength > 400 WHERE o.objectId IN (SELECT objectId FROM dp.Source)
WITH a AS (SELECT objectId, ra, dec FROM dp.Object WHERE mag > 18), b AS (SELECT starId, ra, dec FROM ext.Star) SELECT a.objectId, b.starId FROM a JOIN b ON DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01
WITH a AS (SELECT objectId, ra, dec FROM dp.Object) SELECT x.objectId, y.objectId AS z FROM a x JOIN a y ON DISTANCE(POINT(x.ra,x.dec),POINT(y.ra,y.dec)) < 0.01 AND x.objectId < y.objectId
SELECT a.objectId, b.objectId AS z FROM dp.Object a JOIN dp.Object b ON a.objectId = b.objectId AND DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01
SELECT a.objectId, b.objectId AS z FROM dp.Object a LEFT JOIN dp.Object b ON a.objectId = b.objectId AND DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 0.01
SELECT a.objectId, b.objectId AS z FROM dp.Object a LEFT JOIN dp.Object b ON a.flags = b.flags AND DISTANCE(POINT(a.ra,a.dec),POINT(b.ra,b.dec)) < 1 LEFT JOIN dp.ForcedSource f ON f.objectId = b.objectId
SELECT o.objectId FROM dp.Object o WHERE o.dec BETWEEN 13 AND 11 OR o.dec BETWEEN 11 AND 13
SELECT o.objectId FROM dp.Object o WHERE o.dec NOT BETWEEN -80 AND 80
SELECT o.objectId FROM dp.Object o WHERE ABS(o.dec) > 80 AND o.dec > -95
