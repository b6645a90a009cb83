-- 0 instead of NULL makes no difference where only TRUE counts.
SELECT objectId FROM dp.Object WHERE scisql_s2PtInCircle(ra, dec, 34, 12, 1) = 1;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE ((sin(("Object"."dec" - 12.0e0) * 0.008726646259971648) * sin(("Object"."dec" - 12.0e0) * 0.008726646259971648) + cos(radians("Object"."dec")) * 0.9781476007338057e0 * sin(("Object"."ra" - 34.0e0) * 0.008726646259971648) * sin(("Object"."ra" - 34.0e0) * 0.008726646259971648) <= 7.615242181961052e-05));

-- Under NOT it does.
SELECT objectId FROM dp.Object WHERE scisql_s2PtInCircle(ra, dec, 34, 12, 1) = 0;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE NOT coalesce((sin(("Object"."dec" - 12.0e0) * 0.008726646259971648) * sin(("Object"."dec" - 12.0e0) * 0.008726646259971648) + cos(radians("Object"."dec")) * 0.9781476007338057e0 * sin(("Object"."ra" - 34.0e0) * 0.008726646259971648) * sin(("Object"."ra" - 34.0e0) * 0.008726646259971648) <= 7.615242181961052e-05), FALSE);
