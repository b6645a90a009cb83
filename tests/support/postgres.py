"""Empty PostgreSQL databases: schemas of their own in the database that QENGINE_TEST_POSTGRES names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import sqlalchemy as sa

VARIABLE = "QENGINE_TEST_POSTGRES"
REASON = f"{VARIABLE} is not the URL of a database"


@contextmanager
def empty_database() -> Iterator[str]:
    """Yield the URL of an empty schema, which goes away with all that is in it."""
    server = os.environ[VARIABLE]
    name = f"test_{uuid4().hex}"
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    try:
        yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{name}"
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()
