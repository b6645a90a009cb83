"""Reading any HATS catalogue: properties, tiles, files and schema, as they lie on disk.

Writers differ, so this reader asks for little. A path may be a collection or a catalogue. Either properties file will do. The tiles
are those of `partition_info.csv`, which is the list of what is visible, or else those found by listing `dataset/`. A tile is a file
(`Npix=5.parquet`, `.parq`, or the declared suffix) or a folder of files. The schema is that of `_common_metadata`, `_metadata`, or
else the first file's. What contradicts itself (overlapping tiles, listed files that are missing) is an `InputError` that names the
place. No data page is read here.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX
from qengine.errors import InputError
from qengine.sky.cells import ORDER, Tile

_PROPERTIES = ("hats.properties", "properties")
_COLLECTION = "collection.properties"
_SUFFIXES = (".parquet", ".parq", "/")
_TILE = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)([^/]*)")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True, slots=True)
class HatsFile:
    """One Parquet file of a tile."""

    path: Path
    tile: Tile


@dataclass(frozen=True, slots=True, kw_only=True)
class HatsCatalog:
    """One catalogue of tiles. `files` are in the order of the line."""

    root: Path
    properties: Mapping[str, str]
    schema: pa.Schema
    files: tuple[HatsFile, ...]

    @property
    def product(self) -> str:
        """What the catalogue holds: object, source, margin, ..."""
        return self.properties.get("dataproduct_type", "").lower()

    @property
    def line_column(self) -> str:
        """Name of the column of order-29 cells that the catalogue declares or has; empty if there is none."""
        name = self.properties.get("hats_col_healpix", "") or HEALPIX
        order = self.properties.get("hats_col_healpix_order", "") or str(ORDER)
        position = self.schema.get_field_index(name)
        if order != str(ORDER) or position < 0 or self.schema.field(position).type not in (pa.int64(), pa.uint64()):
            return ""
        return name

    @property
    def margin_arcsec(self) -> float:
        """Width of a margin catalogue; 0 if it declares none."""
        try:
            return float(self.properties.get("hats_margin_threshold", ""))
        except ValueError:
            return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HatsCollection:
    """A catalogue with its margin catalogues, the default one first. A catalogue outside a collection has none."""

    primary: HatsCatalog
    margins: tuple[Path, ...]


def read_hats(path: Path) -> HatsCollection:
    """Return the catalogue at `path`, a collection's or a catalogue's directory or properties file.

    Raise `InputError` if it is neither, or is inconsistent.
    """
    root = path.parent if path.suffix == ".properties" else path
    if not root.is_dir():
        raise InputError(f"{path}: there is no such directory")
    if _properties_file(root) is not None:
        return HatsCollection(primary=read_catalog(root), margins=())
    if not (root / _COLLECTION).is_file():
        is_old = (root / "catalog_info.json").is_file()
        hint = (
            "it is a HiPSCat of before 2024: convert it with hats-import" if is_old else f"expected one of {', '.join(_PROPERTIES)}"
        )
        raise InputError(f"{root}: not a HATS catalogue: it has no properties file", hint=hint)
    properties = read_properties(root / _COLLECTION)
    primary = properties.get("hats_primary_table_url")
    if not primary:
        raise InputError(f"{root / _COLLECTION}: hats_primary_table_url is missing")
    margins = properties.get("all_margins", "").split()
    default = properties.get("default_margin", "")
    margins.sort(key=lambda name: name != default)
    return HatsCollection(primary=read_catalog(_inner(root, primary)), margins=tuple(_inner(root, name) for name in margins))


def read_catalog(root: Path) -> HatsCatalog:
    """Return the one catalogue in the directory `root`. Raise `InputError` if there is none or it is inconsistent."""
    found = _properties_file(root)
    if found is None:
        raise InputError(
            f"{root}: not a HATS catalogue: it has no properties file", hint=f"expected one of {', '.join(_PROPERTIES)}"
        )
    properties = read_properties(found)
    suffix = properties.get("hats_npix_suffix") or properties.get("npix_suffix") or ""
    tiles = _listed(root) if (root / "partition_info.csv").is_file() else None
    files = tuple(_files_of(root, tiles, suffix) if tiles is not None else _found(root, suffix))
    if not files:
        raise InputError(f"{root}: the catalogue has no tiles")
    ordered = tuple(sorted(files, key=lambda file: (file.tile.range, file.path)))
    _check_disjoint(root, ordered)
    return HatsCatalog(root=root, properties=properties, schema=_schema(root, ordered[0].path), files=ordered)


def read_properties(path: Path) -> dict[str, str]:
    """Return keys and values of a Java properties file (UTF-8): comments, `=` or `:`, escapes, continued lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    found = {}
    for line in re.sub(r"(?<!\\)((?:\\\\)*)\\\r?\n[ \t]*", r"\1", text).splitlines():
        content = line.strip()
        if not content or content[0] in "#!":
            continue
        match = re.match(r"((?:\\.|[^\\=:\s])+)\s*[=:]?\s*(.*)", content)
        if match is None:
            raise InputError(f"{path}: not a properties file: {content[:60]!r}")
        found[_unescaped(match[1])] = _unescaped(match[2])
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else _LETTERS.get(m[1], m[1]), text)


