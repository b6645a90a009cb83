"""The files of a store in an object store (S3), with a near copy in a directory.

An address is `s3://bucket/prefix`; keys are the prefix and the URI of the file. Endpoint, region and credentials come from the
environment (`storage.remote`), are asked of it by each process for itself, and go into no file, message or record.

Requests that fail are repeated for some seconds; then `StoreUnavailableError` names the address. Several processes may fetch one
file at once: one of them does, the others wait for it (a lock beside the file, which dies with its holder).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from qengine.errors import ConfigError, IntegrityError, StoreUnavailableError
from qengine.storage.remote import checked

_SCHEMES = ("s3", "s3a")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 4 << 20
_THREADS = 8
_RETRY: dict[str, Any] = {
    "max_retries": 5, "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=4), "base": 2},
}  # fmt: skip
_CLIENT: dict[str, Any] = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(minutes=10)}
_CLAIM = "_registry.json"

_T = TypeVar("_T")


def is_bucket(address: str | Path) -> bool:
    """Return whether the address is of an object store (a `Path` of one has lost a slash)."""
    return re.match(r"s3a?:/", str(address)) is not None


def bucket_address(address: str | Path) -> str:
    """Return the address as `s3://bucket/prefix`. Raise `ConfigError` if it is not one."""
    parts = urlsplit(checked(re.sub(r"^(s3a?):/+", r"\1://", str(address))))
    if parts.scheme not in _SCHEMES or not parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{address} is no place for a store", hint="name a directory, or s3://BUCKET/PREFIX")
    return f"s3://{parts.netloc}/{parts.path.strip('/')}".rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """Key (below the prefix) and bytes of an object."""

    key: str
    bytes: int


class Bucket:
    """The objects below an address. Can be handed to other processes; each has connections of its own."""

    def __init__(self, address: str) -> None:
        # Here, and not where it is used first: there several threads may be at once, and one would meet half a module. (Not at the
        # top: those with a directory should not pay for it.)
        import obstore.exceptions
        import obstore.store

        self.address = bucket_address(address)
        self._library = obstore
        self._client: Any = None

    def __reduce__(self) -> tuple[type[Bucket], tuple[str]]:
        return Bucket, (self.address,)

    def put(self, key: str, source: Path | bytes, *, is_new: bool = False) -> bool:
        """Make an object of a file or of bytes, whole or not at all. With `is_new` an object that is there stays; return whether
        this one was made."""
        try:
            self._ask(key, lambda store: self._library.put(store, key, source, mode="create" if is_new else "overwrite"))
        except self._library.exceptions.AlreadyExistsError:
            return False
        except FileNotFoundError as error:
            raise StoreUnavailableError(f"{self.address}: there is no such bucket", hint="make it, or check --store") from error
        return True

    def head(self, key: str) -> ObjectStatus | None:
        """Return the status of an object, None if there is none."""
        try:
            found = self._ask(key, lambda store: store.head(key))
        except FileNotFoundError:
            return None
        return ObjectStatus(key=key, bytes=int(found["size"]))

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, None if there is none."""
        try:
            return bytes(self._ask(key, lambda store: store.get(key).bytes()))
        except FileNotFoundError:
            return None

    def fetch(self, key: str, target: Path, *, must_stop: Callable[[], bool] = lambda: False) -> bool:
        """Write an object to a new file and return whether there is one. The bytes are checked if the name is their sha256.

        Raise `IntegrityError` (naming the address) if they are wrong or cut short; `InterruptedError` when told to stop.
        """
        digest = hashlib.sha256()

        def copy(store: Any) -> None:
            found = store.get(key)
            size = 0
            with target.open("wb") as file:
                for chunk in found.stream(min_chunk_size=_CHUNK):
                    if must_stop():
                        raise InterruptedError(f"{self.uri(key)}: the fetch was stopped")
                    view = memoryview(chunk).cast("B")
                    digest.update(view)
                    file.write(view)
                    size += len(view)
            if size != found.meta["size"]:
                raise StoreUnavailableError(f"{self.uri(key)}: {size:,} of {found.meta['size']:,} bytes came")

        try:
            self._ask(key, copy)
        except FileNotFoundError:
            return False
        name = key.rpartition("/")[2].partition(".")[0]
        if _DIGEST.fullmatch(name) and digest.hexdigest() != name:
            uri = self.uri(key)
            raise IntegrityError(
                f"part {uri} is damaged: its sha256 is {digest.hexdigest()}", hint="run a repair, or load the table again",
                details={"uri": uri},
            )  # fmt: skip
        return True

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._ask(key, methodcaller("delete", key))

    def list(self, prefix: str = "") -> Iterator[ObjectStatus]:
        """Yield all objects in the folder `prefix`."""
        pages = self._ask(prefix, lambda store: list(store.list(prefix or None)))
        for entry in (entry for page in pages for entry in page):
            yield ObjectStatus(key=entry["path"], bytes=int(entry["size"]))

    def uri(self, key: str) -> str:
        """Return the address of an object, for messages."""
        return f"{self.address}/{quote(key)}" if key else self.address

    def _ask(self, key: str, request: Callable[[Any], _T]) -> _T:
        errors = self._library.exceptions  # a tree of its own
        try:
            if self._client is None:
                settings: dict[str, Any] = {"retry_config": _RETRY, "client_options": {**_CLIENT, "allow_http": _may_be_plain()}}
                self._client = self._library.store.from_url(self.address, **settings)
            return request(self._client)
        except (FileNotFoundError, errors.AlreadyExistsError, InterruptedError):
            raise
        except errors.BaseError as error:
            # the server's own words come after this one, and may hold the name of a key
            words = next(iter(str(error).splitlines()), type(error).__name__).partition("<")[0].rstrip(": ")[:300]
            raise StoreUnavailableError(
                f"{self.uri(key)}: the object store does not do it: {words}",
                hint="check AWS_ENDPOINT_URL, AWS_REGION and the credentials in the environment (docs/object-store.md)",
            ) from error


