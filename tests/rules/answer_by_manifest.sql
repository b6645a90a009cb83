-- The manifest knows.
SELECT COUNT(*) AS n FROM dp.Object;
SELECT CAST(94 AS BIGINT) AS "n";

-- Rows beyond the sky count; expressions of the count are kept.
SELECT COUNT(*) AS n, 2 * COUNT(*) + 1 AS m, 'all' AS what FROM dp.ForcedSource;
SELECT CAST(144 AS BIGINT) AS "n", (2 * CAST(144 AS BIGINT)) + 1 AS "m", 'all' AS "what";

-- Replicated tables, sub-queries, an order and a limit of one row.
SELECT COUNT(*) AS n FROM dp.Filter f WHERE (SELECT COUNT(*) FROM ext.Star) > 3;
SELECT COUNT(*) AS "n" FROM "dp"."Filter" AS "f" WHERE (SELECT CAST(64 AS BIGINT) AS "count") > 3;
SELECT TOP 3 COUNT(*) AS n FROM dp.Object ORDER BY n;
SELECT CAST(94 AS BIGINT) AS "n";

-- NULLs, smallest and largest values of several types, all in one.
SELECT COUNT(mag) AS n, MIN(mag) AS low, MAX(mag) AS high, MAX(objectId) - MIN(objectId) AS width FROM dp.Object;
SELECT CAST(81 AS BIGINT) AS "n", CAST(15.04e0 AS DOUBLE) AS "low", CAST(24.96e0 AS DOUBLE) AS "high", CAST(4611686018427387905 AS BIGINT) - CAST(-3 AS BIGINT) AS "width";
SELECT MIN(name) AS a, MAX(name) AS z, COUNT(empty) AS n, MIN(empty) AS e, MAX(small) AS s FROM dp.Object;
SELECT CAST('n0' AS TEXT) AS "a", CAST('n5' AS TEXT) AS "z", CAST(0 AS BIGINT) AS "n", CAST(NULL AS DOUBLE) AS "e", CAST(16777220.0e0 AS REAL) AS "s";
SELECT COUNT(1) AS n, MIN(starId) AS a FROM ext.Star;
SELECT CAST(64 AS BIGINT) AS "n", CAST('07' AS TEXT) AS "a";

-- A term, a group, a second table, a cut, another aggregate beside: nothing is known.
SELECT COUNT(*) AS n FROM dp.Object WHERE mag IS NULL;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" WHERE "Object"."mag" IS NULL;
SELECT COUNT(*) AS n FROM dp.Object GROUP BY flags;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" GROUP BY "Object"."flags";
SELECT COUNT(DISTINCT mag) AS n FROM dp.Object;
SELECT COUNT(DISTINCT "Object"."mag") AS "n" FROM "dp"."Object" AS "Object";
SELECT COUNT(*) AS n FROM dp.Object, dp.Filter;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" CROSS JOIN "dp"."Filter" AS "Filter";
SELECT COUNT(*) AS n FROM dp.Object OFFSET 1;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" OFFSET 1;
SELECT COUNT(*) AS n FROM dp.Object HAVING COUNT(*) > 100;
SELECT COUNT(*) AS "n" FROM "dp"."Object" AS "Object" HAVING COUNT(*) > 100;
SELECT COUNT(*) AS n, MAX(5) AS m FROM dp.Object;
SELECT COUNT(*) AS "n", MAX(5) AS "m" FROM "dp"."Object" AS "Object";
SELECT COUNT(*) AS n, AVG(mag) AS m FROM dp.Object;
SELECT COUNT(*) AS "n", AVG("Object"."mag") AS "m" FROM "dp"."Object" AS "Object";
SELECT MIN(mag + 1) AS m FROM dp.Object;
SELECT MIN("Object"."mag" + 1) AS "m" FROM "dp"."Object" AS "Object";
SELECT COUNT(*) OVER () AS n FROM dp.Filter;
SELECT COUNT(*) OVER () AS "n" FROM "dp"."Filter" AS "Filter";
