-- Places: a row of the margin would be put out by several tasks.
SELECT a.objectId, b.starId FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01;
SELECT "joined"."objectId" AS "objectId", "joined"."starId" AS "starId" FROM (SELECT "a"."objectId" AS "objectId", "b"."starId" AS "starId" FROM "dp"."Object" AS "a" LEFT JOIN "ext"."Star" AS "b" ON qe_distance("a"."ra", "a"."dec", "b"."ra", "b"."dec") < 0.01e0 UNION ALL SELECT CAST(NULL AS BIGINT) AS "objectId", "b_2"."starId" AS "starId" FROM "ext"."Star" AS "b_2" WHERE NOT EXISTS(SELECT CAST(1 AS INT) AS "one" FROM "dp"."Object" AS "a_2" WHERE qe_distance("a_2"."ra", "a_2"."dec", "b_2"."ra", "b_2"."dec") < 0.01e0)) AS "joined";

-- Terms of WHERE speak of NULLs in the rows without partner.
SELECT COUNT(*) AS n, COUNT(a.objectId) AS k FROM dp.Object a FULL JOIN ext.Star b ON DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.01 AND a.mag < b.mag * 3 WHERE a.flags = 1 OR a.flags IS NULL;
SELECT COUNT(*) AS "n", COUNT("joined"."objectId") AS "k" FROM (SELECT "a"."objectId" AS "objectId" FROM "dp"."Object" AS "a" LEFT JOIN "ext"."Star" AS "b" ON qe_distance("a"."ra", "a"."dec", "b"."ra", "b"."dec") < 0.01e0 AND "a"."mag" < ("b"."mag" * 3) WHERE "a"."flags" = 1 OR "a"."flags" IS NULL UNION ALL SELECT CAST(NULL AS BIGINT) AS "objectId" FROM "ext"."Star" AS "b_2" WHERE NOT EXISTS(SELECT CAST(1 AS INT) AS "one" FROM "dp"."Object" AS "a_2" WHERE qe_distance("a_2"."ra", "a_2"."dec", "b_2"."ra", "b_2"."dec") < 0.01e0 AND "a_2"."mag" < ("b_2"."mag" * 3)) AND (CAST(NULL AS INT) = 1 OR CAST(NULL AS INT) IS NULL)) AS "joined";

-- By the family's key it is local as it is.
SELECT o.objectId, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId;
SELECT "o"."objectId" AS "objectId", "f"."flux" AS "flux" FROM "dp"."Object" AS "o" FULL JOIN "dp"."ForcedSource" AS "f" ON "f"."objectId" = "o"."objectId";

-- Nothing ties the sides: two parts would be as bad.
SELECT o.objectId, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.flux = o.mag;
SELECT "o"."objectId" AS "objectId", "f"."flux" AS "flux" FROM "dp"."Object" AS "o" FULL JOIN "dp"."ForcedSource" AS "f" ON "f"."flux" = "o"."mag";
