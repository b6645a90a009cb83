"""An S3 server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.buckets import bucket_server


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The address of an empty bucket; the environment leads to it."""
    with bucket_server("sky") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield "s3://sky"
