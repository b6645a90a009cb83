"""Turns what a user names (files, directories, globs) into sources, in a stable order."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from qengine.errors import InputError
from qengine.loader.sources import csv, parquet
from qengine.loader.sources.csv import CsvSource
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import Source


def open_sources(inputs: Sequence[str | Path], *, types: Mapping[str, pa.DataType] | None = None) -> tuple[Source, ...]:
    """Return one source per file that `inputs` name, each file once, in the order given (directories and globs sorted by name).

    `types` are declared types of columns, used where the format has none of its own.
    Raise `InputError` for a name that leads to no file and for a format that is not known.
    """
    paths: dict[Path, None] = {}
    for entry in inputs:
        for path in _files(str(entry)):
            paths.setdefault(path, None)
    if not paths:
        raise InputError("nothing to load: no input was given")
    if not all(_is_csv(path) for path in paths):
        return tuple(_open(path, types) for path in paths)
    # Text has no types of its own, so the files agree on the widest that was seen.
    texts = [CsvSource(path, types=types) for path in paths]
    if len({source.schema for source in texts}) == 1 or len({frozenset(source.schema.names) for source in texts}) > 1:
        return tuple(texts)
    common = csv.unify_types([source.schema for source in texts])
    return tuple(CsvSource(path, types=common) for path in paths)


def _open(path: Path, types: Mapping[str, pa.DataType] | None) -> Source:
    return CsvSource(path, types=types) if _is_csv(path) else ParquetSource(path)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for compression in csv.COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def _is_csv(path: Path) -> bool:
    return _suffix(path) in csv.SUFFIXES


def _is_known(path: Path) -> bool:
    return _is_csv(path) or path.suffix.lower() in parquet.SUFFIXES


def _files(entry: str) -> list[Path]:
    path = Path(entry)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and _is_known(p) and not _is_hidden(p, path))
        if not found:
            raise InputError(f"{entry}: no Parquet or CSV file in this directory")
        return found
    if path.is_file():
        if not _is_known(path):
            raise InputError(
                f"{entry}: unknown format {path.suffix or '(no suffix)'!r}",
                hint="the loader reads " + ", ".join((*parquet.SUFFIXES, *csv.SUFFIXES)),
            )
        return [path]
    if glob.has_magic(entry):
        matched = [Path(name) for name in sorted(glob.glob(entry, recursive=True))]
        files = [p for p in matched if p.is_file()]
        if unknown := [p for p in files if not _is_known(p)]:
            raise InputError(f"{entry}: {unknown[0]} is of an unknown format", hint="narrow the pattern, for example to *.parquet")
        if files:
            return files
        raise InputError(f"{entry}: no file matches this pattern")
    raise InputError(f"{entry}: no such file or directory")


def _is_hidden(path: Path, root: Path) -> bool:
    # Spark, HATS and Dask write markers and metadata under such names
    return any(piece.startswith(("_", ".")) for piece in path.relative_to(root).parts)
