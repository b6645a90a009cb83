-- spread_unions: what is done with the rows of a UNION ALL is done with the rows of each member first.

SELECT u.g, COUNT(*) AS n FROM (SELECT flags AS g, mag FROM dp.Object UNION ALL SELECT flags AS g, mag FROM dp.Object WHERE mag > 20) AS u WHERE u.mag < 22 GROUP BY u.g;
SELECT "spread"."key 0" AS "g", CAST(COALESCE(SUM("spread"."part 0"), 0) AS BIGINT) AS "n" FROM (SELECT CAST("Object"."flags" AS INT) AS "key 0", CAST(COUNT(*) AS BIGINT) AS "part 0" FROM "dp"."Object" AS "Object" WHERE "Object"."mag" < 22 GROUP BY "Object"."flags" UNION ALL SELECT CAST("Object_2_2"."flags" AS INT) AS "key 0", CAST(COUNT(*) AS BIGINT) AS "part 0" FROM "dp"."Object" AS "Object_2_2" WHERE "Object_2_2"."mag" < 22 AND "Object_2_2"."mag" > 20 GROUP BY "Object_2_2"."flags") AS "spread" GROUP BY "spread"."key 0";

-- A plain UNION drops duplicates across its members.
SELECT u.g, COUNT(*) AS n FROM (SELECT flags AS g FROM dp.Object UNION SELECT flags AS g FROM dp.Object) AS u GROUP BY u.g;
SELECT "u"."g" AS "g", COUNT(*) AS "n" FROM (SELECT "Object"."flags" AS "g" FROM "dp"."Object" AS "Object" UNION SELECT "Object_2"."flags" AS "g" FROM "dp"."Object" AS "Object_2") AS "u" GROUP BY "u"."g";
