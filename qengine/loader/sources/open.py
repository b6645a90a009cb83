"""Turns what a user names (files, directories, patterns, catalogues, addresses) into sources, in a stable order.

The format follows the suffix, or else the first bytes; `InputOptions.format` overrides both. A directory that is a HATS catalogue
means its leaf files; any other directory means the files in it, which must then be of one format.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from qengine.errors import ConfigError, InputError
from qengine.loader.sources import arrow_ipc, csv, ecsv, fits, parquet, votable
from qengine.loader.sources.arrow_ipc import ArrowSource
from qengine.loader.sources.csv import CsvOptions, CsvSource
from qengine.loader.sources.ecsv import EcsvSource
from qengine.loader.sources.file import Place
from qengine.loader.sources.fits import FitsSource
from qengine.loader.sources.hats import HatsFileSource, is_hats, open_hats
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import Recipe, Source, unpacked
from qengine.loader.sources.votable import VotableSource
from qengine.storage import remote

_SUFFIXES = {
    "parquet": parquet.SUFFIXES, "csv": csv.SUFFIXES, "fits": fits.SUFFIXES, "votable": votable.SUFFIXES, "ecsv": ecsv.SUFFIXES,
    "arrow": arrow_ipc.SUFFIXES,
}  # fmt: skip
FORMATS = tuple(_SUFFIXES)
_COMPRESSED = {"csv": csv.COMPRESSIONS, "ecsv": (".gz",), "fits": (".gz",), "votable": (".gz",)}
_MAGIC = (
    (b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"SIMPLE  =", "fits"), (b"# %ECSV", "ecsv"),
    (b"<?xml", "votable"), (b"<VOTABLE", "votable"),
)  # fmt: skip
_READERS = 8
_READS = "the loader reads " + ", ".join(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """What is said about the inputs beyond their names. `format` is one of `FORMATS`, or empty to find it; `label` says who a
    single input is, whatever its path; `table` chooses among several tables of a FITS file (HDU) or VOTable, by number or name."""

    format: str = ""
    label: str = ""
    table: str = ""
    csv: CsvOptions = field(default_factory=CsvOptions)


def open_sources(
    inputs: Sequence[str | Path], *, types: Mapping[str, pa.DataType] | None = None, options: InputOptions | None = None,
    needs_types: bool = True,
) -> tuple[Source, ...]:  # fmt: skip
    """Return one source per file that `inputs` name, each file once, in the order given (directories and patterns sorted by name).

    `types` are declared types of columns, used where the format has none of its own. Texts without rows, of which nothing says what
    types their columns are of, are an error if that has to be known (`needs_types`).
    Raise `InputError` for a name that leads to no file and for a format that is not known.
    """
    wanted = options or InputOptions()
    if wanted.format and wanted.format not in FORMATS:
        raise ConfigError(f"there is no format {wanted.format}", hint=f"known are {', '.join(FORMATS)}")
    if not inputs:
        raise InputError("nothing to load: no input was given")
    opened: dict[str, Callable[[], Source] | Source] = {}
    for entry in inputs:
        path = Path(str(entry))
        if not remote.is_remote(str(entry)) and path.is_dir() and is_hats(path):
            opened |= {source.name: source for source in open_hats(path)}
            continue
        for name, kind in _files(str(entry), wanted.format):
            if name not in opened:
                opened[name] = _opener(kind, Place(uri=name, label=wanted.label), types, wanted)
    if wanted.label and len(opened) != 1:
        raise InputError(f"the label {wanted.label!r} is for one input, but there are {len(opened)}", hint="load them one by one")
    with ThreadPoolExecutor(_READERS, "open") as pool:
        found = pool.map(lambda one: one() if callable(one) else one, opened.values())
        sources = dict(zip(opened, found, strict=True))
    return tuple((sources | _unified(sources, wanted, types or {}, needs_types=needs_types)).values())


def reopen(recipe: Recipe) -> Source:
    """Return the source of a recipe. Raise `InputError` if the input cannot be opened any more."""
    place = Place(uri=recipe.uri, label=recipe.label, kind=recipe.kind, version=recipe.version)
    words = recipe.options
    match recipe.format:
        case "parquet":
            return ParquetSource(place, hidden=words.get("hidden", ()))
        case "hats":
            return HatsFileSource(place, declared=unpacked(words["declared"]))
        case "csv":
            schema = unpacked(words["schema"])
            said = dict(words["csv"])
            declared = CsvOptions(**said | {"names": tuple(said["names"]), "nulls": tuple(said["nulls"])})
            return CsvSource(place, types={each.name: each.type for each in schema}, options=declared)
        case "fits":
            return FitsSource(place, hdu=words.get("hdu", ""))
        case "votable":
            return VotableSource(place, table=words.get("table", ""))
        case "ecsv":
            return EcsvSource(place)
        case "arrow":
            return ArrowSource(place)
    raise InputError(f"{recipe.uri}: there is no format {recipe.format}")


def _opener(kind: str, place: Place, types: Mapping[str, pa.DataType] | None, wanted: InputOptions) -> Callable[[], Source]:
    openers: dict[str, Callable[[], Source]] = {
        "parquet": lambda: ParquetSource(place),
        "csv": lambda: CsvSource(place, types=types, options=wanted.csv),
        "fits": lambda: FitsSource(place, hdu=wanted.table),
        "votable": lambda: VotableSource(place, table=wanted.table),
        "ecsv": lambda: EcsvSource(place),
        "arrow": lambda: ArrowSource(place),
    }
    return openers[kind]


def _unified(
    sources: Mapping[str, Source], wanted: InputOptions, types: Mapping[str, pa.DataType], *, needs_types: bool
) -> dict[str, Source]:
    """Open texts again with common types: text has no types of its own, so files agree on the widest that was seen."""
    texts = {name: source for name, source in sources.items() if type(source) is CsvSource}
    if not texts or len({frozenset(source.schema.names) for source in texts.values()}) > 1:
        return {}
    common = csv.unify_types(list(texts.values()))
    if needs_types and not common and not any(source.rows for source in sources.values()):
        first = next(iter(texts))
        raise InputError(
            f"{first}: there are no rows, so that nothing says what types its columns are of", hint="declare them with --schema"
        )
    declared = {**types, **common}
    return {
        name: CsvSource(Place(uri=name, label=wanted.label), types=declared, options=wanted.csv)
        for name, source in texts.items()
        if any(field.type != declared.get(field.name, field.type) for field in source.schema)
    }


def _files(entry: str, declared: str) -> Iterable[tuple[str, str]]:
    """Return the files that an entry names, each with its format."""
    if remote.is_remote(entry):
        return _remote_files(entry, declared)
    path = remote.local_path(entry)
    if path.is_dir():
        names = [str(p) for p in sorted(path.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(path).parts)]
        return _of_directory(entry, names, declared)
    if path.is_file():
        return [(str(path), declared or _known(entry))]
    if glob.has_magic(entry):
        if matched := list(remote.matches(entry)):
            return [(name, declared or _known(name)) for name in matched]
        raise InputError(f"{entry}: no file matches this pattern")
    raise InputError(f"{entry}: no such file or directory")


def _remote_files(entry: str, declared: str) -> Iterable[tuple[str, str]]:
    remote.checked(entry)
    path = urlsplit(entry).path
    if glob.has_magic(path):
        if matched := remote.listed(entry):
            return [(name, declared or _known(name)) for name in matched]
        raise InputError(f"{entry}: no object matches this pattern")
    if path.endswith("/") or not (declared or _by_suffix(path)):
        root = entry.rstrip("/") + "/"
        pieces = {name: name.removeprefix(root).split("/") for name in remote.listed(root)}
        return _of_directory(entry, [name for name, parts in pieces.items() if not _is_hidden(parts)], declared)
    return [(entry, declared or _known(entry))]


def _of_directory(entry: str, names: Sequence[str], declared: str) -> Iterable[tuple[str, str]]:
    found = {name: kind for name in names if (kind := _by_suffix(name))}
    if not found:
        raise InputError(f"{entry}: no file of a known format in this directory", hint=_READS)
    first = next(iter(found))
    other = next((name for name in found if found[name] != found[first]), None)
    if other is not None and not declared:
        raise InputError(
            f"{entry}: the directory holds several formats: {first} is {found[first]}, {other} is {found[other]}",
            hint="name a pattern, for example DIR/*.parquet, or one format",
        )
    return found.items() if not declared else [(name, kind) for name, kind in found.items() if kind == declared]


def _by_suffix(name: str) -> str:
    """Return the format that the suffix of a name says, empty if it says none."""
    lowered = (urlsplit(name).path if remote.is_remote(name) else name).lower()
    for kind, suffixes in _SUFFIXES.items():
        ends = (*suffixes, *(suffix + packed for suffix in suffixes for packed in _COMPRESSED.get(kind, ())))
        if lowered.endswith(ends):
            return kind
    return ""


def _known(name: str) -> str:
    """Return the format of a file by its suffix, or by its first bytes. Raise `InputError` if neither is known."""
    if kind := _by_suffix(name):
        return kind
    with remote.open_bytes(name) as stream:
        first = stream.read(16).removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, kind in _MAGIC:
        if first.startswith(magic):
            return kind
    raise InputError(f"{name}: unknown format {Path(name).suffix or '(no suffix)'!r}", hint=_READS + ", or what --format says")


def _is_hidden(parts: Sequence[str]) -> bool:
    # Spark, HATS and Dask write markers and metadata under such names
    return any(piece.startswith(("_", ".")) for piece in parts)
