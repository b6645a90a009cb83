"""The sharding sidecar: what Felis cannot say about the tables of a schema.

`sharding.toml` lies beside the Felis file, or names it. All sections are optional; words that are not listed here are refused.

    schema = "resource://lsst.sdm.schemas/dp1.yaml"   # the Felis file; without the word it is schema.yaml beside this file
    confirmed = true              # false: somebody still has to read what was proposed; nothing is loaded with it

    [position]                    # of every table that has one
    frame = "icrs"                # icrs | fk5 | fk4 | galactic | ecliptic: what the input has; all but icrs are converted
    epoch = 2016.0                # Julian year
    unit = "deg"                  # deg | rad | hour: of the input; ICRS degrees are what is stored

    [motion]                      # columns of proper motions, of every table that has both
    pmra = "pmra"                 # times cos dec; their units say mas/yr or the like
    pmdec = "pmdec"

    [time]                        # of the columns named in [tables.NAME.time], unless they say otherwise
    scale = "tai"                 # tai | utc | tdb | tt | tcb | tcg | ut1 | gps | local
    origin = "mjd"                # mjd | jd | unix, or a Julian date: the zero of numbers
    format = "mjd"                # mjd | jd | jyear | unix | iso

    [release]                     # what every result says about its rows
    title = "Data Preview 1"      # also: doi, citation, acknowledgement, licence, contact, date

    [tables.Object]               # by the name in the Felis file
    kind = "director"             # director | child | match | replicated | series
    line = "sky"                  # sky | hash (by the key, for directors that move) | time (series)
    key = "objectId"              # unique key; default: the primary key of the Felis file; "none" if there is no unique one
    ra = "coord_ra"               # own position, both or none; a director on the sky must have it
    dec = "coord_dec"
    rows_per_tile = 1_000_000     # optional, and so is bytes_per_tile
    margin_arcsec = 10.0          # optional, directors only
    frame = "icrs"                # epoch, frame, unit: as in [position], for this table
    pmra = "pm_ra"                # pmra, pmdec: as in [motion], for this table
    pmdec = "pm_dec"
    statistics = ["g_psfFlux"]    # columns whose bounds the manifest keeps; default: all that can have them
    index = ["visit"]             # columns with an index table
    time = { epoch_mjd = { scale = "tdb" } }          # columns that hold times, and what [time] does not say of them

    [tables.Object.quality]       # what a load must keep to
    action = "fail"               # fail | warn: what happens if it does not
    min_rows = 1000
    max_null_fraction = { coord_ra = 0.0, g_psfFlux = 0.2 }
    max_quarantined_fraction = 0.001                  # also: max_nan_fraction, max_orphaned_fraction
    max_orphaned_fraction = { limit = 0.1, action = "warn" }

    [tables.Object.virtual.g_mag] # a column that is computed when a statement names it
    expression = "CASE WHEN g_psfFlux > 0 THEN -2.5 * LOG10(g_psfFlux) + 31.4 END"    # ADQL
    unit = "mag"                  # also: ucd, utype, description

    [tables.Object.examples.bright]                   # what /examples shows of the table, beside what it makes itself
    title = "the brightest objects"
    query = "SELECT TOP 10 objectId, g_mag FROM {catalog}.Object ORDER BY g_mag"      # ADQL
    description = "by the magnitude in g"             # optional

    [tables.Object.links.light-curve]                 # what results that have the key lead to, by a DataLink service descriptor;
    title = "Light curve"                             # children need no link to be found: there is one for each
    query = "SELECT band, psfFlux FROM {catalog}.ForcedSource WHERE objectId = {key}" # ADQL
    description = "forced photometry at its place"    # optional

    [tables.ForcedSource]
    kind = "child"
    director = "Object"           # a director of the same schema
    director_key = "objectId"     # column of this table that holds the director's key

    [tables.MatchesTruth]
    kind = "match"
    left = "Object.match_objectId"                    # [CATALOG.]TABLE.COLUMN: a director, and the column of this table that
    right = "TruthSummary.id_truth_type"              # holds its key

    [tables.efd]
    kind = "series"
    line = "time"
    time_key = "timestamp"        # the column that places rows on the line

    [views.Bright]                # a table that is a SELECT
    sql = "SELECT * FROM Object WHERE g_mag < 20"     # ADQL; names without a catalogue are of this schema
    description = "Objects brighter than 20 in g"
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qengine.catalog.model import LINES, SKY_LINE, Example, Link, Release, TableKind, Threshold, TimeSystem
from qengine.catalog.words import Words

NO_KEY = "none"
FRAMES = ("icrs", "fk5", "fk4", "galactic", "ecliptic")
UNITS = ("deg", "rad", "hour")
SCALES = ("tai", "utc", "tdb", "tt", "tcb", "tcg", "ut1", "gps", "local")
FORMATS = ("", "mjd", "jd", "jyear", "unix", "iso")
_DATES = ("iso", "jyear")
ORIGINS = {"jd": 0.0, "mjd": 2_400_000.5, "unix": 2_440_587.5}
FRACTIONS = ("max_null_fraction", "max_nan_fraction", "max_quarantined_fraction", "max_orphaned_fraction")
MEASURES = ("min_rows", *FRACTIONS)
PER_COLUMN = ("max_null_fraction", "max_nan_fraction")

_FILE = ("schema", "confirmed", "position", "motion", "time", "release", "tables", "views")
_POSITION = ("frame", "epoch", "unit")
_MOTION = ("pmra", "pmdec")
_TIME = ("scale", "origin", "format")
_RELEASE = frozenset(Release.__dataclass_fields__)
_VIRTUAL = ("expression", "unit", "ucd", "utype", "description")
_TABLE = (
    "kind", "line", "key", "ra", "dec", "director", "director_key", "left", "right", "time_key", "rows_per_tile", "bytes_per_tile",
    "margin_arcsec", "statistics", "index", "time", "quality", "virtual", "examples", "links", *_POSITION, *_MOTION,
)  # fmt: skip
_SHOWN = ("title", "query", "description")
_CHILD = ("director", "director_key")
_SIDES = ("left", "right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Virtual:
    """A column that is computed: ADQL over the columns of its table, and what is said about it."""

    name: str
    expression: str
    unit: str = ""
    ucd: str = ""
    utype: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A table that is a SELECT."""

    name: str
    sql: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a sidecar says about one table. `key` is None when it leaves that to the Felis file, empty when there is none. `frame`
    and `unit` are those of the input's positions."""

    kind: TableKind
    line: str = SKY_LINE
    key: str | None = None
    ra: str = ""
    dec: str = ""
    director: str = ""
    director_key: str = ""
    left: str = ""
    right: str = ""
    time_key: str = ""
    rows_per_tile: int | None = None
    bytes_per_tile: int | None = None
    margin_arcsec: float | None = None
    frame: str = "icrs"
    unit: str = "deg"
    epoch: float | None = None
    pmra: str = ""
    pmdec: str = ""
    statistics: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    times: tuple[TimeSystem, ...] = ()
    quality: tuple[Threshold, ...] = ()
    virtual: tuple[Virtual, ...] = ()
    examples: tuple[Example, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A whole sidecar: the tables and views by name, the columns of motions in tables that have them, the release, and where the
    Felis file is (empty: beside it)."""

    path: Path | None = None
    schema: str = ""
    is_confirmed: bool = True
    tables: Mapping[str, Layout] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    motion: tuple[str, str] = ("", "")
    release: Release = field(default_factory=Release)


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar. Raise `SchemaError` naming file and word where it is not as described above."""
    words = Words.read(path)
    words.known(_FILE)
    position, motion, time = words.section("position"), words.section("motion"), words.section("time")
    position.known(_POSITION)
    motion.known(_MOTION)
    time.known(_TIME)
    _time("", time, time)
    release = words.section("release")
    release.known(_RELEASE)
    views = words.sections("views")
    return Sidecar(
        path=path,
        schema=words.text("schema"),
        is_confirmed=words.truth("confirmed", default=True),
        tables={name: _layout(table, position, time) for name, table in words.sections("tables").items()},
        views={name: _view(name, view) for name, view in views.items()},
        motion=_motion(motion),
        release=Release(**{name: release.text(name) for name in release.content}),
    )


def _layout(words: Words, position: Words, time: Words) -> Layout:
    words.known(_TABLE)
    kind = TableKind(words.choice("kind", [kind.value for kind in TableKind]))
    line = words.choice("line", LINES, "time" if kind is TableKind.SERIES else SKY_LINE)
    texts = {name: words.text(name) for name in ("ra", "dec", *_CHILD, *_SIDES, "time_key")}
    key = words.text("key") if "key" in words.content else None
    needs_position = kind is TableKind.DIRECTOR and line == SKY_LINE
    if bool(texts["ra"]) != bool(texts["dec"]) or (needs_position and not texts["ra"]):
        raise words.error("dec" if texts["ra"] else "ra", "is missing: a position needs both ra and dec")
    if line != SKY_LINE and kind is TableKind.DIRECTOR and key in ("", NO_KEY):
        raise words.error("key", f"is missing: the line {line} is made of it")
    if (kind is TableKind.SERIES) != (line == "time"):
        raise words.error("line", "a series lies on the line of times, and nothing else does")
    roles = {**dict.fromkeys(_CHILD, TableKind.CHILD), **dict.fromkeys(_SIDES, TableKind.MATCH), "time_key": TableKind.SERIES}
    for name, owner in roles.items():
        if bool(texts[name]) != (kind is owner):
            raise words.error(name, "is missing" if kind is owner else f"does not belong to a {kind.value}")
    margin = words.number("margin_arcsec")
    if margin is not None and (margin < 0 or kind is not TableKind.DIRECTOR):
        raise words.error("margin_arcsec", "must be a width of at least 0, of a director")
    placed = Words(words.path, words.where, {**position.content, **words.content})
    pmra, pmdec = _motion(words)
    return Layout(
        kind=kind, line=line, key="" if key == NO_KEY else key, pmra=pmra, pmdec=pmdec, margin_arcsec=margin,
        rows_per_tile=words.count("rows_per_tile"), bytes_per_tile=words.count("bytes_per_tile"),
        frame=_lower(placed, "frame", "icrs").choice("frame", FRAMES), unit=_lower(placed, "unit", "deg").choice("unit", UNITS),
        epoch=placed.number("epoch"), statistics=words.texts("statistics"), index=words.texts("index"),
        times=tuple(_time(name, each, time) for name, each in words.sections("time").items()),
        quality=tuple(_thresholds(words.section("quality"))),
        virtual=tuple(_virtual(name, each) for name, each in words.sections("virtual").items()),
        examples=tuple(Example(name=name, **_shown(each)) for name, each in words.sections("examples").items()),
        links=tuple(Link(name=name, **_shown(each)) for name, each in words.sections("links").items()), **texts,
    )  # fmt: skip


def _lower(words: Words, name: str, default: str) -> Words:
    return Words(words.path, words.where, {**words.content, name: words.text(name, default).lower()})


def _motion(words: Words) -> tuple[str, str]:
    pmra, pmdec = (words.text(name) for name in _MOTION)
    if bool(pmra) != bool(pmdec):
        raise words.error("pmdec" if pmra else "pmra", "is missing: a proper motion needs both pmra and pmdec")
    return pmra, pmdec


def _time(column: str, words: Words, default: Words) -> TimeSystem:
    words.known(_TIME)
    both = Words(words.path, words.where, {**default.content, **words.content})
    origin = both.content.get("origin")
    if isinstance(origin, str):
        origin = ORIGINS[_lower(both, "origin", "").choice("origin", tuple(ORIGINS))]
    else:
        origin = both.number("origin")
    scale = _lower(both, "scale", "utc").choice("scale", SCALES)
    form = _lower(both, "format", "").choice("format", FORMATS)
    # What is written as a date counts from no zero.
    return TimeSystem(column=column, scale=scale.upper(), origin=None if form in _DATES else origin, form=form)


def _thresholds(words: Words) -> list[Threshold]:
    words.known(("action", *MEASURES))
    usual = words.choice("action", ("fail", "warn"), "fail")
    found = []
    for measure in MEASURES:
        if measure not in words.content:
            continue
        inner = words.section(measure) if isinstance(words.content[measure], dict) else None
        if inner is None:
            found.append(_threshold(measure, words, measure, usual))
        elif "limit" in inner.content:
            inner.known(("limit", "action"))
            found.append(_threshold(measure, inner, "limit", inner.choice("action", ("fail", "warn"), usual)))
        elif measure in PER_COLUMN:
            found += [dataclasses.replace(_threshold(measure, inner, name, usual), column=name) for name in inner.content]
        else:
            raise words.error(measure, "is of the whole table, not of a column")
    return found


def _threshold(measure: str, words: Words, name: str, action: str) -> Threshold:
    limit = words.number(name)
    if limit is None or limit < 0 or (measure in FRACTIONS and limit > 1):
        raise words.error(name, "must be a fraction, 0 to 1" if measure in FRACTIONS else "must be a number of rows")
    return Threshold(measure=measure, limit=limit, is_fatal=action == "fail")


def _virtual(name: str, words: Words) -> Virtual:
    words.known(_VIRTUAL)
    if not words.text("expression").strip():
        raise words.error("expression", "is missing")
    return Virtual(name=name, **{word: words.text(word) for word in _VIRTUAL})


def _shown(words: Words) -> dict[str, str]:
    words.known(_SHOWN)
    for word in ("title", "query"):
        if not words.text(word).strip():
            raise words.error(word, "is missing")
    return {word: words.text(word).strip() for word in _SHOWN}


def _view(name: str, words: Words) -> View:
    words.known(("sql", "description"))
    if not words.text("sql").strip():
        raise words.error("sql", "is missing")
    return View(name=name, sql=words.text("sql"), description=words.text("description"))
