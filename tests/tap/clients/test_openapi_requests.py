"""Requests that Schemathesis makes of the OpenAPI document, as its users and as nobody: answers are as it says, and no 5xx."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

pytestmark = pytest.mark.slow

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="session")
def api(live: str) -> schemathesis.BaseSchema:
    with requests.Session() as session:
        session.trust_env = False
        document = session.get(f"{live}/openapi.json", timeout=30).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=live.removesuffix("/tap"))
    return schema


def test_answers_are_as_documented(api: schemathesis.BaseSchema, prepared: tuple[Path, str]) -> None:
    seen = []
    with requests.Session() as session:
        session.trust_env = False
        for found in api.get_all_operations():
            operation = found.ok()

            @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case: schemathesis.Case) -> None:
                for headers in ({}, {"Authorization": f"Bearer {prepared[1]}"}):
                    response = case.call(session=session, headers=headers, timeout=30)
                    case.validate_response(response, checks=CHECKS)
                    assert "Traceback" not in response.text

            ask()
            seen.append(operation.label)
    assert {"POST /tap/query-plan", "PUT /tap/mydb/{name}"} <= set(seen)
