"""What all suites share: how hypothesis searches."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples in every run; no time limit per example, because machines differ.
settings.register_profile("qengine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qengine")
