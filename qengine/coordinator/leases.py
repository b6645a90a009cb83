"""Leases on the snapshots that long queries read, so that nobody removes their files meanwhile.

Every so often the snapshots of all running queries are leased for a few times as long. Queries that are over before that need no
lease: files of an expired snapshot stay for minutes (`loader.collect`). A coordinator that dies stops renewing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from qengine.errors import QEngineError

log = logging.getLogger(__name__)

EVERY_S = 20.0
_TIMES = 6

Reading = Callable[[], Collection[tuple[str, int]]]
"""Returns the snapshots (catalogue and number) that are being read."""

Hold = Callable[[str, Collection[tuple[str, int]], float], None]
"""Leases snapshots (catalogue and number) for a holder for so many seconds, in place of what it held."""


@asynccontextmanager
async def leasing(
    reading: Callable[[], Collection[tuple[str, int]]], hold: Hold, *, every_s: float = EVERY_S
) -> AsyncIterator[None]:
    """Keep leases on what `reading` returns until the block ends."""
    holder = uuid4().hex
    keeping = asyncio.create_task(_keep(holder, reading, hold, every_s))
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def _keep(holder: str, reading: Reading, hold: Hold, every_s: float) -> None:
    is_holding = False
    try:
        while True:
            await asyncio.sleep(every_s)
            reads = set(reading())
            if reads or is_holding:
                was_told = await _told(holder, reads, hold, every_s)
                is_holding = bool(reads) if was_told else is_holding
    finally:
        if is_holding:
            with suppress(QEngineError):
                hold(holder, (), 0.0)


async def _told(holder: str, reads: Collection[tuple[str, int]], hold: Hold, every_s: float) -> bool:
    try:
        await asyncio.to_thread(hold, holder, reads, _TIMES * every_s)
    except QEngineError as error:
        # A store that may only be read has no leases, and a registry that is away may be back next time.
        log.warning("snapshots %s could not be leased: %s", sorted(reads), error)
        return False
    return True
