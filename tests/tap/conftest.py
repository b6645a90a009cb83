from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.tap_server import serving_tap


@pytest.fixture(scope="session")
def service() -> FakeService:
    return FakeService()


@pytest.fixture(scope="session")
def url(service: FakeService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tap = TapSettings(maxrec=500, maxrec_limit=5000)
    with serving_tap(service, tmp_path_factory.mktemp("store"), tap=tap) as address:
        yield address


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client
