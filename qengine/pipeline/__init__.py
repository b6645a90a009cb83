"""Tasks for Rubin's pipelines that load what a pipeline makes (extra `[rubin]`).

`CatalogContributeTask` runs once per tract, patch or visit, wherever the pipeline runs: it looks at a table that an earlier task
has written, and its output is a receipt, a dataset of the Butler. It needs no access to the catalogue. `CatalogCommitTask` runs
once: it gathers the receipts of all tables and publishes them in one transaction of the catalogue, whose load has its id from the
output RUN.

    tasks:
      contributeObject:
        class: qengine.pipeline.contribute.CatalogContributeTask
        config: {load.catalog: dp1, load.table: Object, load.key: objectId, connections.inputName: object}
      commitCatalog:
        class: qengine.pipeline.commit.CatalogCommitTask
        config: {store: /data/qengine, receipts: [object_qengine_receipt]}
"""
