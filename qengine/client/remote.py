"""A client of a running service, over TAP: the same verbs as the local one.

Results come as an Arrow stream whose schema describes the columns and whose last, empty batch says how it ended. Only the
standard library is needed. Errors of the service are raised as the same classes that a local query raises.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from qengine.catalog.output import HEADER_KEY, STATUS_KEY, from_arrow_schema
from qengine.catalog.summary import TableSummary
from qengine.client.result import Result
from qengine.client.watching import ProgressWatcher, Tell
from qengine.coordinator.progress import QueryProgress
from qengine.errors import (
    ClusterError,
    ConfigError,
    ProtocolError,
    QEngineError,
    QueryCancelledError,
    UnknownNameError,
    error_from_json,
)

_LANGUAGES = {"adql": "ADQL", "adql-strict": "ADQL-2.1-strict", "sql": "SQL"}
_TOKEN = "QENGINE_TOKEN"
_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """A plan that the service made."""

    text: str
    tree: Mapping[str, Any]

    def to_text(self) -> str:
        return self.text

    def to_json(self) -> Mapping[str, Any]:
        return self.tree

    def __str__(self) -> str:
        return self.text


class RemoteClient:
    """Queries a running service. `url` is that of its TAP service, or the host's root above `/tap`.

    `token` says who asks; an empty one is taken from the variable QENGINE_TOKEN, and without that nobody in particular asks.
    """

    def __init__(self, url: str, *, token: str = "") -> None:
        self._token = token or os.environ.get(_TOKEN, "")
        try:
            parts = urllib.parse.urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not match, or a port that is none
            is_address = False
        if not is_address:
            raise ConfigError(f"{url} is not an http address", hint="for example http://localhost:8080")
        path = parts.path.rstrip("/")
        self._base = f"{parts.scheme}://{parts.netloc}{path if path.endswith('/tap') else path + '/tap'}"

    @property
    def url(self) -> str:
        """The address of the TAP service."""
        return self._base

    def query(
        self,
        text: str,
        lang: str = "adql",
        *,
        maxrec: int | None = None,
        snapshots: Mapping[str, int | str] | None = None,
        max_cost: str = "",
        on_progress: Tell | None = None,
    ) -> Result:
        """Run a statement. Errors in it are raised here; rows arrive as the result is read.

        `lang` is adql, adql-strict or sql; `maxrec` cuts the rows (the service has a limit of its own; `Result.is_overflow` says
        when it was met); `snapshots` maps catalogues to numbers, tags or times of snapshots; what is estimated above `max_cost`,
        such as "10GB,60s", is refused; `on_progress` is called twice a second, from another thread.
        """
        fields = [("LANG", _lang(lang)), ("QUERY", text), ("RESPONSEFORMAT", "arrow")]
        if maxrec is not None:
            fields.append(("MAXREC", str(maxrec)))
        fields += [("SNAPSHOT", f"{catalog}:{number}") for catalog, number in (snapshots or {}).items()]
        if max_cost:
            fields.append(("MAXCOST", max_cost))
        # The id is chosen here, so that progress can be asked for before the first rows, and the id, come.
        query = uuid.uuid4().hex

        def fetch() -> QueryProgress:
            return self.progress(query)

        watcher = ProgressWatcher(fetch, on_progress) if on_progress is not None else None
        try:
            return Result(_RemoteRows(self._open("sync", fields, query=query), self._base, query, fetch, watcher))
        except BaseException:
            if watcher is not None:
                watcher.stop()
            raise

    def progress(self, query: str) -> QueryProgress:
        """Return how far a query of the service is that runs or ended not long ago."""
        with self._open(f"progress/{urllib.parse.quote(query, safe='')}") as response:
            return QueryProgress.from_json(json.loads(response.read()))

    def running(self) -> tuple[QueryProgress, ...]:
        """Return all queries that run on the service."""
        return tuple(QueryProgress.from_json(plain) for plain in self._status()["queries"])

    def workers(self) -> tuple[Mapping[str, Any], ...]:
        """Return the state of the service's workers: worker, health, slots, error."""
        return tuple(self._status()["workers"])

    def cancel(self, query: str) -> None:
        """End a query of the service; its reader's next read fails with `QueryCancelledError`."""
        self._open(f"progress/{urllib.parse.quote(query, safe='')}", method="DELETE").close()

    def _status(self) -> Mapping[str, Any]:
        with self._open("progress") as response:
            return dict(json.loads(response.read()))

    def explain(self, text: str, lang: str = "adql", *, analyze: bool = False, max_cost: str = "") -> RemotePlan:
        """Return the plan of a statement. With `analyze` the service runs and measures it, unless it is estimated above
        `max_cost`."""
        fields = [("LANG", _lang(lang)), ("QUERY", text), ("ANALYZE", str(int(analyze))), ("MAXCOST", max_cost)]
        with self._open("query-plan", [*fields, ("RESPONSEFORMAT", "json")]) as response:
            tree = json.loads(response.read())
        return RemotePlan(tree.pop("text"), tree)

    def tables(self) -> tuple[TableSummary, ...]:
        """Return what can be queried."""
        with self._open("tables?RESPONSEFORMAT=json") as response:
            return tuple(TableSummary.from_json(plain) for plain in json.loads(response.read()))

    def close(self) -> None:
        """Nothing is held open between calls."""

    def __enter__(self) -> RemoteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(
        self, path: str, fields: list[tuple[str, str]] | None = None, *, query: str = "", method: str | None = None
    ) -> http.client.HTTPResponse:
        content = urllib.parse.urlencode(fields).encode() if fields else None
        headers = {"X-Query-Id": query} if query else {}
        request = urllib.request.Request(f"{self._base}/{path}", data=content, headers=headers, method=method)
        if self._token:  # for this service, and not for where it may send us
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            with error:
                raise _read_error(error.code, error.read(), self._base) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterError(f"{self._base} cannot be reached: {reason}", hint="is qengine serve running there?") from error


