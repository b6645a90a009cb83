"""The other workers, as one that needs their partitions sees them.

An attempt names the partitions that it reads, each with the address of the worker that has it (`plan.physical.partition_of`). What
is not here yet is fetched into the own spool, a few files at a time, and compared with the digest in its name. Bytes that were
damaged on the way are fetched once more. What cannot be had is reported together, so that the coordinator has all of it made again
at once; if a worker cannot be reached, its address is reported too, because then none of its partitions can be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from qengine.errors import ClusterError, PartitionLostError, WorkerLostError
from qengine.execution.spool import Spool
from qengine.plan.physical import QueryId
from qengine.transport.channel import LOCAL
from qengine.transport.grpc_channel import GrpcChannel
from qengine.transport.tls import TlsFiles

_AT_ONCE = 4
_TRIES = 2


class Peers:
    """Connections to other workers, made as they are needed."""

    def __init__(self, spool: Spool, tls: TlsFiles | None) -> None:
        self._spool = spool
        self._tls = tls
        self._channels: dict[str, GrpcChannel] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, query: QueryId, pulls: Iterable[tuple[str, str]], on_piece: Callable[[], None]) -> None:
        """Have all these partitions (names and addresses) here. `on_piece` is called as they come. Raise `PartitionLostError`."""
        wanted = [(name, address) for name, address in pulls if not self._spool.has_partition(query, name)]
        ends = await asyncio.gather(
            *(self._one(query, name, address, on_piece) for name, address in wanted), return_exceptions=True
        )
        lost: list[str] = []
        gone: list[str] = []
        why = ""
        for (name, address), end in zip(wanted, ends, strict=True):
            if isinstance(end, ClusterError):
                lost.append(name)
                why = why or end.message
                if isinstance(end, WorkerLostError):
                    gone.append(address)
            elif isinstance(end, BaseException):
                raise end
        if lost:
            raise PartitionLostError(why, details={"partitions": lost, "addresses": sorted(set(gone))})

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def _one(self, query: QueryId, name: str, address: str, on_piece: Callable[[], None]) -> None:
        if address.startswith(LOCAL):
            raise ClusterError(f"partition {name} is in a directory of another process, {address}")
        async with self._turns:
            for tries in range(_TRIES):
                try:
                    await self._pull(query, name, address, on_piece)
                    return
                except WorkerLostError:
                    raise
                except ClusterError:
                    if tries + 1 == _TRIES:
                        raise

    async def _pull(self, query: QueryId, name: str, address: str, on_piece: Callable[[], None]) -> None:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = GrpcChannel(address, tls=self._tls)
        writer = self._spool.partition_writer(query, name)
        try:
            async for piece in channel.pull(query, name):
                await asyncio.to_thread(writer.write, piece)
                on_piece()
            writer.finish(name.split("-")[0])
        finally:
            writer.abort()
