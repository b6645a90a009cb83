"""Users of the service, their passwords, tokens and groups, in the registry's database.

Names are kept in lower case: the catalogue of a user's own tables is named after them, and names of catalogues are unique without
regard to case. Passwords are kept as scrypt hashes with their own salt. A token is 32 random bytes behind `qengine_`; it is shown
once, and only its SHA-256 is kept, which is enough for what cannot be guessed. Whoever is disabled keeps everything but is let in
nowhere. Groups are plain names; users whom an issuer or a proxy vouches for can belong to groups here without being in `users`.

Every change is written down with a number that grows (`rights_changes`): whoever caches what is here asks `version`.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from qengine.catalog.database import Database, now, utc
from qengine.catalog.migrations.tables import GRANTS, MEMBERS, RIGHTS_CHANGES, TOKENS, USERS
from qengine.catalog.who import Identity
from qengine.errors import ConfigError, ConflictError, UnknownNameError

PREFIX = "qengine_"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.@+-]{0,63}")
_GROUP = re.compile(r"[a-z0-9/][a-z0-9_.@+:/=-]{0,127}")
"""Issuers have groups such as /rubin/dp1."""
_RESERVED = ("anonymous", "local", "public")
_SCRYPT_LOG2, _SCRYPT_R, _SCRYPT_P = 14, 8, 1
"""16 MiB and some 40 ms for each try."""
_USED_EVERY = timedelta(hours=1)
_NOBODY = f"scrypt${_SCRYPT_LOG2}${_SCRYPT_R}${_SCRYPT_P}$c2FsdHNhbHRzYWx0c2FsdA==$"
"""Stands for the password of whom we do not know, so that they wait as long as everybody for the refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user. `made` is in UTC."""

    name: str
    is_admin: bool
    is_disabled: bool
    has_password: bool
    groups: frozenset[str]
    made: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token without its secret. Times are in UTC; `used` is the hour of its last use."""

    id: str
    owner: str
    label: str
    made: datetime
    expires: datetime | None
    used: datetime | None


