"""`CatalogContributeTask`: a table that the pipeline has written becomes a contribution to a catalogue.

The file is checked where it lies (it can be read, its columns are known, its sha256 is computed) and a receipt is put into the
Butler. Rows are read when the catalogue is committed, so the dataset must stay until then. The input's label is the dataset type
and the data id, its version the UUID: a tract that is made again replaces its rows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lsst.pex.config import ConfigField, Field, ListField
from lsst.pipe.base import NoWorkFound, PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base.connectionTypes import Input, Output

from qengine.loader.receipt import receive
from qengine.loader.sources.butler import dataset_of, open_dataset
from qengine.pipeline.config import LoadConfig, to_request

if TYPE_CHECKING:
    from lsst.daf.butler import DeferredDatasetHandle

RECEIPT = "{inputName}_qengine_receipt"
"""Dataset type of receipts, a template."""


class CatalogContributeConnections(
    PipelineTaskConnections, dimensions=("skymap", "tract"), defaultTemplates={"inputName": "object"}
):
    """The table and its receipt; both have the dimensions of the configuration."""

    table = Input(
        doc="Table in Parquet.", name="{inputName}", storageClass="ArrowTable", dimensions=("skymap", "tract"), deferLoad=True
    )
    receipt = Output(
        doc="What the catalogue has to know of the table.", name=RECEIPT, storageClass="StructuredDataDict",
        dimensions=("skymap", "tract"),
    )  # fmt: skip

    def __init__(self, *, config: CatalogContributeConfig) -> None:
        super().__init__(config=config)
        dimensions = tuple(config.dimensions)
        self.dimensions = set(dimensions)
        self.table = dataclasses.replace(self.table, dimensions=dimensions, storageClass=config.storageClass)
        self.receipt = dataclasses.replace(self.receipt, dimensions=dimensions)


class CatalogContributeConfig(PipelineTaskConfig, pipelineConnections=CatalogContributeConnections):
    """How tables are contributed."""

    load: Any = ConfigField(doc="Into which table rows go, and how.", dtype=LoadConfig)
    dimensions = ListField[str](doc="Dimensions of the tables: of a tract, a patch, a visit, ..", default=["skymap", "tract"])
    storageClass = Field[str](doc="Storage class of the tables.", default="ArrowAstropy")
    isEmptyAllowed = Field[bool](doc="Whether a table without rows is a contribution, too, or no work.", default=True)


class CatalogContributeTask(PipelineTask):
    """Make the receipt of one table."""

    ConfigClass = CatalogContributeConfig
    _DefaultName = "catalogContribute"

    def run(self, *, table: DeferredDatasetHandle) -> Struct:
        """Return the receipt of the table. Raise `QEngineError` if it cannot be loaded so."""
        config: Any = self.config
        source = open_dataset(dataset_of(table.butler, table.ref))
        if not source.rows and not config.isEmptyAllowed:
            raise NoWorkFound(f"{source.name} has no rows")
        receipt = receive(to_request(config.load), [source], contributor=f"{table.ref.run} {self.getName()}")
        self.log.info("%s: %d rows, %d columns, sha256 %s", source.identity.label, source.rows, len(source.schema), source.sha256())
        self.metadata["rows"] = source.rows
        self.metadata["bytes"] = source.identity.bytes
        self.metadata["sha256"] = source.sha256()
        return Struct(receipt=receipt.to_json())