@dataclass(frozen=True, slots=True)
class BucketFiles:
    """The files of a store whose objects are in `bucket` and whose near copy is the directory `root`."""

    root: Path
    bucket: Bucket

    @property
    def is_far(self) -> bool:
        return True

    @property
    def place(self) -> str:
        return self.bucket.address

    def keep(self, paths: Iterable[Path]) -> None:
        def put(path: Path) -> None:
            key = self._key(path)
            # what is named by its digest and there is the same: a load that was resumed has put it before
            if _DIGEST.fullmatch(path.stem) and (found := self.bucket.head(key)) and found.bytes == path.stat().st_size:
                return
            self.bucket.put(key, path)

        with ThreadPoolExecutor(_THREADS, "put") as pool:
            for _ in pool.map(put, list(paths)):
                pass

    def need(self, path: Path) -> Path:
        if not path.is_relative_to(self.root) or path.is_file():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.is_file():
                self._fetch(path)
        return path

    def exists(self, path: Path) -> bool:
        return self.bucket.head(self._key(path)) is not None

    def remove(self, path: Path) -> None:
        self.bucket.delete([self._key(path)])
        path.unlink(missing_ok=True)

    def listed(self, folder: Path) -> Iterator[tuple[Path, int]]:
        prefix = "" if folder == self.root else self._key(folder)
        for found in self.bucket.list(prefix):
            yield self.root / found.key, found.bytes

    def follow(self, folder: Path) -> None:
        there = {path for path, _ in self.listed(folder)}
        with ThreadPoolExecutor(_THREADS, "follow") as pool:
            for _ in pool.map(self._fetch, sorted(there)):
                pass
        for path in folder.rglob("*"):
            if path.is_file() and path not in there:
                path.unlink(missing_ok=True)

    def forget(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def claim(self, registry: str, *, is_taking_over: bool = False) -> None:
        """Note that this registry (a name of it) is the store's. Raise `ConfigError` if the store has another one.

        Two registries would give the same number to different snapshots, and each would sweep the other's parts.
        """
        words = json.dumps({"registry": registry}, indent=1).encode()
        known = self.owner()
        if is_taking_over and known != registry:
            self.bucket.put(_CLAIM, words)
        elif known is None and not self.bucket.put(_CLAIM, words, is_new=True):
            known = self.owner()  # somebody was faster
        if not is_taking_over and known not in (None, registry):
            raise ConfigError(
                f"{self.place} belongs to another registry ({known}), not to {registry}",
                hint="use that one; if it is lost, `qengine registry rebuild` makes one from the store",
            )

    def owner(self) -> str | None:
        """Return the name of the store's registry, None if it has none yet."""
        words = self.bucket.read(_CLAIM)
        return None if words is None else str(json.loads(words)["registry"])

    def _fetch(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            if self.bucket.fetch(self._key(path), draft):
                os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _may_be_plain() -> bool:
    """Return whether the endpoint may be without TLS. Raise `ConfigError` if it is, and nobody allowed it."""
    is_allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://") and not is_allowed:
        raise ConfigError("AWS_ENDPOINT_URL is without TLS", hint="use https, or set AWS_ALLOW_HTTP=true in a network you trust")
    return is_allowed


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file that may have to be fetched."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Who had it before has removed it: whoever came then has made another one.
            if not is_same(file.fileno(), lock):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def is_same(file: int, path: Path) -> bool:
    """Return whether the open file still has this name."""
    try:
        return path.stat().st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False
