"""The HATS v1.0 face of a table: paths, properties, and the small files around `dataset/`.

LSDB, hats and others read these; qengine itself reads manifests. A tree consists of hard links to parts (directory leaves,
`hats_npix_suffix=/`), so it costs a directory entry per part and never a copy. No `_metadata` is written: a leaf may hold several
parts. Everything is written into a folder that nobody sees yet; only `write_collection` changes what readers find, by one rename.

A tree is made in two steps, since a hundred thousand links take seconds: `draft_tree` before a snapshot is published, and
`fill_tree` after it, by whoever lives then.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qengine.catalog.model import HEALPIX

VERSION = "v1.0"
RELEASE_DATE = "2025-08-22"
SKYMAP = "skymap.fits"

_FITS_BLOCK = 2880
_FITS_CARD = 80
_COARSE_ORDERS = (2, 4, 6)
_LINKED = 24
_LINKERS = 4
_LINKS = ".links.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A tile (`order`, `index`) with the parts that lie in it and their numbers of rows and bytes."""

    order: int
    index: int
    parts: tuple[Path, ...]
    rows: int
    bytes: int


def leaf_folder(order: int, index: int) -> str:
    """Return the folder of a tile relative to a catalogue's folder."""
    return f"dataset/Norder={order}/Dir={index // 10_000 * 10_000}/Npix={index}"


def draft_tree(
    folder: Path,
    leaves: Sequence[Leaf],
    schema: pa.Schema,
    *,
    root: Path,
    properties: Mapping[str, str],
    point_map: NDArray[np.int64] | None = None,
) -> None:
    """Write one HATS catalogue into `folder`, which must not exist: the face, and a list of the links to parts that `fill_tree`
    makes. `root` is the store's root: what lies below it may move with it in between.

    `point_map` holds rows per NESTED pixel of the full sky.
    """
    (folder / "dataset").mkdir(parents=True)
    write_face(folder, leaves, schema, properties=properties, point_map=point_map)
    above = f"{root}/"
    links = [[leaf_folder(leaf.order, leaf.index), [str(part).removeprefix(above) for part in leaf.parts]] for leaf in leaves]
    with (folder / _LINKS).open("w", encoding="utf-8") as file:
        file.write(json.dumps(links))  # `dump` is ten times as slow
        file.flush()
        os.fsync(file.fileno())


def fill_tree(folder: Path, root: Path) -> None:
    """Make the links of a tree that `draft_tree` wrote; those of a process that died are made anew. What is done stays so."""
    listed = folder / _LINKS
    if not listed.is_file():
        return
    for dead in (folder / "dataset").glob("Norder=*"):
        shutil.rmtree(dead)
    groups: dict[str, list[tuple[str, list[str]]]] = {}
    for place, parts in json.loads(listed.read_text()):
        above, _, name = place.rpartition("/")
        groups.setdefault(above, []).append((name, parts))
    with ThreadPoolExecutor(_LINKERS) as pool:
        for _ in pool.map(partial(_fill, folder, str(root)), groups.items()):
            pass
    listed.unlink()


def _fill(folder: Path, root: str, group: tuple[str, Sequence[tuple[str, Sequence[str]]]]) -> None:
    """Make the folders of some leaves below one of `folder`, and link their parts."""
    above, leaves = group
    place = folder / above
    place.mkdir(parents=True, exist_ok=True)
    # Paths as text: there may be 1e5 of them, each of which costs more as an object than its link.
    for name, parts in leaves:
        target = f"{place}/{name}"
        os.mkdir(target)
        for part in parts:
            link(os.path.join(root, part), f"{target}/{link_name(part.rpartition('/')[2].partition('.')[0])}")


def link_name(digest: str) -> str:
    """Return the name of a part in a tree."""
    return f"{digest[:_LINKED]}.parquet"


def write_face(
    folder: Path,
    leaves: Sequence[Leaf],
    schema: pa.Schema,
    *,
    properties: Mapping[str, str],
    point_map: NDArray[np.int64] | None = None,
) -> None:
    """Write what tells readers of the leaves in `folder/dataset`: `partition_info.csv`, schema, maps, properties. These come last:
    they are what makes it a catalogue."""
    lines = ["Norder,Npix,num_rows", *(f"{leaf.order},{leaf.index},{leaf.rows}" for leaf in leaves)]
    (folder / "partition_info.csv").write_text("\n".join(lines) + "\n")
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    if point_map is not None:
        properties = {**properties, **_write_maps(point_map, folder)}
    for name in ("properties", "hats.properties"):
        write_properties(folder / name, properties)


def link(part: Path | str, target: Path | str) -> None:
    """Make `target` another name of `part`; a copy where the file system has no hard links."""
    try:
        os.link(part, target)
    except OSError:
        shutil.copyfile(part, target)


