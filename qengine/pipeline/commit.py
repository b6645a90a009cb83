"""`CatalogCommitTask`: the receipts of a pipeline become one snapshot of a catalogue.

It runs once for all data ids, after the tasks that contribute. All tables are published in one transaction or not at all. The
load's id follows from the output RUN, so running it again publishes nothing twice (`pipeline.gather`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsst.pex.config import Field, ListField
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base.connectionTypes import Input, Output

from qengine.errors import InputError
from qengine.loader.receipt import Receipt
from qengine.opening import open_store
from qengine.pipeline.gather import publish_receipts

if TYPE_CHECKING:
    from lsst.pipe.base import InputQuantizedConnection, OutputQuantizedConnection, QuantumContext


class CatalogCommitConnections(PipelineTaskConnections, dimensions=(), defaultTemplates={"name": "catalog"}):
    """Receipts of every dataset type that the configuration names, and the report."""

    report = Output(doc="What was published.", name="{name}_qengine_commit", storageClass="StructuredDataDict", dimensions=())

    def __init__(self, *, config: CatalogCommitConfig) -> None:
        super().__init__(config=config)
        for number, name in enumerate(config.receipts):
            dimensions = tuple(config.dimensions)
            connection = Input(
                doc="Receipts.", name=name, storageClass="StructuredDataDict", dimensions=dimensions, multiple=True, deferLoad=True
            )
            setattr(self, f"receipts{number}", dataclasses.replace(connection))


class CatalogCommitConfig(PipelineTaskConfig, pipelineConnections=CatalogCommitConnections):
    """Where receipts are published."""

    store = Field[str](doc="Directory of the store.")
    registry = Field[str](doc="Address of the registry's database; empty for the one in the store.", default="")
    receipts = ListField[str](doc="Dataset types of the receipts.", default=["object_qengine_receipt"])
    dimensions = ListField[str](doc="Dimensions of the receipts.", default=["skymap", "tract"])


class CatalogCommitTask(PipelineTask):
    """Publish all receipts of a run."""

    ConfigClass = CatalogCommitConfig
    _DefaultName = "catalogCommit"

    def runQuantum(
        self, butlerQC: QuantumContext, inputRefs: InputQuantizedConnection, outputRefs: OutputQuantizedConnection
    ) -> None:
        """Gather receipts and publish them as the load of the output RUN."""
        inputs = butlerQC.get(inputRefs)
        handles = [handle for _, found in sorted(inputs.items()) for handle in found]
        receipts = [Receipt.from_json(handle.get()) for handle in handles]
        outputs = self.run(receipts=receipts, outputRun=outputRefs.report.run)
        butlerQC.put(outputs, outputRefs)

    def run(self, *, receipts: list[Receipt], outputRun: str) -> Struct:
        """Publish receipts as the load of a RUN and return the report. Raise `QEngineError` if nothing could be published."""
        config: Any = self.config
        if not receipts:
            raise InputError(f"{outputRun}: no receipts to commit", hint="did the tasks that contribute run?")
        store, registry = open_store(Path(config.store), create=True, registry_url=config.registry or None)
        with registry:
            context = {"operation": "pipeline", "task": self.getName(), "receipts": len(receipts)}
            done = publish_receipts(receipts, outputRun, registry, store, context=context)
        for report in done.reports:
            self.log.info("%s", report.to_text())
        self.metadata["load"] = done.load.id
        self.metadata["snapshot"] = done.load.snapshot or 0
        reports = [report.to_json() for report in done.reports]
        return Struct(report={"load": done.load.id, "snapshot": done.load.snapshot, "run": outputRun, "tables": reports})
