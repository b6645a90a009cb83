"""`mydb`: what everybody calls the catalogue of their own tables.

Before anything looks at names, `mydb` becomes the name of that catalogue, so that everything after it knows one name only. Errors
speak of that name, too: it is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from qengine.catalog.rights import user_catalog
from qengine.catalog.user_tables import ALIAS
from qengine.catalog.who import Identity
from qengine.errors import QueryError
from qengine.sql.parse import ParsedQuery
from qengine.sql.trees import find


def own_snapshots(snapshots: Mapping[str, int | str] | None, identity: Identity) -> Mapping[str, int | str] | None:
    """Return the snapshots that are asked for, with `mydb` under the name of the catalogue of `identity`."""
    if not snapshots or not identity.user:
        return snapshots
    own = user_catalog(identity.user)
    found: dict[str, int | str] = {}
    for name, version in snapshots.items():
        named = own if name.lower() == ALIAS else name
        if any(named.lower() == other.lower() for other in found):
            raise QueryError(f"SNAPSHOT names two snapshots of {own}", hint=f"it is what {ALIAS} means: name one of them")
        found[named] = version
    return found


def with_own(parsed: ParsedQuery, identity: Identity) -> ParsedQuery:
    """Let `mydb` name the catalogue of `identity` in the tree of a statement, and return the statement. Those who do not say who
    they are have none."""
    if not identity.user or ALIAS not in parsed.text.lower():
        return parsed
    for node in (*find(parsed.tree, exp.Table), *find(parsed.tree, exp.Column)):
        named = node.args.get("db")
        if isinstance(named, exp.Identifier) and named.name.lower() == ALIAS:
            own = exp.to_identifier(user_catalog(identity.user), quoted=named.args.get("quoted", False))
            own.meta.update(named.meta)
            node.set("db", own)
    return parsed
