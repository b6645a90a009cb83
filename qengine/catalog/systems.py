"""In which frame the positions of a table are, and by which clock its times: words that travel with a column to the formats.

COOSYS ICRS J2016.0             a coordinate of a position: its frame, epoch and equinox
TIMESYS TAI 2400000.5           a time: its scale, the Julian date of zero (none for dates) and where the clock is

What is not known is `-`, and left out at the end. The words are those of VOTable 1.4, sections 3.1 and 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from qengine.catalog.model import Table

POSITION = "COOSYS"
TIME = "TIMESYS"

_FRAMES = {
    "icrs": "ICRS", "eq_fk4": "eq_FK4", "eq_fk5": "eq_FK5", "ecl_fk4": "ecl_FK4", "ecl_fk5": "ecl_FK5", "galactic": "galactic",
    "supergalactic": "supergalactic", "fk4": "eq_FK4", "fk5": "eq_FK5", "ecliptic": "ecl_FK5", "super_galactic": "supergalactic",
}  # fmt: skip
"""Frames as VOTable 1.4 and the vocabulary of later versions call them, in lower case -> those of VOTable 1.4."""
_ORIGINS = {"MJD-origin": "2400000.5", "JD-origin": "0.0"}
"""Words of VOTable for zeros of times."""
_YEAR = re.compile(r"[JB]?[0-9]+([.][0-9]*)?")
_DAY = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NAME = re.compile(r"\w+", re.ASCII)
_UNKNOWN = "-"


def with_systems(table: Table) -> Table:
    """Return the table with the system of each of its columns of positions, motions and times. Others keep what the input said."""
    epoch = f"J{table.epoch}" if table.epoch is not None else ""
    found = {name: _words(POSITION, table.frame.upper(), epoch) for name in (table.ra, table.dec, table.pmra, table.pmdec) if name}
    for time in table.times:
        found[time.column] = _words(TIME, time.scale, repr(time.origin) if time.origin is not None else "")
    columns = (replace(c, system=system) if c.system != (system := found.get(c.name, c.system)) else c for c in table.columns)
    return replace(table, columns=tuple(columns))


def from_element(tag: str, attributes: Mapping[str, str]) -> str:
    """Return the words for a COOSYS or TIMESYS element, empty if it says nothing that can be said again."""

    def given(name: str, form: re.Pattern[str]) -> str:
        text = attributes.get(name, "").strip()
        return text if form.fullmatch(text) else ""

    if tag == POSITION:
        frame = _FRAMES.get(attributes.get("system", "eq_FK5").strip().lower(), "")
        return _words(POSITION, frame, given("epoch", _YEAR), given("equinox", _YEAR)) if frame else ""
    scale, text = given("timescale", _NAME), attributes.get("timeorigin", "").strip()
    origin = _ORIGINS.get(text) or given("timeorigin", _DAY)
    return _words(TIME, scale, origin, given("refposition", _NAME)) if scale and (origin or not text) else ""


def to_element(system: str) -> tuple[str, dict[str, str]]:
    """Return the element, COOSYS or TIMESYS, that says the words of a column, and its attributes without an ID."""
    kind, name, *more = system.split()
    first, second = ("" if word == _UNKNOWN else word for word in (*more, "", "")[:2])
    if kind == POSITION:
        pairs = {"system": _FRAMES.get(name.lower(), name), "epoch": first, "equinox": second}
    else:
        origin = next((word for word, day in _ORIGINS.items() if day == first), first)
        pairs = {"timescale": name, "refposition": second or "UNKNOWN", "timeorigin": origin}
    return kind, {key: value for key, value in pairs.items() if value}


def checked(system: str) -> str:
    """Return the words of a column as a stranger's file has them, empty if they are none."""
    return from_element(*to_element(system)) if system.startswith((f"{POSITION} ", f"{TIME} ")) and system.split()[1:] else ""


def _words(*words: str) -> str:
    text = " ".join(word or _UNKNOWN for word in words)
    while text.endswith(f" {_UNKNOWN}"):
        text = text.removesuffix(f" {_UNKNOWN}")
    return text
