-- Pixels and maps of a director's position read the stored cell.
SELECT objectId, ivo_healpix_index(5, ra, dec) AS p FROM dp.Object;
SELECT "Object"."objectId" AS "objectId", qe_cell("Object"."_healpix_29", 5) AS "p" FROM "dp"."Object" AS "Object";

SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), MOC('0/0-5 1/40 29/')) = 1;
SELECT "Object"."objectId" AS "objectId" FROM "dp"."Object" AS "Object" WHERE list_transform([qe_cell("Object"."_healpix_29", 29)], lambda c: CASE WHEN c < 2882303761517117440 THEN (c >= 0 AND c < 1729382256910270464) ELSE (c >= 2882303761517117440 AND c < 2954361355555045376) END)[1];

-- The position of another table is not stored.
SELECT sourceId FROM dp.Source WHERE CONTAINS(POINT(ra, dec), MOC('0/0-5')) = 1;
SELECT "Source"."sourceId" AS "sourceId" FROM "dp"."Source" AS "Source" WHERE list_transform([qe_healpix(29, "Source"."ra", "Source"."dec")], lambda c: (c >= 0 AND c < 1729382256910270464))[1];
