"""Where one side of a mutual TLS connection has its certificates. Free of grpc, so that slots can read settings without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one side. Each side refuses a peer whose certificate `authority` did not sign. `peer_name` is the name in the
    worker's certificate when that is not its address."""

    authority: Path
    certificate: Path
    key: Path
    peer_name: str = ""
