"""VOSI: /tables, /capabilities and /availability as XML.

/tables is written from the rows of TAP_SCHEMA, so the two cannot differ. Schemas: VOSI Tables 1.0 (VODataService 1.1), VOSI
Capabilities 1.0 with TAPRegExt 1.0, VOSI Availability 1.0; the newest ones are not known to the validators in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qengine.catalog.model import Catalog
from qengine.sql.functions import FUNCTIONS, Role
from qengine.sql.functions_standard import STANDARD
from qengine.sql.signatures import declarations
from qengine.sql.words import RESERVED
from qengine.tap.formats.choose import FORMATS
from qengine.tap.formats.votable import attribute, text
from qengine.tap.jobs import JobSettings, limited_duration
from qengine.tap.service import TapSettings

Row = Mapping[str, Any]

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_TABLE_NAMESPACES = (
    'xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_FEATURE = "ivo://ivoa.net/std/TAPRegExt#"

# Keys of TAPRegExt; "adqlgeo" really is without a hyphen. COALESCE (features-adql-conditional) is there but not declared, because
# taplint 3.4 calls that key an error.
_FEATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "features-adqlgeo",
        (
            "AREA", "BOX", "CENTROID", "CIRCLE", "CONTAINS", "COORD1", "COORD2", "COORDSYS", "DISTANCE", "INTERSECTS", "POINT",
            "POLYGON", "REGION",
        ),
    ),
    ("features-adql-string", ("LOWER", "UPPER", "ILIKE")),
    ("features-adql-type", ("CAST",)),
    ("features-adql-unit", ("IN_UNIT",)),
    ("features-adql-sets", ("UNION", "EXCEPT", "INTERSECT")),
    ("features-adql-common-table", ("WITH",)),
    ("features-adql-offset", ("OFFSET",)),
)  # fmt: skip


def tableset(catalog: Catalog, *, with_columns: bool) -> str:
    """Return the VOSI document of all schemas and tables."""
    columns = _by(_rows(catalog, "columns"), "table_name") if with_columns else {}
    keys = _keys(catalog) if with_columns else {}
    tables = _by(_rows(catalog, "tables"), "schema_name")
    parts = [f"{_HEAD}<vosi:tableset {_TABLE_NAMESPACES}>\n"]
    for schema in _rows(catalog, "schemas"):
        parts.append("<schema>\n" + _texts(schema, name="schema_name", description="description", utype="utype"))
        for table in tables.get(schema["schema_name"], ()):
            name = table["table_name"]
            parts.append(_table(table, columns.get(name, ()), keys.get(name, ()), opening="<table", closing="</table>"))
        parts.append("</schema>\n")
    return "".join([*parts, "</vosi:tableset>\n"])


def one_table(catalog: Catalog, name: str) -> str | None:
    """Return the VOSI document of one table, or None if there is none of this name."""
    found = [row for row in _rows(catalog, "tables") if row["table_name"] == name]
    found = found or [row for row in _rows(catalog, "tables") if row["table_name"].lower() == name.lower()]
    if not found:
        return None
    exact = found[0]["table_name"]
    columns = _by(_rows(catalog, "columns"), "table_name").get(exact, ())
    opening = f"<vosi:table {_TABLE_NAMESPACES}"
    return _HEAD + _table(found[0], columns, _keys(catalog).get(exact, ()), opening=opening, closing="</vosi:table>")


def capabilities(
    base_url: str, settings: TapSettings, jobs: JobSettings | None = None, security: Sequence[str] = (), *, upload_bytes: int = 0
) -> str:
    """Return what the service offers, as TAPRegExt 1.0; `jobs` are the limits of asynchronous queries if it offers them, `security`
    the standard ids of how users prove who they are, an empty one if they need not. Tables of a request may have `upload_bytes`."""
    versions = "".join(f'<version ivo-id="ivo://ivoa.net/std/ADQL#v{number}">{number}</version>\n' for number in ("2.0", "2.1"))
    features = "".join(
        f"<languageFeatures type={attribute(_FEATURE + key)}>\n"
        + "".join(f"<feature><form>{form}</form></feature>\n" for form in forms)
        + "</languageFeatures>\n"
        for key, forms in _FEATURES
    )
    features += (
        f"<languageFeatures type={attribute(_FEATURE + 'features-udf')}>\n" + "".join(_functions()) + "</languageFeatures>\n"
    )
    formats = "".join(
        f"<outputFormat{f' ivo-id={attribute(kind.ivo_id)}' if kind.ivo_id else ''}>\n<mime>{text(kind.media_type)}</mime>\n"
        + "".join(f"<alias>{text(alias)}</alias>\n" for alias in kind.aliases if "application" not in alias)
        + "</outputFormat>\n"
        for kind in FORMATS
    )
    # One for each way to prove who one is, since older editions of VOResource let an interface have one only. The first is the
    # standard one, of which TAP has one.
    interfaces = "".join(
        ("<interface " if number else '<interface role="std" ')
        + f'version="1.1" xsi:type="vs:ParamHTTP">\n<accessURL use="base">{text(base_url)}</accessURL>\n'
        + (f"<securityMethod standardID={attribute(name)}/>\n" if name else "")
        + "</interface>\n"
        for number, name in enumerate(security or ("",))
    )
    return f"""{_HEAD}<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0"
 xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" xmlns:vr="http://www.ivoa.net/xml/VOResource/v1.0"
 xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">
{interfaces}<language>
<name>ADQL</name>
{versions}<version>2.1-strict</version>
<description>ADQL 2.1, with extensions that are reported as warnings; 2.1-strict is ADQL 2.1 and nothing else.</description>
{features}</language>
<language>
<name>SQL</name>
<version>DuckDB</version>
<description>ADQL where its meaning differs from the SQL of DuckDB has the meaning of DuckDB.</description>
</language>
{formats}{_upload_methods() if upload_bytes else ""}{_job_limits(jobs) if jobs is not None else ""}<outputLimit>
<default unit="row">{settings.maxrec}</default>
<hard unit="row">{settings.maxrec_limit}</hard>
</outputLimit>
{f'<uploadLimit><hard unit="byte">{upload_bytes}</hard></uploadLimit>' if upload_bytes else ""}</capability>
{_vosi_capability("capabilities", base_url)}{_vosi_capability("availability", base_url)}{_vosi_capability("tables", base_url)}\
<capability standardID="ivo://ivoa.net/std/DALI#examples">
<interface xsi:type="vr:WebBrowser">
<accessURL use="full">{text(base_url)}/examples</accessURL>
</interface>
</capability>
</vosi:capabilities>
"""


def _upload_methods() -> str:
    return "".join(f"<uploadMethod ivo-id={attribute(_FEATURE + 'upload-' + method)}/>\n" for method in ("inline", "http", "https"))


def _job_limits(jobs: JobSettings) -> str:
    """Return how long results are kept and executions may take; 0, no limit, has no form here."""
    limits = (
        ("retentionPeriod", jobs.retention_s, jobs.retention_limit_s),
        ("executionDuration", limited_duration(jobs.duration_s, jobs), jobs.duration_limit_s),
    )
    return "".join(
        f"<{name}>\n"
        + "".join(f"<{kind}>{seconds}</{kind}>\n" for kind, seconds in (("default", default), ("hard", hard)) if seconds)
        + f"</{name}>\n"
        for name, default, hard in limits
        if default or hard
    )


def _functions() -> Iterator[str]:
    """Yield the functions beyond ADQL: a signature for each number of arguments, without the signs for optional and repeated
    ones."""
    for function in FUNCTIONS.values():
        if function in STANDARD or function.role is Role.WINDOW or function.name.upper() in RESERVED:
            continue
        for form in dict.fromkeys(plain for shown in function.forms for plain in declarations(shown)):
            yield f"<feature>\n<form>{text(form)}</form>\n<description>{text(function.description)}</description>\n</feature>\n"


def availability(*, is_available: bool, note: str) -> str:
    """Return whether the service answers queries, and why not."""
    notes = f"<vosi:note>{text(note)}</vosi:note>\n" if note else ""
    return (
        f'{_HEAD}<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">\n'
        f"<vosi:available>{str(is_available).lower()}</vosi:available>\n{notes}</vosi:availability>\n"
    )


def _vosi_capability(kind: str, base_url: str) -> str:
    return (
        f'<capability standardID="ivo://ivoa.net/std/VOSI#{kind}">\n<interface xsi:type="vs:ParamHTTP" role="std">\n'
        f'<accessURL use="full">{text(base_url)}/{kind}</accessURL>\n</interface>\n</capability>\n'
    )


def _table(table: Row, columns: Iterable[Row], keys: Iterable[str], *, opening: str, closing: str) -> str:
    kind = "view" if table.get("table_type") == "view" else "table"
    return (
        f'{opening} type="{kind}">\n'
        + _texts(table, name="table_name", description="description", utype="utype")
        + "".join(_column(column) for column in columns)
        + "".join(keys)
        + f"{closing}\n"
    )


def _column(column: Row) -> str:
    size = f" arraysize={attribute(column['arraysize'])}" if column.get("arraysize") else ""
    xtype = f" extendedType={attribute(column['xtype'])}" if column.get("xtype") else ""
    flags = "".join(f"<flag>{flag}</flag>\n" for flag in ("indexed", "principal") if column.get(flag))
    standard = ' std="true"' if column.get("std") else ""
    return (
        f"<column{standard}>\n"
        + _texts(column, name="column_name", description="description", unit="unit", ucd="ucd", utype="utype")
        + f'<dataType xsi:type="vs:VOTableType"{size}{xtype}>{text(column["datatype"])}</dataType>\n{flags}</column>\n'
    )


def _keys(catalog: Catalog) -> dict[str, list[str]]:
    pairs = _by(_rows(catalog, "key_columns"), "key_id")
    found: dict[str, list[str]] = {}
    for key in _rows(catalog, "keys"):
        joined = "".join(
            f"<fkColumn>\n<fromColumn>{text(pair['from_column'])}</fromColumn>\n"
            f"<targetColumn>{text(pair['target_column'])}</targetColumn>\n</fkColumn>\n"
            for pair in pairs.get(key["key_id"], ())
        )
        more = _texts(key, description="description", utype="utype")
        element = f"<foreignKey>\n<targetTable>{text(key['target_table'])}</targetTable>\n{joined}{more}</foreignKey>\n"
        found.setdefault(key["from_table"], []).append(element)
    return found


def _texts(row: Row, **elements: str) -> str:
    return "".join(f"<{element}>{text(row[key])}</{element}>\n" for element, key in elements.items() if row.get(key))


def _rows(catalog: Catalog, name: str) -> list[Row]:
    found = catalog.find("TAP_SCHEMA", name)
    return found.inline.to_pylist() if found is not None and found.inline is not None else []


def _by(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
