-- class: children, five children of each object and a cut that keeps one percent of them
SELECT o.objectId, o.coord_ra, o.coord_dec, s.sourceId, s.psfFlux FROM bench.Object o JOIN bench.SourceAssoc s ON s.objectId = o.objectId WHERE s.visit BETWEEN 2024110800000 AND 2024110800017
