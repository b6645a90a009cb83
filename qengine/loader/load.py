"""Loading in one step: begin, contribute, commit.

The inputs become rows of a table in one transaction (`loader.transaction`): nothing is visible before its snapshot is
published; a load that fails leaves the catalogue as it was, and one that was killed can be resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qengine.catalog.registry import Registry
from qengine.loader.executor import Executor
from qengine.loader.once import load_once
from qengine.loader.request import LoadReport, LoadRequest, Progress
from qengine.storage.objects import Store


def load(
    request: LoadRequest, registry: Registry, store: Store, *, progress: Progress | None = None, resume: bool = False,
    context: Mapping[str, Any] | None = None, wait_s: float = 0.0, executor: Executor | None = None,
) -> LoadReport:  # fmt: skip
    """Load the inputs into a table, publish it, and return what was done.

    `resume` goes on with the same load that was killed; `context` is kept with the load; other loads of the same table are
    waited for up to `wait_s`. Heavy tasks go to the `executor` if there is one (`loader.executor`); without, threads of this
    process do all. The snapshot is the same, and a load that was begun with one may be resumed with another.

    Raise `InputError` for inputs that cannot be taken, `SchemaError` or `ConfigError` for a definition that does not fit them,
    `DuplicateKeyError` if the key is not unique, `ConflictError` if another load is at work on the table or was faster.
    """
    return load_once(
        request, registry, store, progress=progress, is_resuming=resume, context=context, wait_s=wait_s, executor=executor
    )
