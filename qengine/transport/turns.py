"""Who computes next on a worker: attempts that wait for one of its slots.

A worker may be sent more attempts than it has slots, so that a slot that ends one begins the next at once, without a round trip to
the coordinator. Which one that is follows the promises of the coordinator's lanes (`coordinator.lanes`), for which the slots are
counted here once more:

* attempts that are not of a scan come first, in the order in which they asked;
* scans use at most all slots but one, unless there is only one;
* where scans have all slots, one attempt that is none runs beside them: nobody waits for the end of long work;
* an attempt that has computed for `grown_s` counts as one of a scan from then on, whatever its query was taken for.

`ask` for a turn, wait until it is `granted`, and `end` it, whatever it has come to: also one that nobody waits for any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

GROWN_S = 5.0
"""How long an attempt may compute before it is one of a scan."""


@dataclass(slots=True, eq=False)
class Turn:
    """One attempt's wish to compute."""

    is_scan: bool
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False
    growing: asyncio.TimerHandle | None = None


class Turns:
    """Deals `slots` turns at a time, and one more to an attempt that is not of a scan. Use it on a running event loop."""

    def __init__(self, slots: int, *, grown_s: float = GROWN_S) -> None:
        self._free = slots
        self._scans = max(1, slots - 1)
        self._small = 0
        self._grown_s = grown_s
        self._waiting: list[Turn] = []

    def ask(self, *, is_scan: bool) -> Turn:
        """Return a turn that is granted now or later."""
        turn = Turn(is_scan)
        self._waiting.append(turn)
        self._deal()
        return turn

    def end(self, turn: Turn) -> None:
        """Give a turn back, or no longer wait for it. Only the first call counts."""
        if turn.is_over:
            return
        turn.is_over = True
        if turn.growing is not None:
            turn.growing.cancel()
        if turn.granted.is_set():
            self._free += 1
            self._count(turn, -1)
            self._deal()
        else:
            self._waiting.remove(turn)

    def withdraw(self, turn: Turn) -> None:
        """End a turn for whoever waits for it: it is woken, and finds that the turn is over."""
        self.end(turn)
        turn.granted.set()

    def _deal(self) -> None:
        while (turn := self._next()) is not None:
            self._waiting.remove(turn)
            self._free -= 1
            self._count(turn, 1)
            turn.granted.set()
            if not turn.is_scan:
                turn.growing = asyncio.get_running_loop().call_later(self._grown_s, self._grow, turn)

    def _next(self) -> Turn | None:
        small = next((turn for turn in self._waiting if not turn.is_scan), None)
        if small is not None and (self._free > 0 or (self._free == 0 and not self._small)):
            return small
        return next((turn for turn in self._waiting if turn.is_scan), None) if self._free > 0 and self._scans > 0 else None

    def _grow(self, turn: Turn) -> None:
        self._count(turn, -1)
        turn.is_scan = True
        self._count(turn, 1)
        self._deal()

    def _count(self, turn: Turn, more: int) -> None:
        if turn.is_scan:
            self._scans -= more
        else:
            self._small += more
