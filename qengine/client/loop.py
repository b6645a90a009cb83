"""An asyncio loop in a thread of its own, for callers who are not asynchronous.

`run` waits for a coroutine in small steps, so that Ctrl-C reaches the caller at once on every platform; the coroutine is then
cancelled and given time to clean up before the interrupt goes on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STEP_S = 0.2
_CLEANUP_S = 5.0


class LoopThread:
    """A running event loop. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qengine-client", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return its result. Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(_STEP_S)
                except concurrent.futures.TimeoutError:
                    if future.done():  # the work itself timed out, not the wait for it
                        raise
        except KeyboardInterrupt:
            future.cancel()
            self._settle()
            raise

    def _settle(self) -> None:
        """Wait until cancelled work has cleaned up, or for a few seconds."""

        async def others() -> None:
            pending = asyncio.all_tasks() - {asyncio.current_task()}
            cancelling = [task for task in pending if task is not None and task.cancelling()]
            if cancelling:
                await asyncio.wait(cancelling, timeout=_CLEANUP_S)

        asyncio.run_coroutine_threadsafe(others(), self._loop).result(2 * _CLEANUP_S)

    def close(self) -> None:
        """Cancel what still runs and end the thread. May be called twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> LoopThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