def catalogue_properties(
    *, name: str, product: str, ra: str, dec: str, leaves: Sequence[Leaf], schema: pa.Schema, builder: str, created: str
) -> dict[str, str]:
    """Return the properties of an object, source or margin catalogue (`product`); `created` is an ISO 8601 time in UTC."""
    hidden = [field.name for field in schema if field.name.startswith("_")]
    size = sum(leaf.bytes for leaf in leaves)
    return {
        "obs_collection": name,
        "dataproduct_type": product,
        "hats_nrows": str(sum(leaf.rows for leaf in leaves)),
        "hats_col_ra": ra,
        "hats_col_dec": dec,
        "hats_col_healpix": HEALPIX,
        "hats_col_healpix_order": "29",
        "hats_cols_sort": HEALPIX,
        "hats_cols_default": " ".join(field.name for field in schema if field.name not in hidden),
        "hats_npix_suffix": "/",
        "hats_order": str(max((leaf.order for leaf in leaves), default=0)),
        "hats_max_rows": str(max((leaf.rows for leaf in leaves), default=0)),
        "hats_estsize": str(size // 1024),
        "hats_frame": "icrs",
        "moc_sky_fraction": f"{sum(1.0 / (12 * 4**leaf.order) for leaf in leaves):.5f}",
        "hats_builder": builder,
        "hats_creation_date": created,
        "hats_version": VERSION,
        "hats_release_date": RELEASE_DATE,
    }


def write_collection(folder: Path, *, name: str, primary: str, margins: Sequence[str]) -> None:
    """Point the collection in `folder` to the tree `primary` (and its margin catalogues), by one atomic rename."""
    properties = {"obs_collection": name, "hats_primary_table_url": primary}
    if margins:
        properties |= {"all_margins": " ".join(margins), "default_margin": margins[0]}
    write_properties(folder / "collection.properties", properties)


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java-style properties file by temporary name and rename."""
    text = "#HATS catalog\n" + "".join(f"{key}={_escaped(value)}\n" for key, value in properties.items() if value)
    staged = path.with_name(f".{path.name}.{uuid4().hex}")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)


def read_properties(path: Path) -> dict[str, str]:
    """Return the keys and values of a Java-style properties file."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "!")):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found


def _write_maps(counts: NDArray[np.int64], folder: Path) -> dict[str, str]:
    """Write the map under its old name and its new one, and coarser ones; return the properties that tell of them."""
    write_map(counts, folder / "point_map.fits")
    link(folder / "point_map.fits", folder / SKYMAP)
    order = (round(len(counts) / 12).bit_length() - 1) // 2
    coarser = [each for each in _COARSE_ORDERS if each < order]
    for each in coarser:
        write_map(counts.reshape(12 * 4**each, -1).sum(axis=1), folder / f"skymap.{each}.fits")
    alternatives = {"hats_skymap_alt_orders": " ".join(str(each) for each in coarser)} if coarser else {}
    return {"hats_skymap_order": str(order), **alternatives}


def write_map(counts: NDArray[np.int64], path: Path) -> None:
    """Write rows per pixel (full sky, NESTED) as a HEALPix FITS table, the form of `point_map.fits`."""
    side = round((len(counts) / 12) ** 0.5)
    primary = [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)]
    table = [
        ("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 8), ("NAXIS2", len(counts)), ("PCOUNT", 0), ("GCOUNT", 1),
        ("TFIELDS", 1), ("TTYPE1", "VALUE"), ("TFORM1", "K"), ("PIXTYPE", "HEALPIX"), ("INDXSCHM", "IMPLICIT"),
        ("ORDERING", "NESTED"), ("NSIDE", side), ("FIRSTPIX", 0), ("LASTPIX", len(counts) - 1), ("OBJECT", "FULLSKY"),
        ("COORDSYS", "C"), ("EXTNAME", "xtension"),
    ]  # fmt: skip
    values = counts.astype(">i8").tobytes()
    padding = b"\0" * (-len(values) % _FITS_BLOCK)
    path.write_bytes(_fits_header(primary) + _fits_header(table) + values + padding)


def _fits_header(cards: Sequence[tuple[str, object]]) -> bytes:
    lines = [f"{key:<8}= {_fits_value(value)}"[:_FITS_CARD].ljust(_FITS_CARD) for key, value in cards]
    text = "".join([*lines, "END".ljust(_FITS_CARD)])
    return text.ljust(-(-len(text) // _FITS_BLOCK) * _FITS_BLOCK).encode("ascii")


def _fits_value(value: object) -> str:
    if isinstance(value, bool):
        return f"{'T' if value else 'F':>20}"
    return f"{value:>20}" if isinstance(value, int) else f"'{value!s:<8}'"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", " ")
