"""The processes of a service tell each other how many queries of whom they have, so that limits hold for all together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qengine.catalog.demand import DemandStore
from qengine.errors import RegistryError
from qengine.tap.limits import Gate

log = logging.getLogger(__name__)

_EVERY_S = 1.0


@asynccontextmanager
async def sharing(gate: Gate, store: DemandStore, *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Keep the gate told of the others, and them of it, as long as the context lasts.

    Where the registry does not answer, or cannot be written to, each process goes on with what it counts itself.
    """
    telling = asyncio.create_task(_tell(gate, store, every_s))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        try:
            await asyncio.to_thread(store.leave)
        except RegistryError:
            log.debug("the registry was not told that this process leaves", exc_info=True)


async def _tell(gate: Gate, store: DemandStore, every_s: float) -> None:
    is_heard = True
    while True:
        try:
            gate.hear(await asyncio.to_thread(store.exchange, gate.demand()))
            is_heard = True
        except RegistryError as error:
            if is_heard:
                log.warning("limits are counted for this process alone: %s", error)
            is_heard = False
            gate.hear({})
        await asyncio.sleep(every_s)
