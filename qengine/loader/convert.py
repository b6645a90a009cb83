"""Positions that are not ICRS degrees: found in the metadata of inputs, refused, or converted when the load asks for it.

What an input says of its position columns counts: the unit of a field, a UCD of galactic or ecliptic coordinates, the word `frame`
in a field's metadata; where it says nothing, the sidecar does ([position] frame, unit). All but degrees and ICRS are refused,
because every cell, region and distance would be wrong. A load that converts stores ICRS degrees, and keeps what the input had: the
originals of equatorial coordinates under their name with `_original` behind it; galactic and ecliptic ones under their own names,
beside new columns `ra` and `dec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qengine.catalog.schema import column_of
from qengine.errors import InputError
from qengine.loader.quality import to_float64

ORIGINAL = "_original"
EQUATORIAL = ("icrs", "fk5", "fk4")

_UNITS = {
    "": "", "deg": "deg", "degree": "deg", "degrees": "deg", "rad": "rad", "radian": "rad", "radians": "rad", "hour": "hour",
    "hours": "hour", "h": "hour", "hr": "hour", "hourangle": "hour", "hms": "hour",
}  # fmt: skip
_TO_DEG = {"deg": 1.0, "rad": float(np.degrees(1.0)), "hour": 15.0}
_FRAMES = {
    "fk5": "fk5",
    "j2000": "fk5",
    "fk4": "fk4",
    "b1950": "fk4",
    "icrs": "icrs",
    "galactic": "galactic",
    "ecliptic": "ecliptic",
}
_ASTROPY = {"fk5": "fk5", "fk4": "fk4", "galactic": "galactic", "ecliptic": "barycentricmeanecliptic"}
_RA = {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "Right ascension (ICRS)"}
_DEC = {"unit": "deg", "ucd": "pos.eq.dec;meta.main", "description": "Declination (ICRS)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What an input says of its positions: their columns, units (deg, rad, hour) and frame."""

    ra: str
    dec: str
    units: tuple[str, str]
    frame: str

    @property
    def is_stored(self) -> bool:
        """Say whether the position is ICRS degrees already."""
        return self.units == ("deg", "deg") and self.frame == "icrs"

    def to_text(self) -> str:
        frame = "" if self.frame == "icrs" else f" in {self.frame}"
        return f"{self.ra} and {self.dec} are in {' and '.join(dict.fromkeys(self.units))}{frame}"


def position_of(schema: pa.Schema, ra: str, dec: str, *, frame: str, unit: str, where: str) -> Position | None:
    """Return what the fields of an input say of the position, None if they are not there.

    `frame` and `unit` are what the sidecar says. Raise `InputError` naming file and column where both speak and contradict each
    other, and for a unit that nobody knows.
    """
    if ra not in schema.names or dec not in schema.names:
        return None
    units, frames = [], []
    for name in (ra, dec):
        column = column_of(schema.field(name))
        said = _UNITS.get(column.unit.strip().lower())
        if said is None:
            raise InputError(
                f"{where}: column {name!r} is in {column.unit!r}, which is no unit of a position", hint="convert it to deg"
            )
        if said and unit != "deg" and said != unit:
            raise InputError(f"{where}: column {name!r} is in {said}, but the sidecar says {unit}", hint="correct one of them")
        units.append(said or unit)
        frames.append(_frame(schema.field(name), column.ucd))
    found = next((each for each in frames if each), frame)
    if frame not in ("icrs", found):
        raise InputError(f"{where}: positions are in {found}, but the sidecar says {frame}", hint="correct one of them")
    if units[1] == "hour":
        # A declination in hours does not exist: catalogues write "hours" of the right ascension into both.
        raise InputError(f"{where}: column {dec!r} is in hours, which declinations are not", hint="correct the unit in the input")
    return Position(ra=ra, dec=dec, units=(units[0], units[1]), frame=found)


