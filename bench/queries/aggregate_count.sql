-- class: aggregate, all rows
SELECT COUNT(*) AS n FROM bench.Object
