"""Damaged files of every format: rows or an `InputError` that names the file, never another exception."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from qengine.errors import InputError
from qengine.loader.sources.open import open_sources
from tests.loader.sources.makers import MAKERS, table

RUNS = 40


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, a piece cut out, or a piece put in twice."""
    raw = bytearray(content)
    kind = chance.randrange(4)
    at = chance.randrange(len(raw))
    length = chance.choice([1, 4, 64, 1000])
    if kind == 0:
        for _ in range(chance.choice([1, 3, 20])):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    elif kind == 1:
        del raw[at : at + length]
    elif kind == 2:
        raw[at:at] = raw[at : at + length]
    else:
        raw[at : at + length] = bytes(chance.randrange(256) for _ in range(length))
    return bytes(raw)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rows", [3, 400])
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, name: str, rows: int) -> None:
    maker = MAKERS[name]
    path = maker.write(table(rows, has_unicode=maker.has_unicode), tmp_path)
    content = path.read_bytes()
    chance = random.Random(f"{name} {rows}")
    for run in range(RUNS):
        path.write_bytes(damaged(content, chance))
        message = path.name
        try:
            for source in open_sources([path]):
                for batch in source.batches(source.schema.names):
                    batch.validate(full=True)
        except InputError as error:
            message = str(error)
        assert path.name in message, run
