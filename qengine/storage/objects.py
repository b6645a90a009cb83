"""The store: files by URI under one root, written whole or not at all, named by their digests.

A URI is a path relative to the root (`dp1/Object/parts/ab/abcd....parquet`) or absolute (a file of an attached catalogue, with
or without `file://`). Relative URIs cannot leave the root. The store knows nothing of what is in its files.

Where the files are for good is said by `catalog.files`: below the root, or in an object store (`storage.bucket`). In the second
case a path that `Store.path` returns is that of a near copy, which is fetched when it is not there; what is written below the root
gets into the store with `Store.keep`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import xxhash

from qengine.catalog import durable
from qengine.catalog.files import Files, LocalFiles
from qengine.errors import InputError

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Store:
    """Files under the directory `root`, which need not exist before the first write; `far` are the files of an object store of
    which it is the near copy."""

    root: Path
    far: Files | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())

    @property
    def files(self) -> Files:
        """Return where the files are for good."""
        return self.far or LocalFiles(self.root)

    @property
    def is_far(self) -> bool:
        """Return whether the root is a near copy of an object store."""
        return self.far is not None

    def path(self, uri: str) -> Path:
        """Return where `uri` lies; what is in an object store is fetched if need be.

        Raise `InputError` as `place` does; `StoreUnavailableError` or `IntegrityError` if the file cannot be fetched. A file that
        does not exist is no error.
        """
        place = self.place(uri)
        return place if self.far is None else self.far.need(place)

    def fresh(self, uri: str) -> Path:
        """Return where `uri` lies, as readers elsewhere find it: a near copy is fetched again."""
        self.let_go(uri)
        return self.path(uri)

    def let_go(self, uri: str) -> None:
        """Remove the near copy of a file, if it is one."""
        if self.far is not None and (place := self.place(uri)).is_relative_to(self.root):
            place.unlink(missing_ok=True)

    def place(self, uri: str) -> Path:
        """Return where `uri` would lie. Raise `InputError` for a scheme that is not served, and for `..` in relative ones."""
        if uri.startswith("file://"):
            return Path(unquote(urlsplit(uri).path))
        if "://" in uri:
            raise InputError(f"{uri}: only local files are served", hint="copy or mount the files")
        if uri and not uri.startswith("/") and ".." not in uri:
            return self.root / uri
        relative = PurePosixPath(uri)
        if relative.is_absolute():
            return Path(relative)
        if not uri or ".." in relative.parts:
            raise InputError(f"{uri!r} is not a place in the store")
        return self.root / relative

    def keep(self, paths: Iterable[Path]) -> None:
        """Make finished files last; those that are not below the root are others' and left alone. See `catalog.files`."""
        if self.far is not None:
            self.far.keep([path for path in paths if path.is_relative_to(self.root)])

    def uri(self, path: Path) -> str:
        """Return the URI of `path`: relative when it lies under the root, else absolute."""
        absolute = path.absolute()
        return absolute.relative_to(self.root).as_posix() if absolute.is_relative_to(self.root) else absolute.as_posix()

    def part_uri(self, catalog: str, table: str, digest: str) -> str:
        """Return the URI of the part with this sha256."""
        return f"{catalog}/{table}/parts/{digest[:2]}/{digest}.parquet"

    def exists(self, uri: str) -> bool:
        """Return whether a file of this URI exists."""
        return self.path(uri).is_file()

    def size(self, uri: str) -> int:
        """Return the bytes of the file."""
        return self.path(uri).stat().st_size

    def read(self, uri: str) -> bytes:
        """Return the bytes in the file."""
        return self.path(uri).read_bytes()

    @contextmanager
    def writing(self, uri: str) -> Iterator[Path]:
        """Yield a temporary path to write; the file takes its name durably when the block ends without an exception."""
        target = self.place(uri)
        with durable.writing(target) as temporary:
            yield temporary
        self.keep([target])

    def write(self, uri: str, content: bytes | str) -> Path:
        """Write a small file, whole or not at all, and return its path."""
        with self.writing(uri) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.place(uri)

    def adopt(self, source: Path, uri: str) -> Path:
        """Move a finished file of the same file system to `uri` and return its path.

        Files named by their digest are equal when their names are, so an existing file is left as it is.
        """
        target = self.path(uri)
        if target.is_file():
            source.unlink()
        else:
            durable.place(source, target)
            self.keep([target])
        return target

    def remove(self, uri: str) -> None:
        """Delete the file if it exists."""
        place = self.place(uri)
        if self.far is not None and place.is_relative_to(self.root):
            self.far.remove(place)
        else:
            place.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal: a part's name, computed when it is published."""
    return durable.sha256(path)


def xxh3_file(path: Path) -> str:
    """Return the 128-bit xxh3 of a file's bytes in hexadecimal: ten times as fast, for frequent checks against bit rot."""
    digest = xxhash.xxh3_128()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
