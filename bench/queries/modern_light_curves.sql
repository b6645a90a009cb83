-- class: modern, forced photometry of the bright objects of a small box
SELECT o.objectId, f.visit, f.band, f.psfFlux, f.psfFluxErr FROM bench.Object o JOIN bench.ForcedSource f ON f.objectId = o.objectId WHERE o.coord_ra BETWEEN 53.0 AND 53.2 AND o.coord_dec BETWEEN -28.2 AND -28.0 AND o.r_psfFlux > 5000