class Users:
    """The users of one registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- who there is ---------------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Return a number that grows with every change of users, tokens, groups, grants and states of catalogues."""
        with self._database.reading() as connection:
            if not sa.inspect(connection).has_table(RIGHTS_CHANGES.name):
                return 0
            return int(connection.execute(sa.select(sa.func.max(RIGHTS_CHANGES.c.id))).scalar_one() or 0)

    def listed(self) -> tuple[User, ...]:
        """Return all users by name."""
        with self._database.reading() as connection:
            groups = _groups(connection)
            rows = connection.execute(sa.select(USERS).order_by(USERS.c.name)).all()
        return tuple(_user(row, groups.get(row.name, frozenset())) for row in rows)

    def find(self, name: str) -> User:
        """Return a user. Raise `UnknownNameError` if there is none of this name."""
        with self._database.reading() as connection:
            row = _row(connection, name.lower())
            return _user(row, _groups(connection, row.name).get(row.name, frozenset()))

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Return the members of every group that has some."""
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(sa.select(MEMBERS).order_by(MEMBERS.c.group_name, MEMBERS.c.user_name)):
                found.setdefault(row.group_name, []).append(row.user_name)
        return {group: tuple(names) for group, names in found.items()}

    # -- changes --------------------------------------------------------------------------------------------------------------

    def add(self, name: str, *, password: str = "", is_admin: bool = False, groups: Collection[str] = ()) -> User:
        """Add a user, without a password if it is empty. Raise `ConflictError` if there is one of this name."""
        name = checked_name(name)
        groups = [checked_group(group) for group in groups]
        hashed = _hashed(password) if password else ""
        with self._database.writing() as connection:
            if connection.execute(sa.select(USERS.c.name).where(USERS.c.name == name)).first() is not None:
                raise ConflictError(f"there is a user {name} already")
            values = {"name": name, "password": hashed, "is_admin": is_admin, "is_disabled": False, "made": now()}
            connection.execute(sa.insert(USERS).values(values))
            for group in sorted(set(groups)):
                _join(connection, name, group)
            record_change(connection, f"user {name} added" + (" as administrator" if is_admin else ""))
        return self.find(name)

    def remove(self, name: str) -> None:
        """Remove a user with tokens, memberships and what was granted to them by name, so that a later user of this name inherits
        none of it."""
        name = name.lower()
        with self._database.writing() as connection:
            _row(connection, name)
            connection.execute(sa.delete(TOKENS).where(TOKENS.c.owner == name))
            connection.execute(sa.delete(MEMBERS).where(MEMBERS.c.user_name == name))
            connection.execute(sa.delete(GRANTS).where(GRANTS.c.grantee == f"user:{name}"))
            connection.execute(sa.delete(USERS).where(USERS.c.name == name))
            record_change(connection, f"user {name} removed")

    def change(
        self, name: str, *, password: str | None = None, is_admin: bool | None = None, is_disabled: bool | None = None
    ) -> User:
        """Change what is given; an empty password takes it away."""
        values: dict[str, object] = {}
        if password is not None:
            values["password"] = _hashed(password) if password else ""
        if is_admin is not None:
            values["is_admin"] = is_admin
        if is_disabled is not None:
            values["is_disabled"] = is_disabled
        with self._database.writing() as connection:
            row = _row(connection, name.lower())
            if values:
                connection.execute(sa.update(USERS).where(USERS.c.name == row.name).values(values))
                shown = ", ".join(key if key == "password" else f"{key} = {value}" for key, value in values.items())
                record_change(connection, f"user {row.name}: {shown}")
        return self.find(name)

    def join(self, name: str, group: str) -> None:
        """Put a user into a group; the user need not be one of ours."""
        name, group = checked_name(name), checked_group(group)
        with self._database.writing() as connection:
            if _join(connection, name, group):
                record_change(connection, f"user {name} joined group {group}")

    def leave(self, name: str, group: str) -> None:
        """Take a user out of a group. Raise `UnknownNameError` if they are not in it."""
        name, group = name.lower(), group.lower()
        with self._database.writing() as connection:
            found = sa.delete(MEMBERS).where(MEMBERS.c.user_name == name, MEMBERS.c.group_name == group)
            if connection.execute(found).rowcount == 0:
                raise UnknownNameError(f"{name} is not in group {group}")
            record_change(connection, f"user {name} left group {group}")

    # -- tokens ---------------------------------------------------------------------------------------------------------------

    def create_token(self, owner: str, *, label: str = "", lifetime: timedelta | None = None) -> tuple[str, Token]:
        """Return a new token's text, which is nowhere kept, and the token."""
        text = PREFIX + secrets.token_urlsafe(32)
        made = now()
        with self._database.writing() as connection:
            row = _row(connection, owner.lower())
            values = {
                "id": secrets.token_hex(4), "hash": _digest(text), "owner": row.name, "label": label, "made": made,
                "expires": made + lifetime if lifetime is not None else None,
            }  # fmt: skip
            connection.execute(sa.insert(TOKENS).values(values))
            record_change(connection, f"token {values['id']} of {row.name} made")
        return text, self._token(str(values["id"]))

    def tokens(self, owner: str = "") -> tuple[Token, ...]:
        """Return all tokens, or those of a user, the oldest first."""
        query = sa.select(TOKENS).order_by(TOKENS.c.made, TOKENS.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(TOKENS.c.owner == owner.lower()) if owner else query).all()
        return tuple(_token(row) for row in rows)

    def revoke_token(self, token: str) -> None:
        """Revoke a token by its id. Raise `UnknownNameError` if there is none."""
        with self._database.writing() as connection:
            if connection.execute(sa.delete(TOKENS).where(TOKENS.c.id == token)).rowcount == 0:
                raise UnknownNameError(f"there is no token {token}", hint="qengine token list shows their ids")
            record_change(connection, f"token {token} revoked")

    # -- proof ----------------------------------------------------------------------------------------------------------------

    def by_token(self, text: str) -> tuple[Identity, Token] | None:
        """Return whose token this is, None for nobody's: unknown, expired, or of a disabled user."""
        with self._database.reading() as connection:
            query = sa.select(TOKENS).join(USERS).where(TOKENS.c.hash == _digest(text), sa.not_(USERS.c.is_disabled))
            row = connection.execute(query).one_or_none()
            if row is None or (row.expires is not None and row.expires <= now()):
                return None
            return _identity(connection, row.owner, frozenset(), "token"), _token(row)

    def by_password(self, name: str, password: str) -> Identity | None:
        """Return the user of this name if that is their password. Takes some 40 ms, whoever asks."""
        name = name.lower() if _NAME.fullmatch(name.lower()) else ""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(USERS).where(USERS.c.name == name)).one_or_none()
        kept = row.password if row is not None and row.password else _NOBODY
        if not _matches(password, kept) or row is None or row.is_disabled:
            return None
        with self._database.reading() as connection:
            return _identity(connection, name, frozenset(), "basic")

    def vouched(self, name: str, groups: Collection[str], method: str) -> Identity | None:
        """Return the identity of somebody whom an issuer or a proxy vouches for, None for a user who is disabled here. Groups are
        those that are told and those here; administrators are those of `users`."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(USERS).where(USERS.c.name == name)).one_or_none()
            return None if row is not None and row.is_disabled else _identity(connection, name, groups, method)

    def still(self, identity: Identity) -> Identity | None:
        """Return what somebody is now who was known before, None if they are not let in any more. Of our own users groups and
        whether they are administrators are those of now; what an issuer or a proxy told stays as it was told."""
        if identity.is_anonymous:
            return identity
        with self._database.reading() as connection:
            row = connection.execute(sa.select(USERS).where(USERS.c.name == identity.user)).one_or_none()
            is_ours = identity.method in ("token", "basic")
            if (row is None and is_ours) or (row is not None and row.is_disabled):
                return None
            return _identity(connection, identity.user, frozenset(), identity.method) if is_ours else identity

    def note_use(self, token: Token) -> None:
        """Remember that a token was used, to the hour. Does nothing if that is known or cannot be written."""
        at = now().replace(minute=0, second=0, microsecond=0)
        if token.used is not None and at.replace(tzinfo=UTC) - token.used < _USED_EVERY:
            return
        with self._database.writing() as connection:
            connection.execute(sa.update(TOKENS).where(TOKENS.c.id == token.id).values(used=at))

    def _token(self, token: str) -> Token:
        with self._database.reading() as connection:
            return _token(connection.execute(sa.select(TOKENS).where(TOKENS.c.id == token)).one())


def checked_name(name: str) -> str:
    """Return the name of a user in lower case. Raise `ConfigError` for what cannot be one."""
    folded = name.lower()
    if not _NAME.fullmatch(folded) or folded in _RESERVED:
        raise ConfigError(
            f"{name!r} cannot be the name of a user",
            hint="up to 64 letters, digits and _ . @ + -, first a letter or digit; not " + ", ".join(_RESERVED),
        )
    return folded


def checked_group(name: str) -> str:
    """Return the name of a group in lower case. Raise `ConfigError` for what cannot be one."""
    folded = name.lower()
    if not _GROUP.fullmatch(folded):
        raise ConfigError(f"{name!r} cannot be the name of a group", hint="letters, digits and _ . @ + - : / =")
    return folded


def record_change(connection: sa.Connection, what: str) -> None:
    """Write down that rights have changed, in the transaction that changes them."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        who = ""
    connection.execute(sa.insert(RIGHTS_CHANGES).values(at=now(), by_whom=who, what=what))


