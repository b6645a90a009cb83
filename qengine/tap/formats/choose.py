"""Which formats there are, and which one a RESPONSEFORMAT means."""

from __future__ import annotations

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
    suffix="xml",
    writer=TableDataWriter,
    ivo_id=f"{_TAPREGEXT}#output-votable-td",
)
CSV = Format(media_type="text/csv;header=present", aliases=("csv", "text/csv"), suffix="csv", writer=CsvWriter)
TSV = Format(media_type="text/tab-separated-values", aliases=("tsv",), suffix="tsv", writer=TsvWriter)
PARQUET = Format(media_type="application/vnd.apache.parquet", aliases=("parquet",), suffix="parquet", writer=ParquetWriter)
ARROW = Format(media_type="application/vnd.apache.arrow.stream", aliases=("arrow",), suffix="arrow", writer=ArrowWriter)
FITS = Format(media_type="application/fits", aliases=("fits", "image/fits"), suffix="fits", writer=FitsWriter)
JSON = Format(media_type="application/json", aliases=("json", "text/json"), suffix="json", writer=JsonWriter)
ECSV = Format(media_type="text/csv;version=ecsv-1.0", aliases=("ecsv", "application/x-ecsv"), suffix="ecsv", writer=EcsvWriter)

FORMATS = (BINARY2, BINARY, TABLEDATA, CSV, TSV, ECSV, FITS, JSON, PARQUET, ARROW)


def find_format(requested: str) -> tuple[Format, str]:
    """Return the format that `requested` names and the Content-Type to answer with.

    A media type is echoed as it was asked for; a short name gives the format's own media type. Nothing means VOTable.
    Raise `QueryError` for a format that is not offered.
    """
    wanted = "".join(requested.split()).lower()
    if not wanted:
        return BINARY2, BINARY2.media_type
    for candidate in FORMATS:
        if wanted == candidate.media_type:
            return candidate, requested.strip()
        if wanted in candidate.aliases:
            is_media_type = wanted.split("/")[0] in ("text", "application")
            echoed = requested.strip() if is_media_type and candidate not in (CSV, ECSV) else candidate.media_type
            return candidate, echoed
    offered = ", ".join(candidate.aliases[0] for candidate in FORMATS)
    raise QueryError(f"RESPONSEFORMAT {requested!r} is not offered", hint=f"offered are {offered}")
