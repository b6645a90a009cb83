"""What the command line does with users, their groups and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qengine import app as composition
from qengine.catalog.registry import Registry
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
    """Remove a user."""
    with opened(store) as registry:
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


@contextmanager
def opened(store: Path | None) -> Iterator[Registry]:
    """Open the registry of a store."""
    _, registry = composition.open_store(needed(store))
    with registry:
        yield registry


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False)
