"""Inputs: what the rows of a catalogue came from.

An input is who it is (`label`, unique among those of a table whose rows are there) and which version of that (`version`). Its
rows carry `load` and `number` in the hidden columns `_load` and `_input`, which together name it in a table for all time.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """One input of a load, as the registry keeps it.

    `kind` is one of file, butler, query, hats and stream; `sha256` is of its bytes. Rows that were read are stored, quarantined,
    filtered (the load's `--filter`) or skipped (their key was there already). `coverage` are the ranges of the line that its
    rows lie in: start and stop in turn as little-endian int64, perhaps wider than the rows. `replaced_by` is the number of the
    load that took its rows away, None while they are there.
    """

    load: int
    catalog: str
    table: str
    number: int
    label: str
    version: str
    kind: str = "file"
    uri: str = ""
    sha256: str = ""
    bytes: int = 0
    rows_read: int = 0
    rows_stored: int = 0
    rows_quarantined: int = 0
    rows_filtered: int = 0
    rows_skipped: int = 0
    coverage: builtins.bytes = b""
    replaced_by: int | None = None
