"""UPLOAD: tables that come with a request.

The parameter may be given several times, and one value may hold several (`a,param:x;b,param:y`, the older form). `param:<part>`
names a part of the same multipart request. Tables at addresses are refused: this service reads nothing from elsewhere for
strangers.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog import durable
from qengine.errors import StoreUnavailableError, UploadError
from qengine.tap.parameters import Parameters
from qengine.tap.upload_read import read_upload
from qengine.tap.upload_scan import UploadLimits

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NAME_LETTERS = 64
_TABLES = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """One uploaded table: its name in TAP_UPLOAD and the part of the request that holds it."""

    name: str
    part: str


def wanted_uploads(values: Iterable[str]) -> tuple[Wanted, ...]:
    """Return what the values of UPLOAD ask for. Raise `UploadError` that says what is wrong with which."""
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
        scheme, _, part = uri.partition(":")
        if scheme.lower() != "param" or not part:
            raise UploadError(f"UPLOAD: {name}: tables at addresses are not read here", hint=f"send it inline: {name},param:file")
        if found.setdefault(name.lower(), Wanted(name, part)) != Wanted(name, part):
            raise UploadError(f"UPLOAD names two tables {name}", hint="give each another name")
    if len(found) > _TABLES:
        raise UploadError(f"UPLOAD names {len(found)} tables", hint=f"send at most {_TABLES}")
    return tuple(found.values())


async def received(parameters: Parameters, limits: UploadLimits | None = None) -> dict[str, pa.Table]:
    """Return the uploaded tables of a request by name. Raise `UploadError`."""
    wanted = wanted_uploads(parameters.values.get("UPLOAD", ()))
    if not wanted:
        return {}
    # a part without a file name is a text among the parameters
    texts = {one.part: text[0] for one in wanted if (text := parameters.values.get(one.part.upper()))}
    files: dict[str, IO[bytes]] = {part: io.BytesIO(text.encode()) for part, text in texts.items()}
    files |= parameters.files
    if missing := [one for one in wanted if one.part not in files]:
        raise UploadError(
            f"UPLOAD: {missing[0].name}: the request has no part {missing[0].part[:80]!r}", hint="send it as multipart/form-data"
        )
    return await asyncio.to_thread(_read, wanted, files, limits or UploadLimits())


def save(uploads: Mapping[str, pa.Table], folder: Path) -> dict[str, str]:
    """Write tables into a folder, one file each, and return the file of each name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (name, table) in enumerate(uploads.items()):
        files[name] = f"upload-{number}.parquet"
        draft = folder / f".{files[name]}.tmp"
        pq.write_table(table, draft, compression="lz4")
        durable.place(draft, folder / files[name])
    return files


def load(paths: Mapping[str, Path]) -> dict[str, pa.Table]:
    """Return the tables that `save` wrote, by name. Raise `StoreUnavailableError` if one is lost."""
    try:
        return {name: pq.read_table(path) for name, path in paths.items()}
    except (OSError, pa.ArrowException) as error:
        raise StoreUnavailableError("an uploaded table of the job cannot be read any more", hint="send the job anew") from error


def _read(wanted: tuple[Wanted, ...], files: Mapping[str, IO[bytes]], limits: UploadLimits) -> dict[str, pa.Table]:
    tables = {}
    with tempfile.TemporaryDirectory(prefix="qengine-upload-") as folder:
        path = Path(folder) / "sent"
        for one in wanted:
            stream = files[one.part]
            stream.seek(0)
            with path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
            tables[one.name] = read_upload(path, one.name, limits)
    return tables
