"""The commonest mistakes of people who come from Qserv, from other TAP services or from other databases, each with a sentence that helps.

One line is one mistake: profile, statement, code of the error, line and column, and a part of the sentence. All of them are given to
the binder over the small catalogue of `tests.sql.world`.
"""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from qengine.client.remote import _read_error
from qengine.errors import Blame, QEngineError, Span, excerpt
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.tap.formats.votable import error_document
from tests.sql.world import CATALOG

MISTAKES: list[tuple[str, str, str, tuple[int, int] | None, str]] = [
    ('adql-strict', 'SELECT id FROM star LIMIT 10', 'syntax', (1, 21), "write SELECT TOP 10 .., or use the profile 'adql'"),
    ('adql-strict', 'SELECT id FROM star WHERE n % 2 = 0', 'syntax', (1, 29), "write MOD(x, y), or use the profile 'adql'"),
    ('adql', 'SELECT id FROM star WHERE name = "abc"', 'unknown_name', (1, 34), "a text is written in single quotes: 'abc'"),
    ('adql', 'SELECT id FROM star WHERE n == 5', 'syntax', (1, 29), "compare with '='"),
    ("adql", "SELECT id ra FROM star WHERE n = 5 ra dec", "syntax", (1, 36), "between 5 and ra an operator, a comma or AND is missing"),
    ("adql", "SELECT id ra dec FROM star", "syntax", (1, 14), "between ra and dec an operator, a comma or AND is missing"),
    ('adql-strict', 'SELECT date FROM star', 'syntax', (1, 8), 'write "date" in double quotes'),
    ("adql", "SELECT size FROM star", "unknown_name", (1, 8), "there is no column size"),
    ('adql-strict', 'SELECT id AS year FROM star', 'syntax', (1, 14), 'write "year" in double quotes'),
    ("adql", "SELECT id FROM star WHERE CONTAINS(POINT(ra, dec), CIRCLE(10, 20, 1))", "type", (1, 27), "compare it: CONTAINS(..) = 1"),
    ("adql", "SELECT id FROM star WHERE 1 = CONTAINS(POINT(ra), CIRCLE(10, 20, 1))", "type", (1, 40), "POINT takes 2 numbers in degrees, not 1"),
    ('adql', "SELECT id FROM star WHERE 1 = CONTAINS(POINT('ICRS', ra, dec, 5), CIRCLE(10, 20, 1))", 'type', (1, 40), 'POINT takes 2 numbers in degrees, not 3'),
    ('adql', "SELECT id FROM star WHERE 1 = CONTAINS(POINT('FK5', ra, dec), CIRCLE('ICRS', 10, 20, 1))", 'unsupported', (1, 40), 'convert the coordinates to ICRS, or leave the system out'),
    ("adql", "SELECT id FROM star WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(10, 20, 3600))", "type", (1, 56), "radii are degrees: 3600.0 arcsec are 1"),
    ("adql", "SELECT id FROM star WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(10, 120, 1))", "type", (1, 56), "latitudes go from -90 to 90: is it POINT(ra, dec)?"),
    ("adql", "SELECT id FROM star WHERE 1 = CONTAINS(CIRCLE(10, 12, 1), POINT(ra, dec))", "unsupported", (1, 31), "the region is the second argument: CONTAINS(POINT(ra, dec), CIRCLE(..)"),
    ("adql", "SELECT id FROM star WHERE 1 = CONTAINS(ra, dec)", "type", (1, 40), "such as POINT(ra, dec) or CIRCLE(ra, dec, radius)"),
    ("adql", "SELECT id FROM star WHERE DISTANCE(POINT(ra, dec), 10, 20) < 1", "type", (1, 27), "DISTANCE takes two POINTs or four numbers, not 3 arguments"),
    ("adql", "SELECT id FROM star WHERE DISTANCE(ra, dec, 10, 20) = 1 AND COUNT(*) > 1", "type", (1, 61), "conditions on aggregates stand after HAVING, or in a query around this"),
    ("adql", "SELECT n, COUNT(*) FROM star WHERE COUNT(*) > 1 GROUP BY n", "type", (1, 36), "conditions on aggregates stand after HAVING, or in a query around this"),
    ("adql", "SELECT n, mag, COUNT(*) FROM star GROUP BY n", "type", (1, 11), "add it to GROUP BY, or write MIN(mag)"),
    ("adql", "SELECT mag * 2 AS m FROM star WHERE m > 3", "unknown_name", (1, 37), "m names an output, which WHERE does not know: write its expression, or"),
    ("adql", "SELECT id FROM star, demo.epoch WHERE flux > 1", "unknown_name", (1, 8), "write Star.id or Epoch.id"),
    ("adql", "SELECT id FROM stars", "unknown_name", (1, 16), "did you mean Star?"),
    ("adql", "SELECT id FROM demo.object", "unknown_name", (1, 16), "did you mean demo.Epoch or demo.Star?"),
    ("adql", "SELECT x FROM Epoch", "unknown_name", (1, 15), "write demo.Epoch or obs.Epoch"),
    ("adql", "SELECT idd FROM star", "unknown_name", (1, 8), "did you mean id?"),
    ("adql", "SELECT s.mga FROM star s", "unknown_name", (1, 8), "did you mean mag?"),
    ("adql", "SELECT star.id FROM star s", "unknown_name", (1, 8), "it is called s in this statement"),
    ("adql", "SELECT id FROM (SELECT id FROM star)", "syntax", (1, 24), "write (SELECT ..) AS name"),
    ("adql", "SELECT id TOP 5 FROM star", "syntax", (1, 11), "write SELECT TOP 10 .., or SELECT DISTINCT TOP 10 .."),
    ("adql", "SELECT TOP (5) id FROM star", "syntax", (1, 12), "write TOP 10"),
    ("adql", "SELECT TOP id FROM star", "syntax", (1, 8), "write TOP 10"),
    ("adql", "SELECT id FROM star;;", "syntax", (1, 20), "send the second statement by itself"),
    ("adql", "SELECT id FROM star; SELECT id FROM star", "syntax", (1, 20), "send the second statement by itself"),
    ('adql', 'SELECT id FROM star WHERE name = ‘abc’', 'syntax', (1, 34), "write the plain '"),
    ('adql', 'SELECT `id` FROM star', 'syntax', (1, 11), 'names are delimited with double quotes: "a name"'),
    ("adql", "SELECT id FROM star WHERE ISNULL(n)", "unknown_name", (1, 27), "write x IS NULL"),
    ("adql", "SELECT id FROM star WHERE n = NULL", "syntax", (1, 29), "write IS NULL"),
    ("adql", "SELECT id FROM star WHERE n <> NULL", "syntax", (1, 29), "write IS NOT NULL"),
    ("adql", "SELECT COUNT(DISTINCT n, mag) FROM star", "unsupported", (1, 8), "write SELECT COUNT(*) FROM (SELECT DISTINCT a, b FROM ..) AS q"),
    ('adql', 'SELECT NOW() FROM star', 'unknown_name', (1, 8), "write the time itself, such as '2026-01-01T00:00:00'"),
    ('adql', 'SELECT id FROM star WHERE seen > NOW()', 'unknown_name', (1, 34), "write the time itself, such as '2026-01-01T00:00:00'"),
    ("adql", "SELECT id FROM star WHERE WHERE n = 1", "syntax", (1, 21), "leave WHERE out, or write what it is about"),
    ("adql", "SELECT id FROM star WHERE n = 1 WHERE mag = 2", "syntax", (1, 33), "join the conditions with AND"),
    ("adql", "SELECT id, n FROM star UNION SELECT id FROM star", "type", (1, 8), "the two sides of UNION have 2 and 1 columns"),
    ("adql", "SELECT id FROM star WHERE name = 5", "type", (1, 27), "texts stand in single quotes, numbers without"),
    ('adql', "SELECT id FROM star WHERE n = 'five'", 'type', (1, 27), 'texts stand in single quotes, numbers without'),
    ("adql", "SELECT SUM(MAX(n)) FROM star", "type", (1, 12), "compute the inner one in a sub-query"),
    ("adql", "SELECT id FROM star WHERE ROW_NUMBER() OVER (ORDER BY id) = 1", "type", (1, 27), "write the condition after QUALIFY"),
    ("adql", "SELECT UNNEST(n) FROM star", "unknown_name", (1, 8), "a list is opened in FROM: FROM t, UNNEST(t.list) AS u(x)"),
    ("adql", "SELECT list_filter(n, x -> x < 5) FROM star", "syntax", (1, 25), "use a sub-query over the list"),
    ("adql", "SELECT SQUARE(n) FROM star", "unknown_name", (1, 8), "write POWER(x, 2)"),
    ("adql", "SELECT AVERAGE(n) FROM star", "unknown_name", (1, 8), "write AVG(x)"),
    ("adql", "SELECT scisql_angSepp(ra, dec, 1, 2) FROM star", "unknown_name", (1, 8), "did you mean scisql_angSep or scisql_median or scisql_s2PtInCPoly?"),
    ("adql", "SELECT id FROM star WHERE qserv_areaspec_circle(10, 20)", "type", (1, 27), "qserv_areaspec_circle is written qserv_areaspec_circle(lonCenter DOUBL"),
    ("adql", "SELECT id FROM star WHERE qserv_areaspec_cone(10, 20, 1)", "unknown_name", (1, 27), "did you mean qserv_areaspec_box or qserv_areaspec_circle or qserv_area"),
    ("adql", "SELECT id FROM star WHERE id IN ()", "syntax", (1, 34), "an empty list matches no row: leave the query out"),
    ("adql", "SELECT id FROM star WHERE (n = 1 AND (mag = 2)", "syntax", (1, 27), "write ) where it ends"),
    ("adql", "SELECT id FROM star WHERE n = 1)", "syntax", (1, 32), "there is one more ) than ("),
    ("adql", "DELETE FROM star", "syntax", (1, 1), "only SELECT is possible here"),
    ("adql", "INSERT INTO star VALUES (1)", "syntax", (1, 1), "only SELECT is possible here"),
    ("adql", "UPDATE star SET n = 1", "syntax", (1, 1), "only SELECT is possible here"),
    ("adql", "CREATE TABLE x AS SELECT id FROM star", "syntax", (1, 1), "only SELECT is possible here"),
    ("adql", "DROP TABLE star", "syntax", (1, 1), "only SELECT is possible here"),
    ("adql", "SELEC id FROM star", "syntax", (1, 1), "did you mean SELECT?"),
    ("adql", "SELECT id FORM star", "syntax", (1, 11), "did you mean FROM or OR?"),
    ("adql", "SELECT id FROM star WERE n = 1", "syntax", (1, 21), "did you mean WHERE?"),
    ("adql", "SELECT id FROM star GROUP n", "syntax", (1, 21), "write GROUP BY"),
    ("adql", "SELECT id FROM star ORDER id", "syntax", (1, 21), "write ORDER BY"),
    ("adql", "SELECT id, FROM star", "syntax", (1, 10), "take the comma out"),
    ("adql", "SELECT id FROM star WHERE n = 1 AND", "syntax", (1, 33), "something has to follow"),
    ("adql", "SELECT id FROM star WHERE AND n = 1", "syntax", (1, 27), "take the AND out"),
    ("adql", "SELECT id FROM star WHERE n = 1 AND AND mag = 2", "syntax", (1, 33), "take the AND out"),
    ("adql", "SELECT id FROM star WHERE n BETWEEN 1", "syntax", (1, 37), "write x BETWEEN low AND high"),
    ("adql", "SELECT id FROM star WHERE n BETWEEN 1, 5", "syntax", (1, 38), "write x BETWEEN low AND high"),
    ("adql", "SELECT id FROM star WHERE n =< 1", "syntax", (1, 29), "write <="),
    ("adql", "SELECT id FROM star WHERE n => 1", "syntax", (1, 29), "write >="),
    ('adql', 'SELECT id FROM star WHERE name LIKE ab%', 'syntax', (1, 39), "write it in single quotes: LIKE 'ab%'"),
    ('adql', "SELECT id FROM star WHERE n LIKE '1%'", 'type', (1, 27), 'CAST(x AS VARCHAR) makes a text of a value'),
    ("adql", "SELECT id FROM star JOIN demo.epoch", "syntax", (1, 26), "write JOIN table ON a.x = b.x"),
    ("adql", "SELECT id FROM star JOIN demo.epoch WHERE star.id = epoch.id", "syntax", (1, 26), "write JOIN table ON a.x = b.x"),
    ("adql", "SELECT s.id FROM star s JOIN demo.epoch e ON id", "unknown_name", (1, 46), "write s.id or e.id"),
    ("adql", "SELECT id FROM star WHERE flag", "type", (1, 27), "compare it with 1 or 0"),
    ('adql', "SELECT id FROM star WHERE flag = 'yes'", 'type', (1, 27), 'texts stand in single quotes, numbers without'),
    ("adql", "SELECT * FROM star s, star s", "unknown_name", (1, 15), "give each an alias"),
    ("adql", "SELECT id::int FROM star", "syntax", (1, 10), "write CAST(x AS type)"),
    ("adql", "SELECT id FROM star WHERE id = :id", "syntax", (1, 32), "write the value itself: there are no parameters"),
    ("adql", "SELECT id FROM star WHERE id = ?", "syntax", (1, 32), "write the value"),
    ('adql', 'SELECT id FROM star WHERE n != = 2', 'syntax', (1, 29), "'!= =' is not an operator"),
    ('adql', "SELECT id FROM star WHERE name = 'it's'", 'syntax', (1, 39), "a quote inside a text is doubled: 'it''s'"),
    ('adql', "SELECT id FROM star WHERE name = 'abc", 'syntax', (1, 34), "a quote inside a text is doubled: 'it''s'"),
    ("adql", "SELECT CAST(id AS FLOAT) FROM star", "type", (1, 13), "write REAL (32 bits) or DOUBLE PRECISION (64 bits)"),
    ("adql", "SELECT CAST(id AS int8) FROM star", "type", (1, 13), "did you mean INT or POINT or BIGINT?"),
    ('adql', "SELECT id FROM star WHERE seen > '2020-13-45'", 'type', (1, 34), 'write YYYY-MM-DDThh:mm:ss'),
    ('adql', 'SELECT id FROM star WHERE seen > 59000', 'type', (1, 27), "write a time as '2026-01-01T00:00:00'"),
    ("adql", "SELECT id FROM star ORDER BY 3", "type", (1, 30), "there is no column 3: the query has 1"),
    ("adql", "SELECT id FROM star HAVING n > 1", "type", (1, 8), "add it to GROUP BY, or write MIN(id)"),
    ("adql", "SELECT id FROM star LIMIT 5, 10", "syntax", (1, 28), "LIMIT skipped, rows is written LIMIT rows OFFSET skipped"),
    ("adql", "SELECT POWER(n) FROM star", "type", (1, 8), "it is written POWER(x DOUBLE, y DOUBLE) -> DOUBLE"),
    ("adql", "SELECT id FROM star WHERE EXISTS (n = 1)", "unknown_name", (1, 27), "EXISTS is followed by a sub-query"),
    ("adql", "SELECT id FROM star WHERE n IN 1, 2", "syntax", (1, 29), "write IN (1, 2, 3)"),
    ('adql', "SELECT id FROM 'star'", 'syntax', (1, 16), 'delimit names with double quotes: "a name"'),
    ("adql", "SELECT id FROM star AS OF 5", "syntax", (1, 27), "between OF and 5 an operator, a comma or AND is missing"),
    ("adql-strict", "SELECT id FROM star AT (VERSION => 3)", "syntax", (1, 21), "give the snapshot beside the statement: SNAPSHOT=<catalogue>:<n>, or s"),
    ("adql", "EXPLAIN SELECT id FROM star", "syntax", (1, 1), "ask for the plan with `qengine explain`, connection.explain(..) or the"),
    ("adql", "SHOW TABLES", "syntax", (1, 1), "tables are listed in TAP_SCHEMA.tables"),
    ("adql", "DESCRIBE star", "syntax", (1, 1), "columns are listed in TAP_SCHEMA.columns"),
    ("adql", "", "syntax", None, "a statement is SELECT .. FROM .."),
    ("adql", "SELECT 1", "syntax", (1, 8), "TAP_SCHEMA.tables lists the tables"),
    ("adql", "SELECT (id, n) FROM star", "syntax", (1, 9), "write the columns of SELECT without parentheses"),
    ("adql", "SELECT id FROM star WHERE id = (SELECT id, n FROM star)", "type", (1, 40), "a sub-query used as a value has one column, not 2"),
    ("adql", "SELECT id FROM star WHERE id IN (SELECT id, n FROM star)", "type", (1, 27), "the sub-query of IN has one column, not 2"),
    ("adql", "WITH RECURSIVE x AS (SELECT id FROM star) SELECT id FROM x", "syntax", (1, 16), "each step would be a query over all tiles: write the steps as queries "),
    ("adql", "SELECT id FROM demo.dp.cat.star", "syntax", (1, 16), "the name of a table has two parts: catalogue.table"),
    ("adql", "SELECT id FROM star WHERE n = 1 OR OR n = 2", "syntax", (1, 33), "take the OR out"),
    ("adql", "SELECT * FROM star WHERE ra BETWEEN 10 AND 20 dec BETWEEN 1 AND 2", "syntax", (1, 47), "between 20 and dec an operator, a comma or AND is missing"),
    ("adql", "SELECT id FROM star WHERE ra = 10° ", "syntax", (1, 32), "a name that begins with a digit stands in double quotes"),
    ("adql", "SELECT id FROM star WHERE mag < 20,5", "syntax", (1, 36), "decimal numbers are written with a point: 20.5"),
    ("adql", "SELECT COUNT(*) n FROM star GROUP BY", "syntax", (1, 29), "something has to follow"),
    ("adql", "SELECT id FROM star WHERE NOT", "syntax", (1, 27), "something has to follow"),
    ("adql", "SELECT s.id FROM star s LEFT OUTER JOIN demo.epoch e WHERE s.id = e.id", "syntax", (1, 41), "write JOIN table ON a.x = b.x"),
    ('adql', "SELECT id FROM star WHERE name = 'a' + 'b'", 'type', (1, 34), 'texts are joined with ||, and CAST(x AS DOUBLE PRECISION) makes a numb'),
    ("adql", "SELECT id FROM star WHERE ra > 10 & dec < 3", "type", (1, 37), "& needs integers, not DOUBLE"),
    ("adql", "SELECT id FROM star WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(120, 95, 1))", "type", (1, 56), "latitudes go from -90 to 90: is it POINT(ra, dec)?"),
    ("adql", "SELECT id FROM dp1.star", "unknown_name", (1, 16), "write demo.Star"),
    ("adql", "SELECT id,\n  mga\nFROM star", "unknown_name", (2, 3), "did you mean mag?"),
    ('sql', "SELECT id FROM star WHERE naem = 'x'", 'unknown_name', (1, 27), 'did you mean Name?'),
    ('adql-strict', 'SELECT CASE WHEN n = 1 THEN 2 END FROM star', 'syntax', (1, 18), "the profile 'adql' takes it"),
    ('adql-strict', 'SELECT id FROM star WHERE n & 4 = 4', 'syntax', (1, 29), "the profile 'adql' takes &"),
    ('adql-strict', 'SELECT SUM(n) OVER (PARTITION BY flag) FROM star', 'syntax', (1, 8), "the profile 'adql' takes it"),
    ('adql-strict', 'SELECT STDDEV(mag) FROM star', 'syntax', (1, 8), "the profile 'adql' takes it"),
    ('adql-strict', 'SELECT 0xFF FROM star', 'syntax', (1, 8), "write 255, or use the profile 'adql'"),
    ('adql-strict', 'SELECT TRUE FROM star', 'syntax', (1, 18), "the profile 'adql' takes it"),
    ('adql-strict', 'SELECT id FROM star CROSS JOIN demo.epoch', 'syntax', (1, 32), "the profile 'adql' takes it"),
    ('adql-strict', 'SELECT _load FROM star', 'syntax', (1, 8), "the profile 'adql' takes it"),
    ("adql-strict", "SELECT id FROM star /* all */", "syntax", (1, 21), "a comment starts with -- and goes to the end of the line"),
    ('adql', "SELECT x FROM read_parquet('/etc/passwd')", 'syntax', (1, 15), 'files and table functions cannot be read from a statement: tables are '),
    ("adql", "SELECT id FROM star GROUP BY ALL", "syntax", (1, 30), "name the columns"),
]  # fmt: skip


