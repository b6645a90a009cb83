-- The manifest knows.
SELECT COUNT(*) AS n FROM dp.Object;
SELECT CAST(94 AS BIGINT) AS "n";

-- Rows beyond the sky count; expressions of the count are kept.
SELECT COUNT(*) AS n, 2 * COUNT(*) + 1 AS m, 'all' AS what FROM dp.ForcedSource;
SELECT CAST(144 AS BIGINT) AS "n", (2 * CAST(144 AS BIGINT)) + 1 AS "m", 'all' AS "what";

-- Replicated tables, sub-queries.
SELECT COUNT(*) AS n FROM dp.Filter f WHERE (SELECT COUNT(*) FROM ext.Star) > 3;
SELECT COUNT(*) AS "n" FROM "dp"."Filter" AS "f" WHERE (SELECT CAST(64 AS BIGINT) AS "count") > 3;

-- A term, a group, a column, a second table, a cut: nothing is known.
SELECT COUNT(*) AS n FROM dp.Object WHERE mag IS NULL;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" WHERE "Object"."mag" IS NULL;
SELECT COUNT(*) AS n FROM dp.Object GROUP BY flags;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" GROUP BY "Object"."flags";
SELECT COUNT(mag) AS n FROM dp.Object;
SELECT COUNT("Object"."mag") AS "n" FROM "dp"."Object" AS "Object";
SELECT COUNT(*) AS n FROM dp.Object, dp.Filter;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" CROSS JOIN "dp"."Filter" AS "Filter";
SELECT COUNT(*) AS n FROM dp.Object OFFSET 1;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" OFFSET 1;
SELECT COUNT(*) AS n FROM dp.Object HAVING COUNT(*) > 100;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" HAVING COUNT(*) > 100;
SELECT COUNT(*) AS n, MAX(5) AS m FROM dp.Object;
SELECT COUNT(*) AS "n", MAX(5) AS "m" FROM "dp"."Object" AS "Object";
