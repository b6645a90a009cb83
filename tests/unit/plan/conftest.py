from __future__ import annotations

import pytest

from tests.unit.plan.world import World


@pytest.fixture(scope="session")
def plan_world() -> World:
    return World()