def error_of(profile: str, statement: str) -> QEngineError:
    with pytest.raises(QEngineError) as caught:
        bind(parse(statement, profile), CATALOG)
    return caught.value


@pytest.mark.parametrize(("profile", "statement", "code", "place", "sentence"), MISTAKES)
def test_mistake(profile: str, statement: str, code: str, place: tuple[int, int] | None, sentence: str) -> None:
    error = error_of(profile, statement)
    assert error.code == code
    assert error.blame is Blame.USER
    assert (None if error.span is None else (error.span.line, error.span.column)) == place
    assert sentence in str(error)
    if error.span is not None:
        line, mark = str(error).splitlines()[-2:]
        assert line.strip()
        assert set(mark) <= {" ", "^"}
        assert line[mark.index("^")] == statement.splitlines()[error.span.line - 1][error.span.column - 1]


def test_there_are_more_than_fifty() -> None:
    assert len(MISTAKES) > 50
    assert all(sentence for *_, sentence in MISTAKES)


@pytest.mark.parametrize(("profile", "statement"), [m[:2] for m in MISTAKES[::7]])
def test_the_same_error_through_tap(profile: str, statement: str) -> None:
    error = error_of(profile, statement)
    document = error_document(error)
    infos = {item.get("name"): item for item in ElementTree.fromstring(document).iter() if item.tag.endswith("INFO")}
    assert infos["QUERY_STATUS"].get("value") == "ERROR"
    assert infos["QUERY_STATUS"].text == str(error)
    assert json.loads(json.dumps(error.to_json()))["code"] == error.code
    again = _read_error(400, document, "http://there")
    assert type(again) is type(error)
    assert (str(again), again.code, again.span, again.hint) == (str(error), error.code, error.span, error.hint)


def test_an_excerpt_shows_the_line_and_a_part_of_a_long_one() -> None:
    assert excerpt("SELECT a\nFROM\tt", Span(2, 6, 14, 15)) == "  FROM t\n       ^"
    text = "SELECT " + "a + " * 100 + "b + " + "c + " * 100 + "d"
    at = text.index("b")
    line, mark = excerpt(text, Span(1, at + 1, at, at + 1)).splitlines()
    assert len(line) < 120
    assert line.strip().startswith("..")
    assert line.endswith("..")
    assert line[mark.index("^")] == "b"
    assert excerpt("SELECT a", Span(7, 1, 0, 1)) == ""


def test_an_excerpt_of_a_place_behind_the_end() -> None:
    assert excerpt("SELECT", Span(1, 7, 6, 6)) == "  SELECT\n        ^"
