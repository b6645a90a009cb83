"""Reading files wherever they lie: a path, `file://`, `s3://`, `gs://`, `az://`, `http://` or `https://`.

Objects are read by byte ranges through `obstore` (`storage.bucket` is the module for stores in object stores). Credentials and
endpoints come from the environment, as the vendors' own tools have them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS`, ...); an `http://` endpoint has to be allowed with `AWS_ALLOW_HTTP=true`. An address never holds a
password, because it is recorded with the load.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa

from qengine.errors import InputError

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "http", "https")
_BLOCK = 8 << 20
_READ_AHEAD = 1 << 20
_SECRET = re.compile(r"(?i)(^|&)[^=&]*(signature|sig|token|secret|password|credential|apikey|api_key)=")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """Size of a file and when it was written, in seconds since 1970."""

    bytes: int
    modified: float


def is_remote(uri: str) -> bool:
    """Return whether the address is not one of this machine's file systems."""
    return bool(_ADDRESS.match(uri)) and not uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Return the path of a local address."""
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else Path(uri)


def checked(uri: str) -> str:
    """Return the address if it can be served. Raise `InputError` for other schemes and for addresses that hold a password."""
    if not is_remote(uri):
        return uri
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise InputError(f"{parts.scheme}://..: there is no reader for this scheme", hint=f"known are {', '.join(SCHEMES)}")
    if _SECRET.search(parts.query):
        raise InputError(
            f"{parts.scheme}://{parts.netloc}{parts.path}?..: a signed address expires, and is a secret", hint="use the environment"
        )
    if parts.password is not None or parts.username is not None:
        raise InputError(f"{parts.scheme}://..@{parts.hostname}: an address must not hold a password", hint="use the environment")
    return uri


def status(uri: str) -> FileStatus:
    """Return size and time of the file. Raise `InputError` if there is none."""
    if not is_remote(uri):
        try:
            found = local_path(uri).stat()
        except OSError as error:
            raise InputError(f"{uri}: cannot be read: {error.strerror or error}") from error
        return FileStatus(bytes=found.st_size, modified=found.st_mtime)
    store, key = _store(uri)
    head = _asked(uri, lambda: store.head(key))
    return FileStatus(bytes=int(head["size"]), modified=head["last_modified"].timestamp())


def open_bytes(uri: str) -> BinaryIO:
    """Return the file opened for reading at any place; a remote one asks for ranges as they are read."""
    if not is_remote(uri):
        try:
            return local_path(uri).open("rb")
        except OSError as error:
            raise InputError(f"{uri}: cannot be read: {error.strerror or error}") from error
    return cast(BinaryIO, io.BufferedReader(_RangeReader(uri), _READ_AHEAD))


def open_arrow(uri: str) -> pa.NativeFile:
    """Return the file as Arrow reads it, mapped into memory where it is local."""
    if is_remote(uri):
        return pa.PythonFile(open_bytes(uri), mode="r")
    try:
        path = local_path(uri)
        # an empty file cannot be mapped
        return pa.memory_map(str(path)) if path.stat().st_size else pa.OSFile(str(path))
    except OSError as error:
        raise InputError(f"{uri}: cannot be read: {error.strerror or error}") from error


def sha256(uri: str) -> str:
    """Return the sha256 of the file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with open_bytes(uri) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def listed(uri: str) -> list[str]:
    """Return the addresses of all objects below a remote address, or those that match its pattern, sorted.

    Raise `InputError` where the store cannot be listed.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        raise InputError(f"{uri}: a web server has no list of files", hint="name each file")
    root = f"{parts.scheme}://{parts.netloc}"
    pattern = unquote(parts.path).lstrip("/")
    has_pattern = glob.has_magic(pattern)
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0] if has_pattern else pattern.rstrip("/")
    store, _ = _store(f"{root}/")
    pages = _asked(uri, lambda: list(store.list(prefix or None)))
    keys = sorted(entry["path"] for page in pages for entry in page)
    if has_pattern:
        keys = [key for key in keys if fnmatch.fnmatchcase(key, pattern) and key.count("/") == pattern.count("/")]
    return [f"{root}/{quote(key, safe='/=+:,@!$()~ -._')}" for key in keys]


class _RangeReader(io.RawIOBase):
    """A remote object as a file: each read is one request for a range."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._store, self._key = _store(uri)
        self._size = status(uri).bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        length = min(len(view), self._size - self._at)
        if length <= 0:
            return 0
        content = _asked(self._uri, lambda: self._store.get_range(self._key, start=self._at, length=length))
        view[:length] = memoryview(content).cast("B")
        self._at += length
        return length


def _store(uri: str) -> tuple[Any, str]:
    """Return the store that an address names, and the key in it."""
    # Importing takes time that those who read local files should not pay.
    from obstore.store import from_url

    parts = urlsplit(checked(uri))
    key = unquote(parts.path).lstrip("/")
    try:
        if parts.scheme in ("http", "https"):
            options: Any = {"allow_http": parts.scheme == "http"}
            folder, _, name = parts.path.rpartition("/")
            query = f"?{parts.query}" if parts.query else ""
            return from_url(f"{parts.scheme}://{parts.netloc}{folder}/", client_options=options), unquote(name) + query
        return from_url(f"{parts.scheme}://{parts.netloc}"), key
    except Exception as error:
        raise InputError(f"{uri}: {_first_line(error)}") from error


def _asked(uri: str, request: Any) -> Any:
    # obstore has an own tree of errors, and plain ones for files that are not there
    from obstore.exceptions import BaseError

    try:
        return request()
    except FileNotFoundError as error:
        raise InputError(f"{uri}: there is no such file") from error
    except (BaseError, OSError) as error:
        raise InputError(
            f"{uri}: cannot be read: {_first_line(error)}", hint="credentials and endpoint come from the environment"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def matches(pattern: str) -> Iterator[str]:
    """Yield the local files that match a pattern, sorted."""
    for name in sorted(glob.glob(pattern, recursive=True)):
        if Path(name).is_file():
            yield name