def _properties_file(root: Path) -> Path | None:
    return next((root / name for name in _PROPERTIES if (root / name).is_file()), None)


def _inner(root: Path, url: str) -> Path:
    """Return the directory that a collection names: relative to it, absolute, or a file URL."""
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    if "://" in url:
        raise InputError(f"{root}: {url} is not a local path", hint="copy or mount the catalogue")
    return root / url


# -- tiles --------------------------------------------------------------------------------------------------------------------


def _listed(root: Path) -> list[Tile]:
    path = root / "partition_info.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            tiles = {Tile(int(row["Norder"]), int(row["Npix"])): None for row in reader}
    except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a list of tiles with columns Norder and Npix: {error!r}") from error
    for tile in tiles:
        if not (0 <= tile.order <= ORDER and 0 <= tile.index < 12 * 4**tile.order):
            raise InputError(f"{path}: there is no tile of order {tile.order} and pixel {tile.index}")
    return list(tiles)


def _files_of(root: Path, tiles: list[Tile], suffix: str) -> Iterator[HatsFile]:
    """Yield the files of the tiles that the catalogue lists; a tile without one is an error."""
    for tile in tiles:
        folder = root / "dataset" / f"Norder={tile.order}" / f"Dir={tile.index // 10_000 * 10_000}"
        for candidate in (suffix,) if suffix else _SUFFIXES:
            paths = _leaf(folder / f"Npix={tile.index}") if candidate == "/" else [folder / f"Npix={tile.index}{candidate}"]
            if paths and all(path.is_file() for path in paths):
                yield from (HatsFile(path, tile) for path in paths)
                break
        else:
            raise InputError(
                f"{folder / f'Npix={tile.index}{suffix}'} is missing, but partition_info.csv lists its tile",
                hint="complete the copy of the catalogue, or check hats_npix_suffix",
            )


def _found(root: Path, suffix: str) -> Iterator[HatsFile]:
    """Yield the files that are there, where no list says which are visible."""
    for path in sorted((root / "dataset").glob("Norder=*/Dir=*/Npix=*")):
        match = _TILE.fullmatch(path.relative_to(root / "dataset").as_posix())
        if match is None:
            continue
        tile = Tile(int(match[1]), int(match[2]))
        if path.is_dir():
            if suffix in ("", "/"):
                yield from (HatsFile(leaf, tile) for leaf in _leaf(path))
        elif match[3] in ((suffix,) if suffix else _SUFFIXES):
            yield HatsFile(path, tile)


def _leaf(folder: Path) -> list[Path]:
    """Return the files of a directory leaf; names that begin with a dot or an underscore are not data."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._")


def _check_disjoint(root: Path, files: tuple[HatsFile, ...]) -> None:
    tiles = list(dict.fromkeys(file.tile for file in files))
    bounds = np.array([tile.range for tile in tiles], np.int64)
    wrong = np.flatnonzero(bounds[1:, 0] < bounds[:-1, 1])
    if len(wrong):
        first, second = tiles[int(wrong[0])], tiles[int(wrong[0]) + 1]
        raise InputError(
            f"{root}: tiles overlap: order {first.order} pixel {first.index} and order {second.order} pixel {second.index}"
        )


def _schema(root: Path, first: Path) -> pa.Schema:
    for path in (root / "dataset" / "_common_metadata", root / "dataset" / "_metadata", first):
        if path.is_file():
            try:
                return pq.read_schema(path)
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{path}: not a readable Parquet file: {error}") from error
    raise InputError(f"{root}: the catalogue has no schema")
