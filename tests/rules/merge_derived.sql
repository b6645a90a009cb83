-- Joins and filters become the block's own.
SELECT f.flux, d.k FROM dp.ForcedSource f JOIN (SELECT o.objectId AS k, o.mag FROM dp.Object o WHERE o.mag > 16) AS d ON d.k = f.objectId WHERE f.flux > 3;
SELECT "f"."flux" AS "flux", "o"."objectId" AS "k" FROM "dp"."ForcedSource" AS "f" INNER JOIN "dp"."Object" AS "o" ON "o"."objectId" = "f"."objectId" WHERE "f"."flux" > 3 AND "o"."mag" > 16;

-- Computed columns go where they are named.
SELECT d.color, COUNT(*) AS n FROM (SELECT o.mag - o.flags AS color FROM dp.Object o) AS d WHERE d.color > 15 GROUP BY d.color;
SELECT ("o"."mag" - "o"."flags") AS "color", COUNT(*) AS "n" FROM "dp"."Object" AS "o" WHERE ("o"."mag" - "o"."flags") > 15 GROUP BY ("o"."mag" - "o"."flags");

-- Several relations: the condition of the join goes to WHERE.
SELECT f.flux, d.n FROM dp.ForcedSource f JOIN (SELECT o.objectId, s.flux AS n FROM dp.Object o LEFT JOIN dp.Source s ON s.objectId = o.objectId WHERE o.flags = 1) AS d ON d.objectId = f.objectId;
SELECT "f"."flux" AS "flux", "s"."flux" AS "n" FROM "dp"."ForcedSource" AS "f" CROSS JOIN "dp"."Object" AS "o" LEFT JOIN "dp"."Source" AS "s" ON "s"."objectId" = "o"."objectId" WHERE "o"."flags" = 1 AND "o"."objectId" = "f"."objectId";

-- By LEFT JOIN only one relation, whose terms go to the ON.
SELECT f.flux, d.mag FROM dp.ForcedSource f LEFT JOIN (SELECT o.objectId, o.mag FROM dp.Object o WHERE o.mag > 20) AS d ON d.objectId = f.objectId;
SELECT "f"."flux" AS "flux", "o"."mag" AS "mag" FROM "dp"."ForcedSource" AS "f" LEFT JOIN "dp"."Object" AS "o" ON "o"."objectId" = "f"."objectId" AND "o"."mag" > 20;

-- Unmatched rows have NULL, not 5.
SELECT f.flux, d.five FROM dp.ForcedSource f LEFT JOIN (SELECT o.objectId, 5 AS five FROM dp.Object o WHERE o.mag > 20) AS d ON d.objectId = f.objectId;
SELECT "f"."flux" AS "flux", "d"."five" AS "five" FROM "dp"."ForcedSource" AS "f" LEFT JOIN (SELECT "o"."objectId" AS "objectId", 5 AS "five" FROM "dp"."Object" AS "o" WHERE "o"."mag" > 20) AS "d" ON "d"."objectId" = "f"."objectId";

-- What looks at several rows stays.
SELECT d.objectId FROM (SELECT DISTINCT f.objectId FROM dp.ForcedSource f) AS d WHERE d.objectId > 3;
SELECT "d"."objectId" AS "objectId" FROM (SELECT DISTINCT "f"."objectId" AS "objectId" FROM "dp"."ForcedSource" AS "f") AS "d" WHERE "d"."objectId" > 3;

-- A FULL JOIN may put NULL into either side.
SELECT d.objectId, f.flux FROM (SELECT o.objectId FROM dp.Object o WHERE o.mag > 20) AS d FULL JOIN dp.ForcedSource f ON f.objectId = d.objectId;
SELECT "d"."objectId" AS "objectId", "f"."flux" AS "flux" FROM (SELECT "o"."objectId" AS "objectId" FROM "dp"."Object" AS "o" WHERE "o"."mag" > 20) AS "d" FULL JOIN "dp"."ForcedSource" AS "f" ON "f"."objectId" = "d"."objectId";
