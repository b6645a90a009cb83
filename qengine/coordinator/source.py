"""The tasks of a fragment as the dispatcher takes them: what each costs and where it lies, and a way to make it when it is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qengine.plan.physical import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSource:
    """The tasks of a fragment, made one by one when they are dispatched.

    `costs` is the expected work of each (any unit), `cells` the first cell that it reads. `make(number)` returns the task; its
    attempt, epoch and limits are filled in by the run. `describe(number)` says in messages what the task reads.
    """

    costs: npt.NDArray[np.float64]
    cells: npt.NDArray[np.int64]
    make: Callable[[int], Task]
    describe: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.costs)
