"""Mutual TLS between coordinator and worker, with certificates made for the test by the openssl program."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qengine.errors import WorkerLostError
from qengine.plan.physical import TaskEvent
from qengine.transport.grpc_channel import GrpcChannel
from qengine.transport.tls import TlsFiles
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.tasks import collect, error_of, make_task, rows_of

EXTENSION = "subjectAltName=DNS:worker.test,IP:127.0.0.1"


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def _authority(folder: Path) -> None:
    folder.mkdir()
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2",
             "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem"))  # fmt: skip


def _member(folder: Path, name: str) -> TlsFiles:
    """Make a certificate that the folder's authority signs."""
    request, extension = folder / f"{name}.csr", folder / "extension"
    extension.write_text(EXTENSION)
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(request)
    )
    _openssl("x509", "-req", "-in", str(request), "-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial",
             "-days", "2", "-extfile", str(extension), "-out", str(folder / f"{name}.pem"))  # fmt: skip
    return TlsFiles(authority=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tls")
    _authority(root / "ours")
    _authority(root / "theirs")
    return root


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[WorkerProcess]:
    store = folder / "store"
    store.mkdir()
    with start_worker(store, settings=WorkerSettings(store_root=store, tls=_member(folder / "ours", "worker"))) as started:
        yield started


def _ask(worker: WorkerProcess, tls: TlsFiles | None) -> list[TaskEvent]:
    async def ask() -> list[TaskEvent]:
        channel = GrpcChannel(worker.address, tls=tls)
        try:
            return await collect(channel.run(make_task("SELECT 1 AS one")))
        finally:
            await channel.close()

    return asyncio.run(ask())


def test_members_talk(worker: WorkerProcess, folder: Path) -> None:
    assert rows_of(_ask(worker, _member(folder / "ours", "coordinator"))) == [{"one": 1}]


def test_strangers_are_refused(worker: WorkerProcess, folder: Path) -> None:
    stranger = _member(folder / "theirs", "coordinator")
    ours = folder / "ours" / "ca.pem"
    mixed = TlsFiles(authority=ours, certificate=stranger.certificate, key=stranger.key)
    for tls in (None, stranger, mixed):
        assert isinstance(error_of(_ask(worker, tls)), WorkerLostError)
