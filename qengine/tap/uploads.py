"""UPLOAD: tables that come with a request.

The parameter may be given several times, and one value may hold several (`a,param:x;b,http://host/y`, the older form).
`param:<part>` names a part of the same multipart request; what is at an http or https address is fetched (`upload_fetch`).

Whatever it is, it is on the disk before it is looked at. It is read by threads of its own, few, so that large tables make each
other wait and nothing else.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog import durable
from qengine.errors import StoreUnavailableError, UploadError
from qengine.tap.parameters import Parameters
from qengine.tap.upload_fetch import Fetcher
from qengine.tap.upload_read import read_upload
from qengine.tap.upload_scan import UploadLimits

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NAME_LETTERS = 64
_FETCHED = ("http", "https")
_READERS = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """One uploaded table: its name in TAP_UPLOAD, and the part of the request that holds it or the address where it is."""

    name: str
    part: str = ""
    address: str = ""


def wanted_uploads(values: Iterable[str], tables: int = UploadLimits().tables) -> tuple[Wanted, ...]:
    """Return what the values of UPLOAD ask for, at most so many. Raise `UploadError` that says what is wrong with which."""
    found: dict[str, Wanted] = {}
    for piece in (piece.strip() for value in values for piece in value.split(";")):
        if not piece:
            continue
        name, _, uri = (word.strip() for word in piece.partition(","))
        if not uri:
            raise UploadError(f"UPLOAD={piece[:80]} is not <name>,<address>", hint="for example UPLOAD=mine,param:file")
        if not _NAME.fullmatch(name) or len(name) > _NAME_LETTERS:
            raise UploadError(
                f"UPLOAD: {name[:80]!r} cannot be the name of a table", hint=f"use letters, digits and _, at most {_NAME_LETTERS}"
            )
        wanted = _wanted(name, uri)
        if found.setdefault(name.lower(), wanted) != wanted:
            raise UploadError(f"UPLOAD names two tables {name}", hint="give each another name")
    if len(found) > tables:
        raise UploadError(f"UPLOAD names {len(found)} tables", hint=f"send at most {tables}")
    return tuple(found.values())


def _wanted(name: str, uri: str) -> Wanted:
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "param" and rest:
        return Wanted(name, rest)
    if scheme.lower() in _FETCHED:
        return Wanted(name, address=uri)
    raise UploadError(
        f"UPLOAD: {name}: {scheme[:20]!r} is no kind of address that is read here",
        hint=f"send it inline, {name},param:file, or give an http or https address",
    )


class Uploads:
    """Receives the uploaded tables of requests, under limits."""

    def __init__(self, limits: UploadLimits | None = None, *, fetcher: Fetcher | None = None) -> None:
        self.limits = limits or UploadLimits()
        self._fetcher = fetcher or Fetcher(self.limits)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="upload-read")

    def bytes_for(self, allowed: float | None) -> int:
        """Return how many bytes the tables of a request may have, of somebody who is allowed so many."""
        return self.limits.bytes if allowed is None else int(min(allowed, self.limits.bytes))

    async def received(self, parameters: Parameters, *, allowed: float | None = None) -> dict[str, pa.Table]:
        """Return the uploaded tables of a request by name; they may have `allowed` bytes together. Raise `UploadError`."""
        wanted = wanted_uploads(parameters.values.get("UPLOAD", ()), self.limits.tables)
        if not wanted:
            return {}
        sent = _sent(wanted, parameters)
        limits = replace(self.limits, bytes=self.bytes_for(allowed))
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="qengine-upload-") as folder:
            paths = [Path(folder) / str(number) for number in range(len(wanted))]
            try:
                async with asyncio.timeout(limits.fetch_s if any(one.address for one in wanted) else None):
                    for one, path in zip(wanted, paths, strict=True):
                        if one.address:
                            await self._fetcher.fetch(one.address, one.name, path, size=limits.bytes)
                        else:
                            await loop.run_in_executor(self._readers, _copy, sent[one.part], path)
            except TimeoutError:
                raise UploadError(
                    f"UPLOAD: the tables at addresses did not come within {limits.fetch_s:g} s", hint="send them inline"
                ) from None
            if sum(path.stat().st_size for path in paths) > limits.bytes:
                raise UploadError(f"UPLOAD: the tables have together more than {limits.bytes:,} bytes", hint="send less at a time")
            return await loop.run_in_executor(self._readers, _read, wanted, paths, limits)


def _sent(wanted: tuple[Wanted, ...], parameters: Parameters) -> Mapping[str, IO[bytes]]:
    """Return the parts of a request that hold tables."""
    # a part without a file name is a text among the parameters
    texts = {one.part: text[0] for one in wanted if one.part and (text := parameters.values.get(one.part.upper()))}
    found: dict[str, IO[bytes]] = {part: io.BytesIO(text.encode()) for part, text in texts.items()}
    found |= parameters.files
    if missing := [one for one in wanted if one.part and one.part not in found]:
        raise UploadError(
            f"UPLOAD: {missing[0].name}: the request has no part {missing[0].part[:80]!r}", hint="send it as multipart/form-data"
        )
    return found


def save(uploads: Mapping[str, pa.Table], folder: Path) -> dict[str, dict[str, Any]]:
    """Write tables into a folder, one file each, and return `file` and `bytes` of each by name."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = {}
    for name, table in uploads.items():
        path = folder / f"upload-{uuid4().hex}.parquet"
        draft = path.with_name(f".{path.name}.tmp")
        pq.write_table(table, draft, compression="lz4")
        saved[name] = {"file": path.name, "bytes": draft.stat().st_size}
        durable.place(draft, path)
    return saved


def load(paths: Mapping[str, Path]) -> dict[str, pa.Table]:
    """Return the tables that `save` wrote, by name. Raise `StoreUnavailableError` if one is lost."""
    try:
        return {name: pq.read_table(path) for name, path in paths.items()}
    except (OSError, pa.ArrowException) as error:
        raise StoreUnavailableError("an uploaded table of the job cannot be read any more", hint="send the job anew") from error


def _copy(stream: IO[bytes], path: Path) -> None:
    stream.seek(0)
    with path.open("wb") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)


def _read(wanted: Iterable[Wanted], paths: Iterable[Path], limits: UploadLimits) -> dict[str, pa.Table]:
    tables: dict[str, pa.Table] = {}
    for one, path in zip(wanted, paths, strict=True):
        tables[one.name] = read_upload(path, one.name, limits)
        path.unlink()
        if sum(table.nbytes for table in tables.values()) > limits.memory_bytes:
            raise UploadError(
                f"UPLOAD: the rows of the tables need more than {limits.memory_bytes:,} bytes", hint="send less at a time"
            )
    return tables
