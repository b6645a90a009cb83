"""Publishing what receipts say, once: the part of the commit that knows no pipeline.

The id of the load follows from the name of the output RUN, so a task that is run again finds its own load: one that was
interrupted goes on, one that is finished is reported again. When the RUN has been extended since (more tracts), a finished load
does not hold all of the receipts; what it lacks is a further load of the same RUN.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from qengine.catalog.loads import UNFINISHED, LoadState
from qengine.catalog.registry import Registry
from qengine.errors import InputError
from qengine.loader.receipt import Receipt
from qengine.loader.transaction import Committed, Transaction
from qengine.storage.objects import Store


def load_id(run: str, number: int = 0) -> str:
    """Return the id of the load of a RUN; `number` counts those that were needed before."""
    return hashlib.sha256(f"{run}\n{number}".encode()).hexdigest()[:32]


def publish_receipts(
    receipts: Sequence[Receipt], run: str, registry: Registry, store: Store, *, context: Mapping[str, Any]
) -> Committed:
    """Publish all receipts in one transaction and return what was done; nothing is done twice.

    Raise `InputError` if there are none or they are of several catalogues, and whatever the load raises: then nothing was
    published.
    """
    catalogs = sorted({receipt.request.catalog for receipt in receipts})
    if len(catalogs) != 1:
        raise InputError(
            f"{run}: {f'receipts of {catalogs}' if catalogs else 'no receipts'}", hint="one commit is of one catalogue"
        )
    known = {load.id: load for load in registry.loads()}
    number = next(n for n in itertools.count() if load_id(run, n) not in known)
    last = known.get(load_id(run, number - 1)) if number else None
    if last is not None and last.state is LoadState.FINISHED and _has_all(receipts, registry, catalogs[0]):
        return Transaction(last, registry, store).commit()
    if last is not None and last.state in UNFINISHED:
        begun = Transaction(last, registry, store)
    else:
        about = {"run": run, **context}
        begun = Transaction.begin(catalogs[0], registry, store, context=about, name=load_id(run, number))
    if begun.load.state is LoadState.OPEN:
        for receipt in receipts:
            begun.accept(receipt)
    return begun.commit()


def _has_all(receipts: Sequence[Receipt], registry: Registry, catalog: str) -> bool:
    there = {(one.table.lower(), one.label, one.version) for one in registry.inputs(catalog)}
    return all((receipt.request.table.lower(), one.label, one.version) in there for receipt in receipts for one in receipt.inputs)
