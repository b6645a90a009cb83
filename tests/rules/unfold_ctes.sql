-- Named once: a derived table.
WITH q AS (SELECT objectId, mag FROM dp.Object WHERE flags = 1) SELECT q.objectId, f.flux FROM q JOIN dp.ForcedSource f ON f.objectId = q.objectId;
SELECT "q"."objectId" AS "objectId", "f"."flux" AS "flux" FROM (SELECT "Object"."objectId" AS "objectId", "Object"."mag" AS "mag" FROM "dp"."Object" AS "Object" WHERE "Object"."flags" = 1) AS "q" INNER JOIN "dp"."ForcedSource" AS "f" ON "f"."objectId" = "q"."objectId";

-- One inside another, and one that nobody names.
WITH q AS (SELECT objectId, mag FROM dp.Object), r AS (SELECT objectId FROM q WHERE mag < 20), unused AS (SELECT starId FROM ext.Star) SELECT r.objectId FROM r;
SELECT "r"."objectId" AS "objectId" FROM (SELECT "q"."objectId" AS "objectId" FROM (SELECT "Object"."objectId" AS "objectId", "Object"."mag" AS "mag" FROM "dp"."Object" AS "Object") AS "q" WHERE "q"."mag" < 20) AS "r";

-- Named twice, and local if copied: the copies have their own aliases.
WITH q AS (SELECT objectId, mag FROM dp.Object) SELECT a.objectId, b.mag FROM q a JOIN q b ON a.objectId = b.objectId;
SELECT "a"."objectId" AS "objectId", "b"."mag" AS "mag" FROM (SELECT "Object"."objectId" AS "objectId", "Object"."mag" AS "mag" FROM "dp"."Object" AS "Object") AS "a" INNER JOIN (SELECT "Object_2"."objectId" AS "objectId", "Object_2"."mag" AS "mag" FROM "dp"."Object" AS "Object_2") AS "b" ON "a"."objectId" = "b"."objectId";

-- Named twice, and not local: gathered once.
WITH q AS (SELECT objectId, COUNT(*) AS n FROM dp.ForcedSource GROUP BY objectId) SELECT a.objectId, b.n FROM q a JOIN q b ON a.n = b.n;
WITH "q" AS (SELECT "ForcedSource"."objectId" AS "objectId", COUNT(*) AS "n" FROM "dp"."ForcedSource" AS "ForcedSource" GROUP BY "ForcedSource"."objectId") SELECT "a"."objectId" AS "objectId", "b"."n" AS "n" FROM "q" AS "a" INNER JOIN "q" AS "b" ON "a"."n" = "b"."n";

-- Two copies might choose different rows.
WITH q AS (SELECT TOP 500 objectId FROM dp.Object) SELECT a.objectId FROM q a JOIN q b ON a.objectId = b.objectId;
WITH "q" AS (SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" LIMIT 500) SELECT "a"."objectId" AS "objectId" FROM "q" AS "a" INNER JOIN "q" AS "b" ON "a"."objectId" = "b"."objectId";

-- In a set operation and in a sub-query.
WITH q AS (SELECT objectId FROM dp.ForcedSource WHERE flux > 20) SELECT objectId FROM dp.Object WHERE objectId IN (SELECT q.objectId FROM q) UNION ALL SELECT sourceId FROM dp.Source;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."objectId" IN (SELECT "q"."objectId" AS "objectId" FROM (SELECT "ForcedSource"."objectId" AS "objectId" FROM "dp"."ForcedSource" AS "ForcedSource" WHERE "ForcedSource"."flux" > 20) AS "q") UNION ALL SELECT "Source"."sourceId" AS "sourceId" FROM "dp"."Source" AS "Source";
