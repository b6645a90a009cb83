-- class: aggregate, the brightest hundred
SELECT TOP 100 objectId, g_psfFlux FROM bench.Object ORDER BY g_psfFlux DESC, objectId
-- bare
SELECT objectId, g_psfFlux FROM bench.Object ORDER BY g_psfFlux DESC, objectId LIMIT 100
