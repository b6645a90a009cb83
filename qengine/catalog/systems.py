"""In which frame the positions of a table are, and by which clock its times: words that travel with a column to the formats.

COOSYS ICRS J2016.0         a coordinate of a position, with the epoch if one is declared
TIMESYS TAI 2400000.5       a time: its scale, and the Julian date of zero (none for dates)
"""

from __future__ import annotations

from dataclasses import replace

from qengine.catalog.model import Table

POSITION = "COOSYS"
TIME = "TIMESYS"


def with_systems(table: Table) -> Table:
    """Return the table with the system of each of its columns of positions, motions and times."""
    epoch = f" J{table.epoch}" if table.epoch is not None else ""
    found = {name: f"{POSITION} {table.frame.upper()}{epoch}" for name in (table.ra, table.dec, table.pmra, table.pmdec) if name}
    for time in table.times:
        found[time.column] = f"{TIME} {time.scale}" + (f" {time.origin!r}" if time.origin is not None else "")
    columns = (replace(c, system=system) if c.system != (system := found.get(c.name, "")) else c for c in table.columns)
    return replace(table, columns=tuple(columns))
