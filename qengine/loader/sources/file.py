"""What all sources that are one file have in common: where it lies, who it is, its checksum."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa

from qengine.errors import InputError
from qengine.loader.sources.source import FILE, STREAM, Identity, Recipe, fixed_width
from qengine.storage import remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file and who it is as an input: the path if `label` is empty. A `version` that is empty is the content's sha256."""

    uri: str
    label: str = ""
    kind: str = FILE
    version: str = ""

    @classmethod
    def of(cls, path: Path | str | Place) -> Place:
        """Return the place of a path or address."""
        return path if isinstance(path, Place) else cls(uri=str(path))


class FileSource:
    """One file. A format has a name, and sets `_schema`, `_rows`, `_row_bytes` and yields `batches`."""

    format: ClassVar[str] = ""

    def __init__(self, place: Place | Path | str) -> None:
        self._place = Place.of(place)
        self._uri = remote.checked(self._place.uri)
        self._status = remote.status(self._uri)
        if not self._status.bytes:
            raise InputError(f"{self._uri}: the file is empty: it has not even a header", hint="was it copied to the end?")
        self._schema = pa.schema([])
        self._rows = 0
        self._row_bytes = 1

    @property
    def name(self) -> str:
        # who has sent an input knows it by its label
        return self._place.label if self._place.kind == STREAM else self._uri

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def row_bytes(self) -> int:
        return self._row_bytes

    @property
    def _full_uri(self) -> str:
        return self._uri if remote.is_remote(self._uri) else str(remote.local_path(self._uri).absolute())

    @property
    def identity(self) -> Identity:
        return Identity(
            label=self._place.label or self._full_uri, kind=self._place.kind, uri=self._full_uri, bytes=self._status.bytes,
            modified=self._status.modified,
        )  # fmt: skip

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            format=self.format, uri=self._full_uri, label=self._place.label, kind=self._place.kind, version=self._place.version,
            options=self._options(),
        )  # fmt: skip

    def sha256(self) -> str:
        return self._sha256

    def version(self) -> str:
        return self._place.version or self._sha256

    @cached_property
    def _sha256(self) -> str:
        return remote.sha256(self._uri)

    def _options(self) -> Mapping[str, Any]:
        """Return what the recipe has to say beyond the file, as JSON values."""
        return {}

    def _check_columns(self, columns: Sequence[str]) -> list[str]:
        if unknown := [name for name in columns if name not in self._schema.names]:
            raise InputError(f"{self.name}: there is no column {unknown[0]!r}")
        return list(columns)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError

    @cached_property
    def _mapped(self) -> _LocalCopy:
        return _LocalCopy(self._uri)


class _LocalCopy:
    """A path to the plain bytes of a file, for formats that are mapped into memory: the file itself, or a copy (of a remote or
    compressed file) that goes away with this object."""

    def __init__(self, uri: str) -> None:
        self._copy: IO[bytes] | None = None
        self.path = remote.local_path(uri)
        is_compressed = uri.lower().endswith(".gz")
        if not remote.is_remote(uri) and not is_compressed:
            return
        # `close` comes with the garbage collection of the source, which is as long as the copy is needed
        self._copy = tempfile.NamedTemporaryFile(prefix="qengine-input-")  # noqa: SIM115
        try:
            with remote.open_bytes(uri) as stream:
                shutil.copyfileobj(gzip.GzipFile(fileobj=stream) if is_compressed else stream, self._copy, 8 << 20)
        except (OSError, EOFError) as error:
            raise InputError(f"{uri}: cannot be read: {error}", hint="the file may be truncated") from error
        self._copy.flush()
        self.path = Path(self._copy.name)


def width_of(schema: pa.Schema) -> int:
    """Return the estimated bytes of a row."""
    return max(1, sum(fixed_width(field.type) for field in schema))
