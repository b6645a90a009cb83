from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from qengine.tap.app import create_app
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.http_server import serving


@pytest.fixture(scope="session")
def service() -> FakeService:
    return FakeService()


@pytest.fixture(scope="session")
def url(service: FakeService) -> Iterator[str]:
    with serving(create_app(service, TapSettings(maxrec=500, maxrec_limit=5000))) as address:
        yield f"{address}/tap"


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client
