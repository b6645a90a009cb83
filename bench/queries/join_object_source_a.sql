-- class: joinObjSrc, positions for a narrow range of the child flux
SELECT o.objectId, o.coord_ra, o.coord_dec, s.sourceId FROM bench.Object o JOIN bench.SourceAssoc s ON s.objectId = o.objectId WHERE s.psfFlux BETWEEN 400 AND 400.05