def _identity(connection: sa.Connection, name: str, groups: Collection[str], method: str) -> Identity:
    is_admin = connection.execute(sa.select(USERS.c.is_admin).where(USERS.c.name == name)).scalar_one_or_none()
    own = _groups(connection, name).get(name, frozenset())
    return Identity(name, frozenset(groups) | own, is_admin=bool(is_admin), method=method)


def _groups(connection: sa.Connection, name: str = "") -> Mapping[str, frozenset[str]]:
    query = sa.select(MEMBERS)
    found: dict[str, set[str]] = {}
    for row in connection.execute(query.where(MEMBERS.c.user_name == name) if name else query):
        found.setdefault(row.user_name, set()).add(row.group_name)
    return {user: frozenset(names) for user, names in found.items()}


def _join(connection: sa.Connection, name: str, group: str) -> bool:
    known = sa.select(MEMBERS).where(MEMBERS.c.user_name == name, MEMBERS.c.group_name == group)
    if connection.execute(known).first() is not None:
        return False
    connection.execute(sa.insert(MEMBERS).values(user_name=name, group_name=group))
    return True


def _row(connection: sa.Connection, name: str) -> sa.Row[tuple[object, ...]]:
    row = connection.execute(sa.select(USERS).where(USERS.c.name == name)).one_or_none()
    if row is None:
        raise UnknownNameError(f"there is no user {name}", hint="qengine user list shows them")
    return row


def _user(row: sa.Row[tuple[object, ...]], groups: frozenset[str]) -> User:
    return User(
        name=row.name, is_admin=row.is_admin, is_disabled=row.is_disabled, has_password=bool(row.password), groups=groups,
        made=utc(row.made),
    )  # fmt: skip


def _token(row: sa.Row[tuple[object, ...]]) -> Token:
    return Token(
        id=row.id, owner=row.owner, label=row.label, made=utc(row.made), expires=row.expires and utc(row.expires),
        used=row.used and utc(row.used),
    )  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    made = _scrypt(password, salt, _SCRYPT_LOG2, _SCRYPT_R, _SCRYPT_P)
    words = ("scrypt", _SCRYPT_LOG2, _SCRYPT_R, _SCRYPT_P, base64.b64encode(salt).decode(), base64.b64encode(made).decode())
    return "$".join(map(str, words))


def _matches(password: str, kept: str) -> bool:
    _, log2, r, p, salt, expected = kept.split("$")
    made = _scrypt(password, base64.b64decode(salt), int(log2), int(r), int(p))
    return hmac.compare_digest(made, base64.b64decode(expected))


def _scrypt(password: str, salt: bytes, log2: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << log2, r=r, p=p, maxmem=256 << 20)
