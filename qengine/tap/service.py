"""What the TAP front asks of the engine. `coordinator.service.QueryService` is the engine's own answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn
from qengine.catalog.who import FROM_HERE, LOCAL, Identity, Origin
from qengine.coordinator.progress import QueryProgress
from qengine.coordinator.watch import WorkerState


class Answer(Protocol):
    """The rows of a query as they come."""

    @property
    def columns(self) -> tuple[OutputColumn, ...]: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def batches(self) -> AsyncIterator[pa.RecordBatch]: ...
    @property
    def is_overflow(self) -> bool:
        """Whether MAXREC cut the rows; known when the batches have ended."""

    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def snapshots(self) -> Mapping[str, int]: ...
    @property
    def statement(self) -> str: ...
    @property
    def query(self) -> str:
        """The id of the query."""

    async def close(self) -> None:
        """End the query wherever it runs; may be called at any time, also twice."""


class Explained(Protocol):
    """A plan in words and as values."""

    def to_text(self) -> str: ...
    def to_json(self) -> Mapping[str, Any]: ...


class AnsweringService(Protocol):
    """Answers statements and knows the tables, each for the identity that asks."""

    async def query(
        self,
        text: str,
        *,
        language: str = "adql",
        maxrec: int | None = None,
        snapshots: Mapping[str, int | str] | None = None,
        query_id: str | None = None,
        max_cost: str = "",
        identity: Identity = LOCAL,
        origin: Origin = FROM_HERE,
        uploads: Mapping[str, pa.Table] | None = None,
    ) -> Answer: ...
    async def explain(
        self,
        text: str,
        *,
        language: str = "adql",
        analyze: bool = False,
        snapshots: Mapping[str, int | str] | None = None,
        max_cost: str = "",
        identity: Identity = LOCAL,
        uploads: Mapping[str, pa.Table] | None = None,
    ) -> Explained: ...
    def catalog(self, *, identity: Identity = LOCAL) -> Catalog:
        """Return what `identity` may read."""

    def progress(self, query: str, *, identity: Identity = LOCAL) -> QueryProgress:
        """Return how far a query is; raise `UnknownNameError` for one that is not known (any more), or somebody else's."""

    def running(self, *, identity: Identity = LOCAL) -> tuple[QueryProgress, ...]: ...
    def workers(self) -> tuple[WorkerState, ...]: ...
    async def cancel(self, query: str, *, identity: Identity = LOCAL) -> None:
        """End a query; raise `UnknownNameError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TapSettings:
    """How the TAP service presents and limits itself.

    `maxrec` is used when a request names none, `maxrec_limit` is the most that it may ask for; both in rows. `base_url` is the
    address that clients know, such as `https://host/tap`; empty takes it from each request. `request_bytes` bounds the body of
    a request. `is_gzip`: what clients take compressed is sent so; a proxy in front may do that instead.
    """

    title: str = "qengine"
    base_url: str = ""
    maxrec: int = 1_000_000
    maxrec_limit: int = 100_000_000
    request_bytes: int = 16 << 20
    is_gzip: bool = True
