"""Who asks: the identity that rights, limits, jobs and the log go by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as the service knows them; `method` says how they proved it. The empty user is anybody.

    Operators who use the store itself, and not the service, are `LOCAL`: they can read all of its files anyway.
    """

    user: str
    groups: frozenset[str] = frozenset()
    is_admin: bool = False
    method: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody in particular asks."""
        return not self.user


@dataclass(frozen=True, slots=True)
class Origin:
    """How a query came here (sync, async, local), and by what client."""

    method: str
    client: str = ""


ANONYMOUS = Identity("", method="anonymous")
LOCAL = Identity("local", is_admin=True, method="local")
FROM_HERE = Origin("local")
