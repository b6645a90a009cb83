"""Command-line verbs about the files of a store: verify them, rebuild the registry from them; the work is in `verbs_store`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path | None, typer.Option("--store", envvar="QENGINE_STORE", help="Directory of the store, or s3://BUCKET/PREFIX.")
]
registry_app = typer.Typer(help="The registry of a store.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Give an application these verbs."""
    app.command()(verify)
    app.command()(export)
    app.add_typer(registry_app, name="registry")


def verify(
    name: Annotated[str, typer.Argument(help="CATALOG or CATALOG.TABLE", show_default=False)],
    store: StoreOption = None,
    snapshot: Annotated[str, typer.Option(help="Number, tag or time of a snapshot; the latest one if not said.")] = "",
    keys: Annotated[
        bool,
        typer.Option(
            "--keys",
            help="Prove keys instead: each in one row and where the index says, children where their directors lie. A key that was"
            " not proven before is joined on within tiles from then on.",
        ),
    ] = False,
    key: Annotated[str, typer.Option(help="Column with the key, where none was declared.")] = "",
    repair: Annotated[
        Path | None,
        typer.Option(help="A copy of the store, an export or a backup: good copies of damaged files are taken from it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Read the files of a snapshot against what was published; the exit status is 1 if something is wrong."""
    from qengine import verbs_store

    if keys:
        verbs_store.verify_keys(store, name, key, snapshot=snapshot)
    elif not verbs_store.verify_files(store, name, snapshot=snapshot, repair=repair, as_json=as_json):
        raise typer.Exit(1)


def export(
    name: Annotated[str, typer.Argument(help="CATALOG or CATALOG.TABLE", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A directory that does not exist yet.", show_default=False)],
    store: StoreOption = None,
    snapshot: Annotated[str, typer.Option(help="Number, tag or time of a snapshot; the latest one if not said.")] = "",
    nest: Annotated[list[str] | None, typer.Option(help="A child that becomes a nested column of its director; repeat it.")] = None,
    index: Annotated[list[str] | None, typer.Option(help="A column of the director to write an index table of; repeat it.")] = None,
) -> None:
    """Write a snapshot as HATS collections that need nothing else, with checksums."""
    from qengine import verbs_store

    verbs_store.export(store, name, output, snapshot=snapshot, nest=tuple(nest or ()), index=tuple(index or ()))


@registry_app.command()
def rebuild(store: StoreOption = None) -> None:
    """Restore the registry's catalogues, snapshots, tags and loads from the files of the store alone."""
    from qengine import verbs_store

    verbs_store.rebuild(store)