class _RemoteRows:
    """Rows of an Arrow stream over HTTP."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        base: str,
        query: str = "",
        fetch: Callable[[], QueryProgress] | None = None,
        watcher: ProgressWatcher | None = None,
    ) -> None:
        self.query = query
        self._fetch = fetch
        self._watcher = watcher
        self._response = response
        self._base = base
        self.is_overflow = False
        self._is_ended = False
        try:
            self._reader = pa.ipc.open_stream(response)
        except (pa.ArrowException, OSError) as error:
            response.close()
            raise ProtocolError(f"{base} did not answer with an Arrow stream", hint="is it a qengine service?") from error
        self.schema: pa.Schema = self._reader.schema
        self.columns = from_arrow_schema(self.schema)
        about = json.loads((self.schema.metadata or {}).get(HEADER_KEY, b"{}"))
        self.statement: str = about.get("statement", "")
        self.warnings: tuple[str, ...] = tuple(about.get("warnings", ()))
        self.snapshots: Mapping[str, int] = about.get("snapshots", {})

    def read(self) -> pa.RecordBatch | None:
        if self._is_ended:
            return None
        if self._response.closed:
            raise QueryCancelledError("the result was closed before all of it was read")
        try:
            found = self._reader.read_next_batch_with_custom_metadata()
        except (StopIteration, pa.ArrowException, OSError, http.client.HTTPException) as error:
            self.close()
            raise ClusterError(f"the stream from {self._base} broke off: rows are missing") from error
        status = (found.custom_metadata or {}).get(STATUS_KEY)
        if status is None:
            return found.batch
        self._is_ended = True
        self.close()
        plain = json.loads(status)
        if plain["error"]:
            raise error_from_json(plain["error"])
        self.is_overflow = plain["is_overflow"]
        return None

    def read_all(self) -> list[pa.RecordBatch]:
        return list(iter(self.read, None))

    def progress(self) -> QueryProgress:
        if self._fetch is None:
            raise UnknownNameError("the result belongs to no query of a service")
        return self._fetch()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._response.close()


def _lang(lang: str) -> str:
    if lang not in _LANGUAGES:
        raise ConfigError(f"language {lang!r} is not known", hint=f"known are {', '.join(_LANGUAGES)}")
    return _LANGUAGES[lang]


def _read_error(status: int, body: bytes, base: str) -> QEngineError:
    """Return the error that a TAP error document reports."""
    try:
        infos = {element.get("name"): element for element in ElementTree.fromstring(body).iter() if element.tag.endswith("INFO")}
    except ElementTree.ParseError:
        infos = {}
    if (exact := infos.get("QENGINE_ERROR")) is not None:
        return error_from_json(json.loads(exact.get("value") or "{}"))
    if (told := infos.get("QUERY_STATUS")) is not None:
        return ClusterError(told.text or "the service reports an error")
    return ProtocolError(f"{base} answered with HTTP status {status}", hint="is it the address of a qengine service?")
