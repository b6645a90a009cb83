"""Leases follow what is read, and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from qengine.coordinator.leases import leasing
from qengine.errors import RegistryError

Reads = Collection[tuple[str, int]]


class Book:
    """What a registry would be told."""

    def __init__(self, failures: int = 0) -> None:
        self.told: list[set[tuple[str, int]]] = []
        self.holders: set[str] = set()
        self.failures = failures
        self.reads: set[tuple[str, int]] = set()

    def hold(self, holder: str, reads: Reads, seconds: float) -> None:
        if self.failures:
            self.failures -= 1
            raise RegistryError("away")
        self.told.append(set(reads))
        self.holders.add(holder)

    async def until(self, last: set[tuple[str, int]]) -> None:
        async with asyncio.timeout(20):
            while not self.told or self.told[-1] != last:
                await asyncio.sleep(0.001)


def test_leases_begin_and_end_with_the_queries() -> None:
    async def story() -> Book:
        book = Book(failures=2)
        async with leasing(lambda: book.reads, book.hold, every_s=0.002):
            await asyncio.sleep(0.02)
            assert book.told == []
            book.reads = {("dp1", 3), ("gaia", 1)}
            await book.until(book.reads)
            book.reads = {("gaia", 1)}
            await book.until(book.reads)
            book.reads = set()
            await book.until(set())
            count = len(book.told)
            await asyncio.sleep(0.02)
            assert len(book.told) == count
            book.reads = {("dp1", 4)}
            await book.until(book.reads)
        return book

    book = asyncio.run(story())
    assert book.told[-1] == set()
    assert len(book.holders) == 1
