-- Two tables: the sides change places.
SELECT o.objectId, f.forcedSourceId FROM dp.Object o RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId;
SELECT "o"."objectId" AS "objectId", "f"."forcedSourceId" AS "forcedSourceId" FROM "dp"."ForcedSource" AS "f" LEFT JOIN "dp"."Object" AS "o" ON "f"."objectId" = "o"."objectId";

-- Terms of WHERE and of ON stay what they are: WHERE drops rows without a partner, ON does not.
SELECT o.objectId, f.forcedSourceId FROM dp.Object o RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId AND o.mag > 20 AND f.flux > 30 WHERE o.flags = 1 OR o.flags IS NULL;
SELECT "o"."objectId" AS "objectId", "f"."forcedSourceId" AS "forcedSourceId" FROM "dp"."ForcedSource" AS "f" LEFT JOIN "dp"."Object" AS "o" ON "f"."objectId" = "o"."objectId" AND "o"."mag" > 20 AND "f"."flux" > 30 WHERE "o"."flags" = 1 OR "o"."flags" IS NULL;

-- Places with a NULL half meet nobody.
SELECT o.objectId, s.starId FROM dp.Object o RIGHT JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.001;
SELECT "o"."objectId" AS "objectId", "s"."starId" AS "starId" FROM "ext"."Star" AS "s" LEFT JOIN "dp"."Object" AS "o" ON qe_distance("o"."ra", "o"."dec", "s"."ra", "s"."dec") < 0.001e0;

-- In a sub-query too.
SELECT f.flux FROM dp.ForcedSource f WHERE f.objectId IN (SELECT b.objectId FROM dp.Source a RIGHT JOIN dp.Object b ON a.objectId = b.objectId WHERE a.sourceId IS NULL);
SELECT "f"."flux" AS "flux" FROM "dp"."ForcedSource" AS "f" WHERE "f"."objectId" IN (SELECT "b"."objectId" AS "objectId" FROM "dp"."Object" AS "b" LEFT JOIN "dp"."Source" AS "a" ON "a"."objectId" = "b"."objectId" WHERE "a"."sourceId" IS NULL);

-- What comes after stays after.
SELECT o.objectId, p.wavelength FROM dp.Object o RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId LEFT JOIN dp.Filter p ON p.band = f.band;
SELECT "o"."objectId" AS "objectId", "p"."wavelength" AS "wavelength" FROM "dp"."ForcedSource" AS "f" LEFT JOIN "dp"."Object" AS "o" ON "f"."objectId" = "o"."objectId" LEFT JOIN "dp"."Filter" AS "p" ON "p"."band" = "f"."band";

-- Several relations on the left are one derived table.
SELECT o.mag, s.sourceId, f.flux FROM dp.Object o LEFT JOIN dp.Source s ON s.objectId = o.objectId RIGHT JOIN dp.ForcedSource f ON f.objectId = o.objectId WHERE s.flux IS NULL OR s.flux > 3;
SELECT "joined"."mag" AS "mag", "joined"."sourceId" AS "sourceId", "f"."flux" AS "flux" FROM "dp"."ForcedSource" AS "f" LEFT JOIN (SELECT "o"."mag" AS "mag", "s"."sourceId" AS "sourceId", "o"."objectId" AS "objectId", "s"."flux" AS "flux" FROM "dp"."Object" AS "o" LEFT JOIN "dp"."Source" AS "s" ON "s"."objectId" = "o"."objectId") AS "joined" ON "f"."objectId" = "joined"."objectId" WHERE "joined"."flux" IS NULL OR "joined"."flux" > 3;

-- Two of them.
SELECT o.mag, s.sourceId, f.flux FROM dp.Object o RIGHT JOIN dp.Source s ON s.objectId = o.objectId RIGHT JOIN dp.ForcedSource f ON f.objectId = s.objectId;
SELECT "joined"."mag" AS "mag", "joined"."sourceId" AS "sourceId", "f"."flux" AS "flux" FROM "dp"."ForcedSource" AS "f" LEFT JOIN (SELECT "o"."mag" AS "mag", "s"."sourceId" AS "sourceId", "s"."objectId" AS "objectId" FROM "dp"."Source" AS "s" LEFT JOIN "dp"."Object" AS "o" ON "s"."objectId" = "o"."objectId") AS "joined" ON "f"."objectId" = "joined"."objectId";

-- LEFT and FULL joins are left alone.
SELECT o.objectId, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.objectId = o.objectId;
SELECT "o"."objectId" AS "objectId", "f"."flux" AS "flux" FROM "dp"."Object" AS "o" FULL JOIN "dp"."ForcedSource" AS "f" ON "f"."objectId" = "o"."objectId";
