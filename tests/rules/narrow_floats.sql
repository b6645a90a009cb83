-- A FLOAT column of a stored table; the constant is rounded to the side that keeps the meaning.
SELECT objectId FROM dp.Object WHERE small > 0.1;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."small" > CAST(0.09999999403953552e0 AS REAL);
SELECT objectId FROM dp.Object WHERE small >= 0.1;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."small" >= CAST(0.10000000149011612e0 AS REAL);
SELECT objectId FROM dp.Object WHERE small < 0.1 AND NOT small <= -0.1;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."small" < CAST(0.10000000149011612e0 AS REAL) AND NOT ("Object"."small" <= CAST(-0.10000000149011612e0 AS REAL));
SELECT objectId FROM dp.Object WHERE 0.3 < small;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE CAST(0.29999998211860657e0 AS REAL) < "Object"."small";
SELECT objectId FROM dp.Object WHERE small BETWEEN 0 AND 2.05;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."small" BETWEEN CAST(0.0e0 AS REAL) AND CAST(2.049999952316284e0 AS REAL);

-- In an output, an outer join and a sub-query alike.
SELECT objectId, CASE WHEN small < 0.7 THEN 1 ELSE 2 END AS k FROM dp.Object;
SELECT "Object"."objectId" AS "objectId", CASE WHEN "Object"."small" < CAST(0.7000000476837158e0 AS REAL) THEN 1 ELSE 2 END AS "k" FROM "dp"."Object" AS "Object";
SELECT o.objectId, f.flux FROM dp.Object o LEFT JOIN dp.ForcedSource f ON f.objectId = o.objectId AND f.flux > 1.1;
SELECT "o"."objectId" AS "objectId", "f"."flux" AS "flux" FROM "dp"."Object" AS "o" LEFT JOIN "dp"."ForcedSource" AS "f" ON "f"."objectId" = "o"."objectId" AND "f"."flux" > CAST(1.0999999046325684e0 AS REAL);

-- Equality only with a number that is a FLOAT.
SELECT objectId FROM dp.Object WHERE small = 0.5 OR small <> 0.1;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."small" = CAST(0.5e0 AS REAL) OR "Object"."small" <> 0.1e0;

-- Integers, DOUBLE columns, columns of derived tables and numbers beyond FLOAT stay.
SELECT objectId FROM dp.Object WHERE small > 1 AND mag > 0.1 AND small < 1e300;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE "Object"."small" > 1 AND "Object"."mag" > 0.1e0 AND "Object"."small" < 1e+300;
SELECT d.s FROM (SELECT TOP 100 small AS s FROM dp.Object ORDER BY objectId) d WHERE d.s > 0.1;
SELECT "d"."s" AS "s" FROM (SELECT "Object"."small" AS "s" FROM "dp"."Object" AS "Object" ORDER BY "Object"."objectId" ASC NULLS LAST LIMIT 100) AS "d" WHERE "d"."s" > 0.1e0;
