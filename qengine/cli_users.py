"""Command-line verbs about users, their groups and tokens, and what they may read; the work is in `verbs_users`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from qengine.errors import ConfigError

StoreOption = Annotated[
    Path | None, typer.Option("--store", envvar="QENGINE_STORE", help="Directory of the store, or s3://BUCKET/PREFIX.")
]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="A user.", show_default=False)]
GroupArgument = Annotated[str, typer.Argument(help="A group.", show_default=False)]
WhatArgument = Annotated[str, typer.Argument(metavar="CATALOG[.TABLE]", help="What is read.", show_default=False)]
ToUserOption = Annotated[str, typer.Option("--user", help="A user.")]
ToGroupOption = Annotated[str, typer.Option("--group", help="A group.")]
PublicOption = Annotated[bool, typer.Option("--public", help="Everybody.")]
PasswordOption = Annotated[bool, typer.Option("--password", help="Ask for a password, or read it from standard input.")]
AdminOption = Annotated[bool, typer.Option("--admin", help="May read everything, and end everybody's queries.")]


def add_to(app: typer.Typer) -> None:
    """Give an application these verbs."""
    user = typer.Typer(no_args_is_help=True, help="Users of the service.")
    _fill(user, add=add, list=users, remove=remove, disable=disable, enable=enable, password=password, admin=admin)
    token = typer.Typer(no_args_is_help=True, help="Tokens, with which users prove who they are.")
    _fill(token, create=create, list=tokens, revoke=revoke_token)
    group = typer.Typer(no_args_is_help=True, help="Groups of users.")
    _fill(group, add=join, remove=leave, list=groups)
    for verb in (grant, revoke, grants):
        app.command()(verb)
    app.add_typer(user, name="user")
    app.add_typer(token, name="token")
    app.add_typer(group, name="group")


def _fill(part: typer.Typer, **verbs: Callable[..., None]) -> None:
    for name, verb in verbs.items():
        part.command(name)(verb)


def add(
    name: UserArgument,
    store: StoreOption = None,
    is_admin: AdminOption = False,
    group: Annotated[list[str] | None, typer.Option(help="A group that the user belongs to; repeat it.")] = None,
    with_password: PasswordOption = False,
) -> None:
    """Add a user. Without a password they prove who they are by tokens."""
    from qengine import verbs_users

    given = _asked() if with_password else ""
    verbs_users.add(store, name, password=given, is_admin=is_admin, groups=tuple(group or ()))


def users(store: StoreOption = None) -> None:
    """List the users."""
    from qengine import verbs_users

    verbs_users.users(store)


def remove(name: UserArgument, store: StoreOption = None) -> None:
    """Remove a user with tokens, memberships and grants. Jobs and tables stay: think of disabling instead."""
    from qengine import verbs_users

    verbs_users.remove(store, name)


def disable(name: UserArgument, store: StoreOption = None) -> None:
    """Let a user in no more, whatever they show."""
    from qengine import verbs_users

    verbs_users.set_disabled(store, name, is_disabled=True)


def enable(name: UserArgument, store: StoreOption = None) -> None:
    """Let a disabled user in again."""
    from qengine import verbs_users

    verbs_users.set_disabled(store, name, is_disabled=False)


def password(
    name: UserArgument,
    store: StoreOption = None,
    none: Annotated[bool, typer.Option("--none", help="Take the password away.")] = False,
) -> None:
    """Set a user's password; it is asked for, or read from standard input."""
    from qengine import verbs_users

    verbs_users.set_password(store, name, "" if none else _asked())


def admin(
    name: UserArgument,
    store: StoreOption = None,
    no: Annotated[bool, typer.Option("--no", help="Make an administrator an ordinary user.")] = False,
) -> None:
    """Make a user an administrator."""
    from qengine import verbs_users

    verbs_users.set_admin(store, name, is_admin=not no)


def create(
    name: UserArgument,
    store: StoreOption = None,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.0, help="Days until it expires; otherwise it does not.")] = None,
) -> None:
    """Make a token and print it. It is shown this once."""
    from qengine import verbs_users

    verbs_users.create_token(store, name, label=label, days=days)


def tokens(
    name: Annotated[str, typer.Argument(metavar="USER", help="Only this user's.", show_default=False)] = "",
    store: StoreOption = None,
) -> None:
    """List tokens by their ids, without what is secret."""
    from qengine import verbs_users

    verbs_users.tokens(store, name)


def revoke_token(token: Annotated[str, typer.Argument(metavar="ID", show_default=False)], store: StoreOption = None) -> None:
    """Revoke a token."""
    from qengine import verbs_users

    verbs_users.revoke_token(store, token)


def grant(
    what: WhatArgument,
    store: StoreOption = None,
    user: ToUserOption = "",
    group: ToGroupOption = "",
    public: PublicOption = False,
) -> None:
    """Let somebody read a catalogue, or one table of it. The first grant of a catalogue closes it for everybody else."""
    from qengine import verbs_users

    verbs_users.grant(store, what, user=user, group=group, is_public=public)


def revoke(
    what: WhatArgument,
    store: StoreOption = None,
    user: ToUserOption = "",
    group: ToGroupOption = "",
    public: PublicOption = False,
    is_opening: Annotated[bool, typer.Option("--open", help="Everybody shall read it when this was the last grant.")] = False,
) -> None:
    """Take a grant back."""
    from qengine import verbs_users

    verbs_users.revoke(store, what, user=user, group=group, is_public=public, is_opening=is_opening)


def grants(store: StoreOption = None) -> None:
    """List who may read what: states of catalogues and grants."""
    from qengine import verbs_users

    verbs_users.grants(store)


def join(group: GroupArgument, name: UserArgument, store: StoreOption = None) -> None:
    """Put a user into a group."""
    from qengine import verbs_users

    verbs_users.join(store, group, name)


def leave(group: GroupArgument, name: UserArgument, store: StoreOption = None) -> None:
    """Take a user out of a group."""
    from qengine import verbs_users

    verbs_users.leave(store, group, name)


def groups(store: StoreOption = None) -> None:
    """List the groups and who is in them."""
    from qengine import verbs_users

    verbs_users.groups(store)


def _asked() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    text = sys.stdin.readline().rstrip("\r\n")
    if not text:
        raise ConfigError("no password came from standard input", hint="write it there, or use a terminal")
    return text
