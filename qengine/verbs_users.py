"""What the command line does with users, their groups and tokens, and with what they may read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qengine.catalog.registry import Registry
from qengine.catalog.rights import grantee_of
from qengine.catalog.user_tables import UserTables
from qengine.opening import open_store
from qengine.verbs import needed, tell


def add(store: Path | None, name: str, *, password: str, is_admin: bool, groups: tuple[str, ...]) -> None:
    """Add a user."""
    with opened(store) as registry:
        user = registry.users.add(name, password=password, is_admin=is_admin, groups=groups)
    tell(f"{user.name} is a user" + ("" if user.has_password else f"; qengine token create {user.name} makes a token for them"))


def users(store: Path | None) -> None:
    """List the users."""
    with opened(store) as registry:
        found = registry.users.listed()
        tokens = [token.owner for token in registry.users.tokens()]
    table = _table("user", "groups", "password", "tokens", "since (UTC)", "")
    for user in found:
        marks = ["administrator"] * user.is_admin + ["disabled"] * user.is_disabled
        table.add_row(
            user.name, ", ".join(sorted(user.groups)), "yes" if user.has_password else "no", str(tokens.count(user.name)),
            f"{user.made:%Y-%m-%d}", ", ".join(marks),
        )  # fmt: skip
    Console().print(table)


def remove(store: Path | None, name: str) -> None:
    """Remove a user with the tables that they keep, which a later user of this name would find otherwise."""
    with opened(store) as registry:
        registry.users.find(name)
        tables = UserTables(registry)
        for table in tables.of(name.lower()):
            tables.drop(name.lower(), table.name)
        registry.users.remove(name)
    tell(f"{name} is no user any more")


def set_disabled(store: Path | None, name: str, *, is_disabled: bool) -> None:
    """Disable or enable a user."""
    with opened(store) as registry:
        user = registry.users.change(name, is_disabled=is_disabled)
    tell(f"{user.name} is {'disabled' if is_disabled else 'let in'}")


def set_password(store: Path | None, name: str, password: str) -> None:
    """Set or take away a password."""
    with opened(store) as registry:
        user = registry.users.change(name, password=password)
    tell(f"{user.name} has {'a new' if user.has_password else 'no'} password")


def set_admin(store: Path | None, name: str, *, is_admin: bool) -> None:
    """Make a user an administrator, or not."""
    with opened(store) as registry:
        user = registry.users.change(name, is_admin=is_admin)
    tell(f"{user.name} is {'an administrator' if is_admin else 'an ordinary user'}")


def create_token(store: Path | None, name: str, *, label: str, days: float | None) -> None:
    """Make a token; its text, and nothing else, goes to standard output."""
    with opened(store) as registry:
        lifetime = timedelta(days=days) if days is not None else None
        text, token = registry.users.create_token(name, label=label, lifetime=lifetime)
    until = f" until {token.expires:%Y-%m-%d %H:%M} UTC" if token.expires is not None else ""
    tell(f"token {token.id} of {token.owner}{until}; it is not shown again:")
    print(text)


def tokens(store: Path | None, name: str) -> None:
    """List tokens."""
    with opened(store) as registry:
        found = registry.users.tokens(name)
    table = _table("id", "user", "label", "made (UTC)", "expires", "last used")
    for token in found:
        expires = f"{token.expires:%Y-%m-%d %H:%M}" if token.expires is not None else "never"
        used = f"{token.used:%Y-%m-%d %H:00}" if token.used is not None else "never"
        table.add_row(token.id, token.owner, token.label, f"{token.made:%Y-%m-%d %H:%M}", expires, used)
    Console().print(table)


def revoke_token(store: Path | None, token: str) -> None:
    """Revoke a token."""
    with opened(store) as registry:
        registry.users.revoke_token(token)
    tell(f"token {token} is revoked")


def join(store: Path | None, group: str, name: str) -> None:
    """Put a user into a group."""
    with opened(store) as registry:
        registry.users.join(name, group)
    tell(f"{name} is in group {group}")


def leave(store: Path | None, group: str, name: str) -> None:
    """Take a user out of a group."""
    with opened(store) as registry:
        registry.users.leave(name, group)
    tell(f"{name} is not in group {group} any more")


def groups(store: Path | None) -> None:
    """List the groups."""
    with opened(store) as registry:
        found = registry.users.groups()
    table = _table("group", "users")
    for group, names in found.items():
        table.add_row(group, ", ".join(names))
    Console().print(table)


def grant(store: Path | None, what: str, *, user: str, group: str, is_public: bool) -> None:
    """Let somebody read something."""
    grantee = grantee_of(user=user, group=group, is_public=is_public)
    with opened(store) as registry:
        catalog, _, table = what.partition(".")
        is_first = not [one for one in registry.rights.listed() if one.catalog.lower() == catalog.lower()]
        made = registry.rights.grant(catalog, table, grantee)
    tell(f"{made.what} is read by {made.grantee}" + (f", and {made.catalog} by nobody else but administrators" if is_first else ""))


def revoke(store: Path | None, what: str, *, user: str, group: str, is_public: bool, is_opening: bool) -> None:
    """Take a grant back."""
    grantee = grantee_of(user=user, group=group, is_public=is_public)
    with opened(store) as registry:
        catalog, _, table = what.partition(".")
        old = registry.rights.revoke(catalog, table, grantee, is_opening=is_opening)
    tell(f"{old.what} is not read by {old.grantee} any more")


def grants(store: Path | None) -> None:
    """List catalogues with their states, and who reads them."""
    with opened(store) as registry:
        rights = registry.rights.current()
        names = sorted({table.schema for table in registry.definitions()}, key=str.lower)
    table = _table("what", "state", "read by")
    for name in names:
        state = rights.states.get(name)
        own = [one for one in rights.grants if one.catalog == name]
        groups = ", ".join(f"group:{group}" for group in sorted(state.groups)) if state is not None else ""
        if not own:
            word = state.state.value if state is not None else "released"
            readers = "everybody" if word in ("released", "frozen") else groups or "administrators"
            table.add_row(name, word, readers)
        for what in sorted({one.what for one in own}):
            readers = ", ".join(one.grantee for one in own if one.what == what)
            table.add_row(what, state.state.value if state is not None else "released", ", ".join(filter(None, [readers, groups])))
    Console().print(table)


@contextmanager
def opened(store: Path | None) -> Iterator[Registry]:
    """Open the registry of a store."""
    _, registry = open_store(needed(store))
    with registry:
        yield registry


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False)
