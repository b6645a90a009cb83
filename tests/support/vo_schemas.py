"""The official XML schemas of the Virtual Observatory, from packages that carry them, as one schema that knows all namespaces.

Two sets: that of the Debian package `python3-gavo`, and that within STILTS, with which taplint judges (VOTable's is astropy's there).
They are other editions of the same recommendations; a document has to satisfy both. No schema is fetched: whatever address one names,
the file of its namespace is taken.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from lxml import etree

_GAVO = Path("/usr/lib/python3/dist-packages/gavo/resources/schemata")
_STILTS = Path("/usr/share/java/starlink-ttools.jar")
_TAPLINT = "uk/ac/starlink/ttools/taplint/"

_GAVO_FILES = (
    "VOTable", "UWS", "TAPRegExt", "VODataService", "VOResource", "VOSITables", "VOSICapabilities", "VOSIAvailability", "xlink", "stc",
    "xml",
)  # fmt: skip
_STILTS_FILES = (
    "UWS-v1.1", "TAPRegExt-v1.0-Erratum1", "VODataService-v1.2", "VOResource-v1.1", "VOSITables-v1.1", "VOSICapabilities-v1.0",
    "VOSIAvailability-v1.0", "xlink", "stc-v1.30", "xmlnamespace",
)  # fmt: skip
_TARGET = re.compile(rb'targetNamespace\s*=\s*["\']([^"\']+)["\']')
_IMPORT = re.compile(rb"<(\w+:)?import\b[^>]*>")
_NAMESPACE = re.compile(rb'namespace\s*=\s*["\']([^"\']+)["\']')
_LOCATION = re.compile(rb'schemaLocation\s*=\s*["\'][^"\']*["\']')
_HERE = "vo:"


@cache
def vo_schemas() -> Mapping[str, etree.XMLSchema]:
    """Return the schemas that are installed, by the name of the package."""
    found = {}
    if _GAVO.is_dir():
        found["gavo"] = _schema([(_GAVO / f"{name}.xsd").read_bytes() for name in _GAVO_FILES])
    if _STILTS.exists():
        with zipfile.ZipFile(_STILTS) as archive:
            files = [archive.read(f"{_TAPLINT}{name}.xsd") for name in _STILTS_FILES]
        votable = resources.files("astropy.io.votable").joinpath("data/VOTable.v1.4.xsd").read_bytes()
        found["stilts"] = _schema([*files, votable])
    return found


def faults(document: bytes) -> list[str]:
    """Return what the installed schemas say against an XML document."""
    tree = etree.fromstring(document)
    return [
        f"{name}: line {error.line}: {error.message}"
        for name, schema in vo_schemas().items()
        if not schema.validate(tree)
        for error in schema.error_log
    ]


def _schema(files: list[bytes]) -> etree.XMLSchema:
    by_namespace: dict[str, bytes] = {}
    for file in files:
        target = _TARGET.search(file)
        assert target is not None
        by_namespace[target[1].decode()] = file
    known = {name: _local(file, by_namespace) for name, file in by_namespace.items()}
    parser = etree.XMLParser(no_network=True, load_dtd=False)
    parser.resolvers.add(_Resolver(known))
    imports = "".join(f'<xs:import namespace="{name}" schemaLocation="{_HERE}{name}"/>' for name in known)
    wrapper = f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">{imports}</xs:schema>'
    return etree.XMLSchema(etree.fromstring(wrapper, parser))


def _local(file: bytes, known: Mapping[str, bytes]) -> bytes:
    """Return a schema whose imports name the files at hand."""

    def point(found: re.Match[bytes]) -> bytes:
        namespace = _NAMESPACE.search(found[0])
        assert namespace is not None
        assert namespace[1].decode() in known, namespace[1]
        return _LOCATION.sub(b'schemaLocation="' + _HERE.encode() + namespace[1] + b'"', found[0])

    return _IMPORT.sub(point, re.sub(rb"<!DOCTYPE.*?(\]\s*>|>)", b"", file, count=1, flags=re.DOTALL))


class _Resolver(etree.Resolver):
    """Gives the files of namespaces."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def resolve(self, url: str | None, public: str | None, context: Any) -> Any:
        return self.resolve_string(self._files[(url or "").removeprefix(_HERE)], context, base_url=url or "")
