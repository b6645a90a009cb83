"""What a stranger has sent, looked at before anything else reads it.

Nobody says truly what an upload is (curl sends octet-stream), so its first bytes do. It is then made harmless, step by step: gzip
is unpacked under a limit of bytes; a VOTable goes through expat once, which only counts: no DOCTYPE and so no entities, elements
only so deep, attributes only so many and so long, one markup only so large, columns only so many. Memory does not grow with the
document, since expat is asked after each piece how far it has come: markup that does not end is refused long before it is whole.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from qengine.errors import UploadError

_BLOCK = 1 << 16
_GZIP = b"\x1f\x8b"
_MAGIC = (
    (b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"SIMPLE  =", "fits"), (b"# %ECSV", "ecsv"),
    (b"<", "votable"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """What one upload may be. `bytes` bounds what was sent and what that is when it is unpacked, each; `memory_bytes` its rows in
    memory. `markup_bytes` bounds one tag with all its attributes.

    A request may name so many `tables`. One at an address must be there within `fetch_s`, and something of it every `idle_s`; it is
    read from public addresses and from `networks`, such as 10.1.0.0/16.
    """

    rows: int = 1_000_000
    bytes: int = 256 << 20
    memory_bytes: int = 512 << 20
    columns: int = 1000
    depth: int = 32
    attributes: int = 64
    attribute_letters: int = 65_536
    markup_bytes: int = 1 << 20
    tables: int = 16
    networks: tuple[str, ...] = ()
    fetch_s: float = 300.0
    idle_s: float = 20.0


def unpack(source: Path, target: Path, name: str, limits: UploadLimits) -> Path:
    """Return the path of the plain bytes: `source`, or `target` with what gzip had packed. Raise `UploadError`."""
    if source.stat().st_size > limits.bytes:
        raise too_large(name, limits)
    with source.open("rb") as packed:
        first = packed.read(2)
    if not first:
        raise UploadError(f"upload {name}: it is empty", hint="was the file sent to the end?")
    if first != _GZIP:
        return source
    written = 0
    try:
        with gzip.open(source, "rb") as stream, target.open("wb") as plain:
            while piece := stream.read(_BLOCK):
                written += len(piece)
                if written > limits.bytes:
                    raise too_large(name, limits)
                plain.write(piece)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UploadError(
            f"upload {name}: gzip, after {written:,} bytes: {error}", hint="the file may be truncated or damaged"
        ) from error
    if not written:
        raise UploadError(f"upload {name}: it is empty", hint="was the file sent to the end?")
    return target


def sniff(path: Path) -> str:
    """Return the format of a file by its first bytes: one of the loader's names; a delimited text if it is nothing else."""
    with path.open("rb") as stream:
        first = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for magic, kind in _MAGIC if first.startswith(magic)), "csv")


def check_xml(path: Path, name: str, limits: UploadLimits) -> None:
    """Read an XML document to its end and keep nothing of it. Raise `UploadError` with the place of what must not be there."""
    scan = _Scan(name, limits)
    with path.open("rb") as stream:
        first = stream.read(_BLOCK)
        if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UploadError(f"upload {name}: the document is UTF-16", hint="send it as UTF-8")
        while first:
            scan.feed(first)
            first = stream.read(_BLOCK)
    scan.finish()


class _Scan:
    """Counts what is in a document while expat goes through it."""

    def __init__(self, name: str, limits: UploadLimits) -> None:
        self._name = name
        self._limits = limits
        self._depth = self._fields = self._fed = 0
        parser = self._parser = expat.ParserCreate()
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._doctype

    def feed(self, block: bytes) -> None:
        """Read on."""
        self._parse(block, is_last=False)
        self._fed += len(block)
        if self._fed - self._parser.CurrentByteIndex > self._limits.markup_bytes:
            raise self._refused(f"a tag with more than {self._limits.markup_bytes:,} bytes")

    def finish(self) -> None:
        """Say that there is no more."""
        self._parse(b"", is_last=True)

    def _parse(self, block: bytes, *, is_last: bool) -> None:
        try:
            self._parser.Parse(block, is_last)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            raise UploadError(
                f"upload {self._name}: line {error.lineno}, column {error.offset + 1}: {reason}",
                hint="the document may be truncated",
            ) from error
        except (LookupError, ValueError) as error:
            raise UploadError(f"upload {self._name}: {error}", hint="send it as UTF-8") from error

    def _refused(self, what: str, hint: str = "") -> UploadError:
        place = f"line {self._parser.CurrentLineNumber}, column {self._parser.CurrentColumnNumber + 1}"
        return UploadError(f"upload {self._name}: {place}: {what}", hint=hint)

    def _doctype(self, *_: object) -> None:
        raise self._refused("a DOCTYPE, which a VOTable must not have", "remove it; entities are not expanded")

    def _start(self, tag: str, attributes: list[str]) -> None:
        limits = self._limits
        self._depth += 1
        if self._depth > limits.depth:
            raise self._refused(f"elements inside each other, more than {limits.depth} deep")
        if len(attributes) > 2 * limits.attributes:
            raise self._refused(f"{tag[:40]} has {len(attributes) // 2} attributes, more than {limits.attributes}")
        if attributes and max(map(len, attributes)) > limits.attribute_letters:
            raise self._refused(f"an attribute of {tag[:40]} has more than {limits.attribute_letters:,} letters")
        if tag.rpartition(":")[2] == "FIELD":
            self._fields += 1
            if self._fields > limits.columns:
                raise self._refused(f"more than {limits.columns:,} FIELDs", "send the columns that the query needs")

    def _end(self, _: str) -> None:
        self._depth -= 1


def too_large(name: str, limits: UploadLimits) -> UploadError:
    """Return the error of an upload with too many bytes."""
    return UploadError(
        f"upload {name}: it has more than {limits.bytes:,} bytes", hint="send the columns and rows that the query needs"
    )
