"""PostgreSQL for tests: a server of their own where its programs are installed, or the one that QENGINE_TEST_POSTGRES names.

A server that tests start lives in a temporary folder, listens on a Unix socket there and nowhere else, and is gone with the tests. It
cannot be run by root: then it runs as the user `postgres`, whom the package makes. Each test gets an empty schema.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

VARIABLE = "QENGINE_TEST_POSTGRES"
REASON = f"no server of PostgreSQL is installed, and {VARIABLE} is not the URL of a database (Debian: apt-get install postgresql)"

NewDatabase = Callable[[], str | None]
"""Makes the database of a registry and returns its URL, None for the one that a store has by itself."""

ON_BOTH = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
"""Runs tests whose fixtures need a `database` on either kind."""

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
_USER = "postgres"
_START_S = 60


def programs() -> Path | None:
    """Return the folder of the server's programs, of the newest version; None where it cannot be started."""
    if os.geteuid() == 0 and _user() is None:
        return None
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = [Path(each) for place in _PLACES for each in glob.glob(place)]
    folders = [each for each in folders if (each / "initdb").exists() and (each / "pg_ctl").exists()]
    return max(folders, key=lambda each: (len(str(each)), str(each)), default=None)


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a database: the one that is named, or that of a server which ends with the block."""
    if url := os.environ.get(VARIABLE):
        yield url
        return
    found = programs()
    if found is None:
        raise RuntimeError(REASON)
    folder = Path(tempfile.mkdtemp(prefix="qe-pg-", dir="/tmp"))  # the path of a socket has at most 107 letters
    try:
        folder.chmod(0o755)
        if (user := _user()) is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = folder / "data"
        _run(found / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses= -c fsync=off -c shared_buffers=16MB -c max_connections=60 -k {folder}"
        _run(found / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "-t", _START_S, "start")
        try:
            yield f"postgresql+psycopg://{_USER}@/postgres?host={folder}"
        finally:
            _run(found / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def empty_database(url: str) -> Iterator[str]:
    """Yield the URL of an empty schema in a database, which goes away with all that is in it."""
    name = f"test_{uuid4().hex}"
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA {name}"))
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
    finally:
        engine.dispose()


def _user() -> pwd.struct_passwd | None:
    """Return as whom the server runs if it cannot run as who we are."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_USER)
    except KeyError:
        return None


def _run(*words: object) -> None:
    user = _user()
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
    done = subprocess.run(
        [str(word) for word in words], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=2 * _START_S, check=False, **identity,  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{words[0]} has ended with {done.returncode}:\n{done.stdout.decode(errors='replace')[-2000:]}")
