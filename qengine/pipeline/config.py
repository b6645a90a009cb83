"""What a contribution asks for, as a configuration of a task: the words of `qengine load`."""

from __future__ import annotations

from pathlib import Path

from lsst.pex.config import ChoiceField, Config, Field

from qengine.catalog.model import TableKind
from qengine.loader.request import ExtraColumns, LoadRequest, OnDuplicate


class LoadConfig(Config):
    """Into which table rows go, and how. What is empty is found as `qengine load` finds it."""

    catalog = Field[str](doc="Catalogue to load into.", default="")
    table = Field[str](doc="Name of the table.", default="")
    kind = ChoiceField[str](
        doc="How rows find their place; the schema may say it.",
        allowed={kind.value: kind.name for kind in TableKind},
        optional=True,
    )
    key = Field[str](doc="Column with the unique key; empty if there is none, unset to ask the schema.", optional=True)
    ra = Field[str](doc="Column with the right ascension, ICRS degrees.", default="")
    dec = Field[str](doc="Column with the declination, ICRS degrees.", default="")
    director = Field[str](doc="Director table of a child.", default="")
    directorKey = Field[str](doc="Column of a child that holds the director's key.", default="")
    left = Field[str](doc="Of a match table: one director and the column with its keys.", default="")
    right = Field[str](doc="Of a match table: the other director and column.", default="")
    schema = Field[str](doc="Felis file or resource:// address.", default="")
    rowsPerTile = Field[int](doc="Most rows in a tile.", optional=True)
    marginArcsec = Field[float](doc="Width of the margins around tiles; 0 writes none.", optional=True)
    filter = Field[str](doc="SQL condition on the columns: rows for which it is not true are left out, and counted.", default="")
    onDuplicate = ChoiceField[str](
        doc="What happens to a row whose key is in the table already.",
        allowed={one.value: one.name for one in OnDuplicate},
        default=OnDuplicate.ERROR.value,
    )
    extraColumns = ChoiceField[str](
        doc="What happens to columns that the table does not have.",
        allowed={one.value: one.name for one in ExtraColumns},
        default=ExtraColumns.ERROR.value,
    )
    allowOrphans = Field[bool](doc="Let children stay whose director a replaced input takes away.", default=False)

    def validate(self) -> None:
        super().validate()
        for name in ("catalog", "table"):
            if not getattr(self, name):
                raise ValueError(f"load.{name} is not set")


def to_request(config: LoadConfig) -> LoadRequest:
    """Return what the configuration asks for."""
    return LoadRequest(
        catalog=config.catalog, table=config.table, kind=TableKind(config.kind) if config.kind else None, key=config.key,
        ra=config.ra, dec=config.dec, director=config.director, director_key=config.directorKey, left=config.left,
        right=config.right, schema=_schema(config.schema), rows_per_tile=config.rowsPerTile, margin_arcsec=config.marginArcsec,
        filter=config.filter, on_duplicate=OnDuplicate(config.onDuplicate), extra_columns=ExtraColumns(config.extraColumns),
        allow_orphans=config.allowOrphans,
    )  # fmt: skip


def _schema(name: str) -> Path | None:
    return Path(name) if name else None
