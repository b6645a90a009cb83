"""The processes of a service tell each other how many queries of whom they have, so that limits hold for all together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qengine.catalog.demand import LEASE_S, DemandStore
from qengine.errors import RegistryError
from qengine.tap.failure import as_known
from qengine.tap.limits import Gate

log = logging.getLogger(__name__)

_EVERY_S = 1.0


@asynccontextmanager
async def sharing(gate: Gate, store: DemandStore, *, every_s: float = _EVERY_S, patience_s: float = LEASE_S) -> AsyncIterator[None]:
    """Keep the gate told of the others, and them of it, as long as the context lasts.

    Where the registry does not answer for `patience_s`, or cannot be written to, each process goes on with what it counts itself.
    """
    telling = asyncio.create_task(_tell(gate, store, every_s, patience_s))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        try:
            await asyncio.to_thread(store.leave)
        except RegistryError:
            log.debug("the registry was not told that this process leaves", exc_info=True)


def _alone(gate: Gate, reason: str, *, is_new: bool) -> bool:
    """Let the gate count for itself, say so once, and return that the others are not heard."""
    if is_new:
        log.warning("limits are counted for this process alone: %s", reason)
    gate.hear({})
    return False


async def _tell(gate: Gate, store: DemandStore, every_s: float, patience_s: float) -> None:
    is_heard = True
    while True:
        try:
            asked = asyncio.ensure_future(asyncio.to_thread(store.exchange, gate.demand()))
            await asyncio.wait({asked}, timeout=patience_s)
            if not asked.done():  # what was heard before does not count for ever; one that hangs is waited for, not joined by more
                is_heard = _alone(gate, "the registry does not answer", is_new=is_heard)
            gate.hear(await asked)
            is_heard = True
        except Exception as error:  # counts that nobody renews must not stay
            is_heard = _alone(gate, str(as_known(error)), is_new=is_heard)
        await asyncio.sleep(every_s)
