"""Command-line verbs about snapshots: list, tag, promote, roll back, expire, collect, budgets; the work is in `verbs_releases`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

CatalogArgument = Annotated[str, typer.Argument(help="A catalogue.", show_default=False)]
SnapshotArgument = Annotated[str, typer.Argument(help="A snapshot: number, tag, or time (ISO 8601).", show_default=False)]
StoreOption = Annotated[
    Path | None, typer.Option("--store", envvar="QENGINE_STORE", help="Directory of the store, or s3://BUCKET/PREFIX.")
]
DaysOption = Annotated[float | None, typer.Option("--older-than", min=0.0, help="Only those published more days ago than this.")]


class State(StrEnum):
    """States of a catalogue, as `catalog.releases` has them."""

    STAGED = "staged"
    INTERNAL = "internal"
    RELEASED = "released"
    FROZEN = "frozen"


def add_to(app: typer.Typer) -> None:
    """Give an application these verbs."""
    for verb in (snapshots, tag, untag, promote, rollback, expire, collect, budget):
        app.command()(verb)


def snapshots(catalog: CatalogArgument, store: StoreOption = None) -> None:
    """List the snapshots of a catalogue: when, by which load, with which tags, and who reads them."""
    from qengine import verbs_releases

    verbs_releases.snapshots(store, catalog)


def tag(
    catalog: CatalogArgument,
    snapshot: SnapshotArgument,
    name: Annotated[str, typer.Argument(help="The tag; it never moves.", show_default=False)],
    store: StoreOption = None,
    doi: Annotated[str, typer.Option(help="A DOI that names this snapshot.")] = "",
    note: Annotated[str, typer.Option(help="What readers should know.")] = "",
) -> None:
    """Name a snapshot for all time: it never expires."""
    from qengine import verbs_releases

    verbs_releases.tag(store, catalog, snapshot, name, doi=doi, note=note)


def untag(
    catalog: CatalogArgument, name: Annotated[str, typer.Argument(help="The tag.", show_default=False)], store: StoreOption = None
) -> None:
    """Forget a tag that has no DOI."""
    from qengine import verbs_releases

    verbs_releases.untag(store, catalog, name)


def promote(
    catalog: CatalogArgument,
    state: Annotated[State, typer.Argument(help="Who may read it, and whether it may change.", show_default=False)],
    store: StoreOption = None,
    group: Annotated[list[str] | None, typer.Option(help="A group that reads it while it is internal; repeat it.")] = None,
) -> None:
    """Set the state of a catalogue: staged, internal, released, or frozen for good."""
    from qengine import verbs_releases

    verbs_releases.promote(store, catalog, state.value, tuple(group or ()))


def rollback(
    catalog: CatalogArgument,
    snapshot: SnapshotArgument,
    store: StoreOption = None,
    why: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Publish an older snapshot as the latest one. What came since stays readable by its number."""
    from qengine import verbs_releases

    verbs_releases.rollback(store, catalog, snapshot, why=why)


def expire(
    catalog: CatalogArgument,
    store: StoreOption = None,
    keep: Annotated[int | None, typer.Option(min=0, help="How many of the newest stay in any case.")] = None,
    older_than: DaysOption = None,
) -> None:
    """Expire old snapshots; the latest, tagged and leased ones stay. `collect` removes their files."""
    from qengine import verbs_releases

    verbs_releases.expire(store, catalog, keep=keep, older_than_days=older_than)


def collect(
    catalog: CatalogArgument,
    store: StoreOption = None,
    grace: Annotated[float, typer.Option(min=0.0, help="Minutes since they expired, for queries that still read them.")] = 10.0,
) -> None:
    """Remove files that only expired snapshots have, and what dead loads left behind."""
    from qengine import verbs_releases

    verbs_releases.collect(store, catalog, grace_minutes=grace)


def budget(
    size: Annotated[str, typer.Argument(help="Such as 500GB; none lifts it. Without it, budgets are listed.")] = "",
    store: StoreOption = None,
    catalog: Annotated[str, typer.Option(help="Of one catalogue; otherwise of the whole store.")] = "",
) -> None:
    """Say how much disk a catalogue or the store may take; loads that would take more are refused."""
    from qengine import verbs_releases

    verbs_releases.budget(store, catalog, size)
