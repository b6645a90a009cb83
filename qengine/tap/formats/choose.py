"""Which formats there are, and which one a RESPONSEFORMAT means, or an Accept header where there is none."""

from __future__ import annotations

from contextlib import suppress

from qengine.errors import QueryError
from qengine.tap.formats.columnar import ArrowWriter, ParquetWriter
from qengine.tap.formats.delimited import CsvWriter, TsvWriter
from qengine.tap.formats.ecsv import EcsvWriter
from qengine.tap.formats.fits import FitsWriter
from qengine.tap.formats.json_rows import JsonWriter
from qengine.tap.formats.votable import Binary2Writer, BinaryWriter, TableDataWriter
from qengine.tap.formats.writer import Format

_TAPREGEXT = "ivo://ivoa.net/std/TAPRegExt"

BINARY2 = Format(
    media_type="application/x-votable+xml",
    aliases=("votable", "votable/b2", "votable/binary2", "text/xml", "application/x-votable+xml;serialization=binary2"),
    also=("vot", "application/xml"),
    suffix="xml",
    writer=Binary2Writer,
    ivo_id=f"{_TAPREGEXT}#output-votable-binary2",
)
BINARY = Format(
    media_type="application/x-votable+xml;serialization=binary",
    aliases=("votable/b", "votable/binary"),
    suffix="xml",
    writer=BinaryWriter,
    ivo_id=f"{_TAPREGEXT}#output-votable-binary",
)
TABLEDATA = Format(
    media_type="application/x-votable+xml;serialization=tabledata",
    aliases=("votable/td", "votable/tabledata"),
    also=("votabletd", "votable_plain"),
    suffix="xml",
    writer=TableDataWriter,
    ivo_id=f"{_TAPREGEXT}#output-votable-td",
)
CSV = Format(media_type="text/csv;header=present", aliases=("csv", "text/csv"), suffix="csv", writer=CsvWriter)
TSV = Format(media_type="text/tab-separated-values", aliases=("tsv",), suffix="tsv", writer=TsvWriter)
PARQUET = Format(
    media_type="application/vnd.apache.parquet",
    aliases=("parquet",),
    also=("application/parquet", "application/x-parquet"),
    suffix="parquet",
    writer=ParquetWriter,
)
ARROW = Format(media_type="application/vnd.apache.arrow.stream", aliases=("arrow",), suffix="arrow", writer=ArrowWriter)
FITS = Format(media_type="application/fits", aliases=("fits", "image/fits"), suffix="fits", writer=FitsWriter)
JSON = Format(media_type="application/json", aliases=("json", "text/json"), suffix="json", writer=JsonWriter)
ECSV = Format(media_type="text/csv;version=ecsv-1.0", aliases=("ecsv", "application/x-ecsv"), suffix="ecsv", writer=EcsvWriter)

FORMATS = (BINARY2, BINARY, TABLEDATA, CSV, TSV, ECSV, FITS, JSON, PARQUET, ARROW)

_SAID_ANYWAY = ("charset=utf-8", "charset=utf8", "header=present")
"""Parameters of media types that all formats meet for which they have a meaning."""


def find_format(requested: str) -> tuple[Format, str]:
    """Return the format that `requested` names and the Content-Type to answer with.

    A media type is echoed as it was asked for; a short name gives the format's own media type. Nothing means VOTable.
    Raise `QueryError` for a format that is not offered.
    """
    wanted = _plain(requested)
    if not wanted:
        return BINARY2, BINARY2.media_type
    for candidate in FORMATS:
        if wanted in map(_plain, (candidate.media_type, *candidate.aliases, *candidate.also)):
            spelled = " ".join(requested.split())
            is_media_type = wanted.split("/")[0] in ("text", "application")
            # That there is a header has to be said, and that a text is ECSV.
            is_whole = "header" in spelled.lower() if candidate is CSV else candidate is not ECSV or "version" in spelled.lower()
            return candidate, spelled if is_media_type and is_whole else candidate.media_type
    offered = ", ".join(candidate.aliases[0] for candidate in FORMATS)
    raise QueryError(f"RESPONSEFORMAT {requested!r} is not offered", hint=f"offered are {offered}")


def accepted(header: str) -> str:
    """Return the media type that an Accept header likes best of those that are offered; empty if it leaves the choice to us."""
    ranges = []
    for piece in header.split(","):
        parts = [part.strip() for part in piece.split(";")]
        weights = [part[2:] for part in parts if part.lower().startswith("q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            weight = 0.0
        ranges.append((weight, ";".join(part for part in parts if not part.lower().startswith("q="))))
    for weight, media_type in sorted(ranges, key=lambda one: -one[0]):
        if weight <= 0 or "*" in media_type:
            break
        if "/" in media_type:
            with suppress(QueryError):
                find_format(media_type)
                return media_type
    return ""


def _plain(requested: str) -> str:
    """Return a media type or a name without what makes no difference."""
    name, *parameters = "".join(requested.split()).lower().replace('"', "").split(";")
    return ";".join((name, *(one for one in parameters if one and one not in _SAID_ANYWAY)))
