"""The registry's schema, version by version.

`tables.py` is the newest version as SQLAlchemy tables; `versions/` holds the steps (alembic revisions) that lead there from an
empty database or an older version. Opening a registry takes the steps that are missing, in one transaction. The configuration
is made here, so that no alembic.ini is needed in the working directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection

from qengine.errors import RegistryError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

HEAD = "0007"
"""The newest version. It is said here, so that alembic, which takes long to import, is only needed where there is work for it."""


def is_current(connection: Connection) -> bool:
    """Return whether the database has the newest version."""
    return _version(connection) == HEAD


def is_older(connection: Connection) -> bool:
    """Return whether the database has a version that this qengine knows."""
    return _version(connection) in {revision.revision for revision in _script().walk_revisions()}


def upgrade(connection: Connection, *, to: str = HEAD) -> None:
    """Bring the database to the newest version, or a new one to the version `to`, within the caller's transaction.

    Raise `RegistryError` if the database is of a version that this qengine does not know.
    """
    from alembic import command
    from alembic.config import Config

    script = _script()
    found = _version(connection)
    if found == to:
        return
    if found is not None and found not in {revision.revision for revision in script.walk_revisions()}:
        raise RegistryError(
            f"the registry has schema version {found}, newer than {script.get_current_head()}", hint="update this qengine"
        )
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _script() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(__file__).parent))


def _version(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found