def _frame(field: pa.Field, ucd: str) -> str:
    words = {key.decode(errors="replace").lower(): value.decode(errors="replace") for key, value in (field.metadata or {}).items()}
    said: str = words.get("frame", "").strip().lower()
    if said:
        return _FRAMES.get(said, said)
    return "galactic" if ucd.lower().startswith("pos.galactic") else "ecliptic" if ucd.lower().startswith("pos.ecliptic") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Makes ICRS degrees of the positions of an input. `ra` and `dec` name the columns that hold them; `originals` says what the
    input's own columns are called then."""

    position: Position
    ra: str
    dec: str
    originals: Mapping[str, str]

    @classmethod
    def of(cls, position: Position, schema: pa.Schema, where: str) -> Conversion:
        """Return how to convert an input. Raise `InputError` if the names that it needs are taken."""
        if position.frame not in (*EQUATORIAL, *_ASTROPY):
            raise InputError(
                f"{where}: positions are in {position.frame}", hint=f"frames are {', '.join((*EQUATORIAL, *_ASTROPY))}"
            )
        if position.frame in EQUATORIAL:
            originals = {name: f"{name}{ORIGINAL}" for name in (position.ra, position.dec)}
            found = cls(position=position, ra=position.ra, dec=position.dec, originals=originals)
        else:
            found = cls(position=position, ra="ra", dec="dec", originals={position.ra: position.ra, position.dec: position.dec})
        taken = {name.lower() for name in schema.names if name not in (position.ra, position.dec)}
        for name in (found.ra, found.dec, *found.originals.values()):
            if name.lower() in taken:
                raise InputError(
                    f"{where}: the converted position needs the name {name!r}, which is taken", hint="rename that column"
                )
        return found

    def schema(self, given: pa.Schema) -> pa.Schema:
        """Return the columns of an input after the conversion: new ones stand where the old ones were, originals at the end."""
        fields, originals = [], []
        for field in given:
            if field.name not in self.originals:
                fields.append(field)
                continue
            is_ra = field.name == self.position.ra
            name, words = (self.ra, _RA) if is_ra else (self.dec, _DEC)
            own = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
            if name == field.name:
                words = {**own, **words, "description": own.get("description", words["description"])}
                own["ucd"] = own.get("ucd", "").removesuffix(";meta.main")
            own["unit"] = own.get("unit") or self.position.units[0 if is_ra else 1]
            own.pop("frame", None)
            fields.append(pa.field(name, pa.float64(), metadata=words))
            originals.append(pa.field(self.originals[field.name], field.type, metadata={k: v for k, v in own.items() if v}))
        return pa.schema([*fields, *originals])

    def needed(self, columns: list[str]) -> list[str]:
        """Return which columns of the input give `columns`."""
        back = {stored: name for name, stored in self.originals.items()}
        names: dict[str, None] = {}
        for name in columns:
            if name in (self.ra, self.dec):
                names |= dict.fromkeys((self.position.ra, self.position.dec))
            else:
                names[back.get(name, name)] = None
        return list(names)

    def column(self, rows: pa.RecordBatch, name: str, where: str) -> pa.Array | None:
        """Return a column of the converted rows, None if the input has it as it is."""
        if name in (self.ra, self.dec):
            lon, lat = (to_float64(rows.column(each), each, where) for each in (self.position.ra, self.position.dec))
            ra, dec = self.degrees(lon, lat)
            return pa.array(ra if name == self.ra else dec, from_pandas=True)
        back = {stored: given for given, stored in self.originals.items()}
        return rows.column(back[name]) if name in back else None

    def degrees(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ICRS degrees; what is no position stays what it is, so that the loader refuses or quarantines it."""
        ra, dec = (values * _TO_DEG[unit] for values, unit in zip((lon, lat), self.position.units, strict=True))
        if self.position.frame == "icrs":
            return ra, dec
        with np.errstate(invalid="ignore"):
            is_good = np.isfinite(ra) & (np.abs(dec) <= 90)
        if is_good.any():
            from astropy.coordinates import SkyCoord

            found = SkyCoord(ra[is_good], dec[is_good], unit="deg", frame=_ASTROPY[self.position.frame]).icrs
            ra[is_good], dec[is_good] = found.ra.deg, found.dec.deg
        return ra, dec
