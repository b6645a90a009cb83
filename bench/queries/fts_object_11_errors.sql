-- class: FTSObj, ids in a range of an error column
SELECT objectId, g_psfFluxErr FROM bench.Object WHERE g_psfFluxErr BETWEEN 50 AND 70
