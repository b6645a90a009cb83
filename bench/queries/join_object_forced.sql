-- class: joinObjFSrc, keys and fluxes for a narrow range
SELECT o.objectId, f.psfFlux FROM bench.Object o JOIN bench.ForcedSource f ON f.objectId = o.objectId WHERE f.psfFlux BETWEEN 400 AND 400.05
