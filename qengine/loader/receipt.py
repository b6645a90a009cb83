"""Receipts: what a contribution brings to a load, kept until the load is committed.

A contribution is a few inputs for one table, by one contributor. Its receipt says how to open each input again (`Recipe`), who the
input is and which version (so its sha256 is known), and what the contributor asked for. It is one file, so a contribution is
there as a whole or not at all; its name follows from the labels, so a contributor that is not sure whether it was heard may say
it again.

`gather` makes the inputs of a table of all its receipts. Their order, which decides the numbers of inputs and so the bytes of
parts, is that of labels, within a contribution as it was given: it does not depend on who came first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from qengine.catalog.inputs import InputRecord
from qengine.errors import ConflictError, InputError
from qengine.loader.fit import agreed, is_compared_later
from qengine.loader.request import ExtraColumns, LoadRequest
from qengine.loader.sources.open import reopen
from qengine.loader.sources.source import Recipe, Source, packed, unpacked


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributed:
    """One input of a contribution. `rows` may be estimated; `modified` is seconds since 1970, 0 where nobody knows."""

    recipe: Recipe
    label: str
    version: str
    kind: str
    uri: str
    sha256: str
    bytes: int
    modified: float
    rows: int

    def record(self, *, load: int, catalog: str, table: str, number: int) -> InputRecord:
        """Return what the registry keeps of it, without counts."""
        return InputRecord(
            load=load, catalog=catalog, table=table, number=number, label=self.label, version=self.version, kind=self.kind,
            uri=self.uri, sha256=self.sha256, bytes=self.bytes,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A contribution to the table of `request` (whose inputs are left out): its inputs in the order in which they were given, the
    schema that they share, and who brought them."""

    request: LoadRequest
    inputs: tuple[Contributed, ...]
    schema: str
    contributor: str

    @property
    def name(self) -> str:
        """Return the receipt's name within its load and table."""
        labels = "\n".join(sorted(one.label for one in self.inputs))
        return hashlib.sha256(labels.encode()).hexdigest()[:32]

    @property
    def rows(self) -> int:
        """Return the rows that it brings, estimated where a format does not say."""
        return sum(one.rows for one in self.inputs)

    @property
    def bytes(self) -> int:
        """Return the bytes of its inputs."""
        return sum(one.bytes for one in self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "request": self.request.to_json(), "contributor": self.contributor, "schema": self.schema,
            "inputs": [asdict(one) for one in self.inputs],
        }  # fmt: skip

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> Receipt:
        """Return the receipt that `to_json` wrote."""
        inputs = tuple(Contributed(**{**one, "recipe": Recipe.from_json(one["recipe"])}) for one in words["inputs"])
        request = LoadRequest.from_json(words["request"])
        return cls(request=request, inputs=inputs, schema=words["schema"], contributor=words["contributor"])


def receive(request: LoadRequest, sources: Sequence[Source], *, contributor: str) -> Receipt:
    """Check what is contributed, and return the receipt: columns are the same in all inputs, labels differ, bytes can be read.

    Raise `InputError` if they do not.
    """
    schema = agreed(sources, request)
    # sha256 is computed without the interpreter's lock
    with ThreadPoolExecutor(min(len(sources), os.cpu_count() or 1), "sha256") as pool:
        inputs = tuple(pool.map(_contributed, sources))
    _unique([one.label for one in inputs], request)
    return Receipt(request=request, inputs=inputs, schema=packed(schema.remove_metadata()), contributor=contributor)


def check_against(new: Receipt, others: Sequence[Receipt]) -> None:
    """Raise `ConflictError` or `ConfigError` if a contribution does not go with earlier ones of its load and table."""
    versions = {one.label: one.version for one in new.inputs}
    kin = [other for other in others if other.request.table.lower() == new.request.table.lower()]
    for one in (one for other in kin for one in other.inputs):
        if versions.get(one.label, one.version) != one.version:
            raise ConflictError(
                f"{one.label} was contributed before with other content ({one.version[:16]}, now {versions[one.label][:16]})",
                hint="give the other input another label, or abort the load",
            )
    for other in kin:
        other.request.with_words(new.request)
        if new.request.extra_columns is not ExtraColumns.ERROR or is_compared_later(new.request):
            continue
        mine, theirs = unpacked(new.schema), unpacked(other.schema)
        if set(mine.names) != set(theirs.names):
            differing = sorted(set(mine.names) ^ set(theirs.names))[0]
            where = new.inputs[0].uri if differing in theirs.names else other.inputs[0].uri
            raise InputError(f"{where}: column {differing!r} is missing, which other contributions have")


def gather(receipts: Iterable[Receipt]) -> dict[str, tuple[LoadRequest, tuple[Contributed, ...]]]:
    """Return for every table that was contributed to what is asked for, and the inputs in their order, each label once."""
    by_table: dict[str, list[Receipt]] = {}
    for receipt in sorted(receipts, key=lambda one: (one.inputs[0].label, one.name) if one.inputs else ("", one.name)):
        by_table.setdefault(receipt.request.table, []).append(receipt)
    found = {}
    for table, ones in sorted(by_table.items()):
        request = ones[0].request
        inputs: dict[str, Contributed] = {}
        for at, receipt in enumerate(ones):
            check_against(receipt, ones[:at])
            request = request.with_words(receipt.request)
            for one in receipt.inputs:
                inputs.setdefault(one.label, one)
        found[table] = (request, tuple(inputs.values()))
    return found


def open_again(one: Contributed) -> Source:
    """Return the source of an input. Raise `InputError` if it is not what was contributed, as far as size and time tell."""
    source = reopen(one.recipe)
    now = source.identity
    if now.bytes != one.bytes or (one.modified and now.modified != one.modified):
        raise InputError(
            f"{one.uri} has been changed since it was contributed", hint="abort the load and contribute it again; inputs must stay"
        )
    return source


def _contributed(source: Source) -> Contributed:
    who = source.identity
    return Contributed(
        recipe=source.recipe, label=who.label, version=source.version(), kind=who.kind, uri=who.uri, sha256=source.sha256(),
        bytes=who.bytes, modified=who.modified, rows=source.rows,
    )  # fmt: skip


def _unique(labels: Sequence[str], request: LoadRequest) -> None:
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise InputError(f"{request.catalog}.{request.table}: the input {label} is given twice", hint="label one of them")
        seen.add(label)
