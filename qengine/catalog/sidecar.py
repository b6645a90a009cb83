"""The sharding sidecar: what Felis cannot say about the tables of a schema.

`sharding.toml` lies beside the Felis file. All sections are optional; words that are not listed here are refused.

    [position]                    # of every table that has one
    frame = "icrs"                # the only frame that is stored
    epoch = 2016.0                # Julian year
    unit = "deg"                  # the only unit that is stored

    [motion]                      # columns of proper motions, of every table that has both
    pmra = "pmra"                 # times cos dec; their units say mas/yr or the like
    pmdec = "pmdec"

    [release]                     # what every result says about its rows
    title = "Data Preview 1"      # also: doi, citation, acknowledgement, licence, contact, date

    [tables.Object]               # by the name in the Felis file
    kind = "director"             # director | child | replicated
    key = "objectId"              # unique key; default: the primary key of the Felis file; "none" if there is no unique one
    ra = "coord_ra"               # own position, both or none; a director must have it
    dec = "coord_dec"
    rows_per_tile = 1_000_000     # optional
    margin_arcsec = 10.0          # optional, directors only
    frame = "icrs"                # epoch, frame: as in [position], for this table
    pmra = "pm_ra"                # pmra, pmdec: as in [motion], for this table
    pmdec = "pm_dec"

    [tables.ForcedSource]
    kind = "child"
    director = "Object"           # a director of the same schema
    director_key = "objectId"     # column of this table that holds the director's key
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qengine.catalog.model import Release, TableKind
from qengine.errors import SchemaError

_RELEASE = frozenset(Release.__dataclass_fields__)
_POSITION = frozenset({"frame", "epoch", "unit"})
_MOTION = frozenset({"pmra", "pmdec"})
_TABLE = frozenset(
    {"kind", "key", "ra", "dec", "director", "director_key", "rows_per_tile", "margin_arcsec", "frame", "epoch", *_MOTION}
)
NO_KEY = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a sidecar says about one table. `key` is None when it leaves that to the Felis file, empty when there is none."""

    kind: TableKind
    key: str | None = None
    ra: str = ""
    dec: str = ""
    director: str = ""
    director_key: str = ""
    rows_per_tile: int | None = None
    margin_arcsec: float | None = None
    frame: str = "icrs"
    epoch: float | None = None
    pmra: str = ""
    pmdec: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A whole sidecar: the tables by name, the columns of motions in tables that have them, and the release."""

    path: Path | None = None
    tables: Mapping[str, Layout] = field(default_factory=dict)
    motion: tuple[str, str] = ("", "")
    release: Release = field(default_factory=Release)


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar. Raise `SchemaError` naming file and word where it is not as described above."""
    try:
        words = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from error
    reader = _Reader(path)
    reader.known(words, {"position", "motion", "release", "tables"}, "")
    position = reader.section(words, "position", "")
    reader.known(position, _POSITION, "position")
    if reader.text(position, "unit", "position", default="deg") != "deg":
        raise reader.error("position.unit", "positions are stored in deg", hint="convert the columns")
    motion = reader.section(words, "motion", "")
    reader.known(motion, _MOTION, "motion")
    release = reader.section(words, "release", "")
    reader.known(release, _RELEASE, "release")
    tables = reader.section(words, "tables", "")
    return Sidecar(
        path=path,
        tables={name: _layout(reader, reader.section(tables, name, "tables"), position, f"tables.{name}") for name in tables},
        motion=_motion(reader, motion, "motion"),
        release=Release(**{name: reader.text(release, name, "release", default="") for name in release}),
    )


def _layout(reader: _Reader, words: Mapping[str, Any], position: Mapping[str, Any], where: str) -> Layout:
    reader.known(words, _TABLE, where)
    kinds = ", ".join(kind.value for kind in TableKind)
    try:
        kind = TableKind(words.get("kind"))
    except ValueError:
        raise reader.error(f"{where}.kind", f"must be one of {kinds}") from None
    if kind is TableKind.MATCH:
        raise reader.error(f"{where}.kind", "a match table names its two directors when it is loaded", "use --kind match")
    texts = {name: reader.text(words, name, where, default="") for name in ("ra", "dec", "director", "director_key")}
    key = reader.text(words, "key", where, default="") if "key" in words else None
    is_child = kind is TableKind.CHILD
    if bool(texts["ra"]) != bool(texts["dec"]) or (kind is TableKind.DIRECTOR and not texts["ra"]):
        raise reader.error(f"{where}.{'dec' if texts['ra'] else 'ra'}", "is missing: a position needs both ra and dec")
    for name in ("director", "director_key"):
        if bool(texts[name]) != is_child:
            raise reader.error(f"{where}.{name}", "is missing" if is_child else f"does not belong to a {kind.value}")
    frame = reader.text({**position, **words}, "frame", where, default="icrs").lower()
    if frame != "icrs":
        raise reader.error(f"{where}.frame", f"{frame} is not stored", hint="convert the positions to icrs")
    margin = reader.number(words, "margin_arcsec", where)
    if margin is not None and (margin < 0 or kind is not TableKind.DIRECTOR):
        raise reader.error(f"{where}.margin_arcsec", "must be a width of at least 0, of a director")
    rows = words.get("rows_per_tile")
    if rows is not None and (type(rows) is not int or rows < 1):
        raise reader.error(f"{where}.rows_per_tile", "must be a whole number of at least 1")
    pmra, pmdec = _motion(reader, words, where)
    return Layout(
        kind=kind, pmra=pmra, pmdec=pmdec, key="" if key == NO_KEY else key, rows_per_tile=rows, margin_arcsec=margin, frame=frame,
        epoch=reader.number({**position, **words}, "epoch", where), **texts,
    )  # fmt: skip


def _motion(reader: _Reader, words: Mapping[str, Any], where: str) -> tuple[str, str]:
    pmra, pmdec = (reader.text(words, name, where, default="") for name in ("pmra", "pmdec"))
    if bool(pmra) != bool(pmdec):
        raise reader.error(f"{where}.{'pmdec' if pmra else 'pmra'}", "is missing: a proper motion needs both pmra and pmdec")
    return pmra, pmdec


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes values of the right type out of TOML tables, and names file and word where they are not."""

    path: Path

    def error(self, word: str, message: str, hint: str = "") -> SchemaError:
        return SchemaError(f"{self.path}: {word}: {message}", hint=hint)

    def known(self, words: Mapping[str, Any], allowed: Collection[str], where: str) -> None:
        for word in words:
            if word not in allowed:
                name = f"{where}.{word}" if where else word
                raise self.error(name, "is not known", hint=f"known: {', '.join(sorted(allowed))}")

    def section(self, words: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
        found = words.get(name, {})
        if not isinstance(found, dict):
            raise self.error(f"{where}.{name}" if where else name, "must be a table")
        return found

    def text(self, words: Mapping[str, Any], name: str, where: str, *, default: str) -> str:
        found = words.get(name, default)
        if isinstance(found, dt.date):
            return found.isoformat()
        if not isinstance(found, str):
            raise self.error(f"{where}.{name}", "must be text")
        return found

    def number(self, words: Mapping[str, Any], name: str, where: str) -> float | None:
        found = words.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.error(f"{where}.{name}", "must be a number")
        return float(found)
