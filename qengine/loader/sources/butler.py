"""Tables of a Data Butler as inputs of a load (extra `[rubin]`).

A query gives dataset references: of each data id the first in the order of the collections, all of them (the Butler's own limit of
20,000 is switched off). Tables are Parquet files, which are read where they lie, by the same source as any Parquet file; nothing is
converted by the Butler, and its row counts and checksums, which may be missing, are not used.

A dataset is *who* its dataset type and data id say, and *which version* its UUID says. So an increment is a set difference of
UUIDs: of what a query finds, `pending` leaves what the catalogue does not have yet; a new UUID for a known data id replaces the old
rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qengine.errors import ConfigError, InputError
from qengine.loader.sources.file import Place
from qengine.loader.sources.parquet import SUFFIXES, ParquetSource
from qengine.loader.sources.source import BUTLER, Source

if TYPE_CHECKING:
    from lsst.daf.butler import Butler, DatasetRef, LimitedButler

STORAGE_CLASSES = ("ArrowTable", "ArrowAstropy", "DataFrame", "ArrowNumpy", "ArrowNumpyDict")
"""Storage classes whose files are one Parquet table."""

_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ButlerQuery:
    """Which datasets: of `dataset_type`, in `collections` in order (the first that has a data id wins), where `where` holds: the
    Butler's expression, such as `skymap = 'lsst_cells_v1' AND tract = 9813`."""

    repo: str
    collections: tuple[str, ...]
    dataset_type: str
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ButlerDataset:
    """One dataset that was found: who, which version, where its file lies, and the run that made it."""

    label: str
    version: str
    uri: str
    run: str


def find_datasets(query: ButlerQuery) -> tuple[ButlerDataset, ...]:
    """Return all datasets of the query, sorted by label.

    Raise `ConfigError` if the Butler is not installed, `InputError` for a query that it does not take or that finds nothing, and
    for datasets that are not one Parquet table.
    """
    if not query.collections:
        raise ConfigError("no collection of the Butler is named", hint="name one with --collection")
    with opened(query.repo, query.collections) as butler:
        from lsst.daf.butler import ButlerUserError, EmptyQueryResultError

        where = f"{query.repo}: {query.dataset_type} in {', '.join(query.collections)}"
        try:
            found = butler.query_datasets(
                query.dataset_type, collections=list(query.collections), where=query.where, find_first=True, limit=None
            )
            datasets = _datasets(butler, found)
        except EmptyQueryResultError as error:
            raise InputError(f"{where}: nothing was found: {'; '.join(error.reasons) or 'no dataset'}"[:500]) from error
        except ButlerUserError as error:
            raise InputError(
                f"{where}: {_first_line(error)}",
                hint="`butler query-datasets` takes the same words; a tract needs its skymap where there are several",
            ) from error
    return tuple(sorted(datasets, key=lambda each: each.label))


def pending(datasets: Iterable[ButlerDataset], known: Mapping[str, str]) -> tuple[ButlerDataset, ...]:
    """Return the datasets whose version is not the one that `known` has for their label."""
    return tuple(each for each in datasets if known.get(each.label) != each.version)


def open_datasets(datasets: Sequence[ButlerDataset]) -> tuple[Source, ...]:
    """Return the datasets as sources. Raise `InputError` for one whose file is gone or broken."""
    with ThreadPoolExecutor(_READERS, "butler") as pool:
        return tuple(pool.map(open_dataset, datasets))


def open_dataset(dataset: ButlerDataset) -> Source:
    """Return one dataset as a source."""
    return ParquetSource(Place(uri=dataset.uri, label=dataset.label, kind=BUTLER, version=dataset.version))


def dataset_of(butler: LimitedButler, ref: DatasetRef) -> ButlerDataset:
    """Return what a reference names, for tasks of a pipeline. Raise `InputError` if it is not one Parquet table."""
    return _datasets(butler, [ref])[0]


@contextmanager
def opened(repo: str, collections: Sequence[str] = ()) -> Iterator[Butler]:
    """Yield a Butler that reads the repository. What `collections` leave no choice of, such as the skymap or the instrument, need
    not be said in queries. Raise `ConfigError` or `InputError` if there is no such repository or collection."""
    try:
        from lsst.daf.butler import Butler, ButlerUserError
    except ImportError as error:
        raise ConfigError("the Data Butler is not installed", hint="pip install 'qengine[rubin]'") from error
    try:
        butler: Any = Butler.from_config(repo, collections=list(collections) or None, writeable=False)
    except ButlerUserError as error:
        raise InputError(f"{repo}: {_first_line(error)}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{repo}: not a Butler repository: {_first_line(error)}") from error
    with closing(butler) if hasattr(butler, "close") else _left(butler):
        yield butler


@contextmanager
def _left(butler: Any) -> Iterator[None]:
    del butler
    yield


def _datasets(butler: LimitedButler, refs: Sequence[DatasetRef]) -> list[ButlerDataset]:
    for ref in refs:
        if ref.datasetType.storageClass_name not in STORAGE_CLASSES:
            raise InputError(
                f"{_label(ref)} is a {ref.datasetType.storageClass_name}, not a table in Parquet",
                hint=f"one of {', '.join(STORAGE_CLASSES)}",
            )
    # Asked for one by one, the files of a release take minutes.
    found = butler.get_many_uris(refs, allow_missing=True)
    return [_dataset(ref, found[ref].primaryURI if ref in found else None) for ref in refs]


def _dataset(ref: DatasetRef, uri: Any) -> ButlerDataset:
    label = _label(ref)
    if uri is None:
        raise InputError(f"{label}: the Butler has no file of it, or several", hint="was it purged?")
    if uri.fragment or uri.getExtension() not in SUFFIXES:
        raise InputError(f"{label}: {uri} is not a Parquet file")
    if uri.query:
        raise InputError(f"{label}: its address is signed and will expire", hint="load from a Butler with direct access to files")
    return ButlerDataset(label=label, version=str(ref.id), uri=uri.ospath if uri.isLocal else str(uri), run=ref.run)


def _label(ref: DatasetRef) -> str:
    return f"{ref.datasetType.name} {json.dumps(dict(ref.dataId.required), sort_keys=True, default=str)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
