"""One column of a result: what binding decides about it, and what formats and clients show."""

from __future__ import annotations

from dataclasses import dataclass

from qengine.catalog.types import SqlType


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """Name, type and metadata of a result column; empty strings mean that nothing is known."""

    name: str
    type: SqlType
    unit: str = ""
    ucd: str = ""
    utype: str = ""
    description: str = ""
