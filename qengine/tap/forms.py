"""The body of a request as parameters: form or multipart.

Texts are in memory, and all of them together bounded by what any request may have. Files go to disk as they come, bounded by what
the one who sends them may upload.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import IO

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from qengine.errors import QueryError, RequestTooLargeError
from qengine.tap.parameters import Parameters

_FILES = 16
_TEXTS = 1000
MULTIPART = "multipart/form-data"


async def parameters_of(request: Request, *, text_bytes: int, file_bytes: int) -> Parameters:
    """Return what the address and the body of a request say. Raise `QueryError`, or `RequestTooLargeError` when all texts or all
    files of it have more bytes than they may."""
    pairs = list(request.query_params.multi_items())
    files: dict[str, IO[bytes]] = {}
    if request.method == "POST":
        for name, value in (await _form(request, text_bytes, file_bytes)).multi_items():
            if isinstance(value, UploadFile):
                files[name] = value.file
            else:
                pairs.append((name, value))
    return Parameters(Parameters.gather(pairs).values, files)


async def _form(request: Request, text_bytes: int, file_bytes: int) -> FormData:
    try:
        if not is_multipart(request.headers.get("content-type", "")):
            return await request.form(max_files=0, max_fields=_TEXTS, max_part_size=text_bytes)
        return await _Parser(request.headers, request.stream(), text_bytes=text_bytes, file_bytes=file_bytes).parse()
    except (MultiPartException, HTTPException, LookupError, ValueError) as error:
        said = getattr(error, "message", None) or getattr(error, "detail", None) or str(error) or type(error).__name__
        raise QueryError(f"the form cannot be read: {said}") from error


def is_multipart(content_type: str) -> bool:
    """Say whether a body of this type may hold files."""
    return content_type.partition(";")[0].strip().lower() == MULTIPART


class _Parser(MultiPartParser):
    """Counts bytes before they are kept anywhere."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], *, text_bytes: int, file_bytes: int) -> None:
        super().__init__(headers, stream, max_files=_FILES, max_fields=_TEXTS, max_part_size=text_bytes)
        self._text_bytes = self._texts_left = text_bytes
        self._file_bytes = self._files_left = file_bytes

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._texts_left -= end - start
            if self._texts_left < 0:
                raise RequestTooLargeError(
                    f"the texts of the request are larger than {self._text_bytes} bytes", hint="send tables as files"
                )
        else:
            self._files_left -= end - start
            if self._files_left < 0:
                raise RequestTooLargeError(
                    f"the uploaded tables have more than {self._file_bytes} bytes", hint="send the columns and rows that are needed"
                )
        super().on_part_data(data, start, end)
