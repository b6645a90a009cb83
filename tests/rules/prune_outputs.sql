-- What nobody names goes.
SELECT d.n FROM (SELECT objectId, COUNT(*) AS n, MAX(flux) AS m FROM dp.ForcedSource GROUP BY objectId) AS d;
SELECT "d"."n" AS "n" FROM (SELECT COUNT(*) AS "n" FROM "dp"."ForcedSource" AS "ForcedSource" GROUP BY "ForcedSource"."objectId") AS "d";

-- One row stays one row, many rows stay many.
SELECT COUNT(*) AS c FROM (SELECT COUNT(*) AS n, MAX(flux) AS m FROM dp.ForcedSource) AS d, (SELECT objectId, flags FROM dp.Object GROUP BY objectId, flags) AS e;
SELECT COUNT(*) AS "c" FROM (SELECT COUNT(*) AS "n" FROM "dp"."ForcedSource" AS "ForcedSource") AS "d" CROSS JOIN (SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" GROUP BY "Object"."objectId", "Object"."flags") AS "e";

-- The columns of DISTINCT decide about rows.
SELECT d.band FROM (SELECT DISTINCT objectId, band FROM dp.ForcedSource) AS d;
SELECT "d"."band" AS "band" FROM (SELECT DISTINCT "ForcedSource"."objectId" AS "objectId", "ForcedSource"."band" AS "band" FROM "dp"."ForcedSource" AS "ForcedSource") AS "d";
