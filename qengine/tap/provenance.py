"""Where a result comes from, as INFO elements of the note "Data Origin in the VO" (IVOA 2024) name it.

Of the service: software, protocol, time of the request. Of each catalogue that the statement reads: title, DOI, citation,
acknowledgement, licence, contact and date, as the release section of its sidecar says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version

from qengine.catalog.model import Catalog, Release

_NAMES = {
    "title": "title", "doi": "publication_id", "citation": "citation", "acknowledgement": "acknowledgement", "licence": "rights",
    "contact": "contact", "date": "publication_date",
}  # fmt: skip


def provenance(catalog: Catalog, snapshots: Mapping[str, int], *, requested: datetime | None = None) -> tuple[tuple[str, str], ...]:
    """Return names and values; `snapshots` are the catalogues that a statement reads, `requested` is when (None: now)."""
    moment = (requested or datetime.now(UTC)).astimezone(UTC)
    found = [
        ("server_software", _software()),
        ("service_protocol", "ivo://ivoa.net/std/TAP"),
        ("request_date", f"{moment:%Y-%m-%dT%H:%M:%SZ}"),
    ]
    # a schema such as dp1@12 is catalogue dp1 at snapshot 12
    read = {name.split("@")[0] for name in snapshots}
    releases = dict.fromkeys(one.table.release for one in catalog if one.table.schema in read)
    for release in releases:
        found += _of(release)
    return tuple(dict.fromkeys(found))


@cache
def _software() -> str:
    # reading the package's metadata takes as long as a small query
    return f"qengine {version('qengine')}"


def _of(release: Release) -> list[tuple[str, str]]:
    return [(name, value) for field, name in _NAMES.items() if (value := str(getattr(release, field)))]
