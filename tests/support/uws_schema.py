"""The official XML schema of UWS 1.1, as STILTS carries it."""

from __future__ import annotations

import re
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from lxml import etree

_STILTS = Path("/usr/share/java/starlink-ttools.jar")
_FILES = ("UWS-v1.1.xsd", "xlink.xsd", "xmlnamespace.xsd")


@cache
def uws_schema() -> etree.XMLSchema | None:
    """Return the schema, None where STILTS is not installed."""
    if not _STILTS.exists():
        return None
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(_STILTS) as archive:
        folder = Path(name)
        for file in _FILES:
            words = archive.read(f"uk/ac/starlink/ttools/taplint/{file}").decode()
            words = re.sub(r'schemaLocation="[^"]*[xX]link\.xsd"', 'schemaLocation="xlink.xsd"', words)
            words = re.sub(r'schemaLocation="[^"]*xml\.xsd"', 'schemaLocation="xmlnamespace.xsd"', words)
            (folder / file).write_text(words)
        return etree.XMLSchema(etree.parse(folder / _FILES[0]))
