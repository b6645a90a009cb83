"""What statements mean, by running them on DuckDB. `world.rows` also checks that bound names and types are those of the result."""

from __future__ import annotations

import datetime as dt
import math

import duckdb
import pytest

from tests.sql.world import World

Row = tuple[object, ...]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("5/2", 2), ("-5/2", -2), ("5/(-2)", -2), ("n/2", 3), ("(0-n)/2", -3), ("n/2.0", 3.5), ("1/3600", 0), ("1/3600.", 1 / 3600),
        ("LOG(EXP(2))", 2.0), ("LOG10(1000)", 3.0), ("MOD(-5, 3)", -2), ("MOD(5, -3)", 2), ("TRUNCATE(-2.567, 2)", -2.56),
        ("TRUNCATE(2.9)", 2.0), ("ROUND(2.567, 1)", 2.6), ("ROUND(1234.5, -2)", 1200.0), ("CEILING(2.1)", 3.0), ("FLOOR(-2.1)", -3.0),
        ("POWER(2, 10)", 1024.0), ("SQRT(16)", 4.0), ("ABS(-3)", 3), ("ABS(-3.5)", 3.5), ("PI()", math.pi), ("DEGREES(PI())", 180.0),
        ("RADIANS(180)", math.pi), ("ATAN2(1, 1)", math.pi / 4), ("COT(1)", 1 / math.tan(1)), ("2*3+4", 10), ("2*(3+4)", 14),
        ("10-(3-2)", 9), ("10-3-2", 5), ("-(-3)", 3), ("small + 40000", 40001), ("small * 32767 * 2", 65534), ("3000000000", 3000000000),
        ("12.3", 12.3), ("12.3 - 12", 12.3 - 12), ("1e3", 1000.0), ("'a' || 'b'", "ab"), ("'it''s'", "it's"),
        ("name || NULL", None), ("COALESCE(NULL, n, 3)", 7), ("LOWER('AbC')", "abc"), ("UPPER('AbC')", "ABC"),
        ("CAST(5.5 AS INTEGER)", 6), ("CAST('12' AS BIGINT)", 12), ("CAST(n AS REAL)", 7.0), ("CAST(mag AS DOUBLE PRECISION)", 1.5),
        ("CAST(123456 AS VARCHAR(3))", "123"), ("CAST('2020-02-03T04:05:06' AS TIMESTAMP)", dt.datetime(2020, 2, 3, 4, 5, 6)),
        ("CAST('2020-02-03T04:05:06+01:00' AS TIMESTAMP)", dt.datetime(2020, 2, 3, 3, 5, 6)),
        ("CASE WHEN n > 5 THEN 'big' ELSE 'small' END", "big"), ("CASE n WHEN 7 THEN 1 WHEN 8 THEN 2.5 END", 1.0),
        ("CASE flag WHEN 1 THEN 'yes' ELSE 'no' END", "yes"),
        ("NULLIF(n, 7)", None), ("GREATEST(1, 2.5)", 2.5), ("LEAST(3, 2)", 2), ("SUBSTRING('hello', 2, 3)", "ell"), ("LENGTH('abc')", 3),
        ("TRIM('  x ')", "x"), ("STRPOS('hello', 'l')", 3), ("SIGN(-2.5)", -1), ("CBRT(27)", 3.0), ("LN(EXP(1))", 1.0),
        ("n % 4", 3), ("n DIV 2", 3), ("flag + 1", 2), ("NULL", None), ("seen", dt.datetime(2020, 1, 1)),
        ("(SELECT MAX(e.flux) FROM demo.epoch AS e WHERE e.id = star.id)", 20.0), ("n > 5", True),
    ],
)  # fmt: skip
def test_value(world: World, expression: str, expected: object) -> None:
    found = world.value(expression)
    assert found == pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else found == expected


@pytest.mark.parametrize(
    ("expression", "expected"), [("5/2", 2.5), ("n/2", 3.5), ("LOG(1000)", 3.0), ("LN(1)", 0.0), ("n DIV 2", 3)]
)
def test_value_in_sql(world: World, expression: str, expected: object) -> None:
    assert world.value(expression, "sql") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("n = 5", [4, 5]), ("n <> 5", [1, 2, 3]), ("n IS NULL", [6]), ("n IS NOT NULL AND mag IS NULL", [4]), ("NOT n = 5", [1, 2, 3]),
        ("n BETWEEN 0 AND 5", [3, 4, 5]), ("n NOT BETWEEN 0 AND 5", [1, 2]), ("id IN (1, 3, 99)", [1, 3]), ("id NOT IN (1, 3)", [2, 4, 5, 6]),
        ("n = 5 OR n = 7 AND id = 1", [1, 4, 5]), ("(n = 5 OR n = 7) AND id = 1", [1]), ("name LIKE 'a%'", [1, 5]), ("name NOT LIKE 'a%'", [2, 3, 6]),
        ("name ILIKE 'b'", [2, 3]), ("name = 'b'", [2]), ("name > 'B'", [1, 2, 5, 6]), ("name LIKE '%!%' ESCAPE '!'", [5]),
        ("flag = 1", [1, 3, 5]), ("0 = flag", [2, 6]), ("flag <> 1", [2, 6]), ("flag > 0", [1, 3, 5]), ("flag = 'true'", [1, 3, 5]), ("flag = 2", []),
        ("flag IS NULL", [4]), ("seen > '2020-03-01'", [2, 5]), ("seen BETWEEN CAST('2020-01-01' AS TIMESTAMP) AND '2020-12-31T00:00:00Z'", [1, 2]),
        ("id IN (SELECT id FROM demo.epoch)", [1, 2]), ("id NOT IN (SELECT e.id FROM demo.epoch e)", [3, 4, 5, 6]),
        ("EXISTS (SELECT 1 FROM demo.epoch e WHERE e.id = star.id AND e.flux > 7)", [1]),
        ("NOT EXISTS (SELECT 1 FROM demo.epoch e WHERE e.id = star.id)", [3, 4, 5, 6]), ("mag = (SELECT MIN(mag) FROM star s)", [5]),
        ("mag < 2.5e0", [1, 5]), ("n <=> NULL", [6]), ("n IS DISTINCT FROM 5", [1, 2, 3, 6]), ("CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 1)) = 1", [1, 2, 3]),
    ],
)  # fmt: skip
def test_condition(world: World, condition: str, ids: list[int]) -> None:
    assert [row[0] for row in world.rows(f"SELECT id FROM demo.star WHERE {condition} ORDER BY id")] == ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT mag FROM star ORDER BY mag", [(0.5,), (1.5,), (2.5,), (2.5,), (3.5,), (None,)]),
        ("SELECT mag FROM star ORDER BY mag DESC", [(3.5,), (2.5,), (2.5,), (1.5,), (0.5,), (None,)]),
        ("SELECT n FROM star ORDER BY n NULLS FIRST LIMIT 2", [(None,), (-7,)]),
        ("SELECT TOP 2 id FROM star ORDER BY id OFFSET 1", [(2,), (3,)]),
        ("SELECT id FROM star ORDER BY 1 DESC OFFSET 4", [(2,), (1,)]),
        ("SELECT TOP 0 id FROM star", []),
        ("SELECT n AS mag, id FROM star ORDER BY mag, id OFFSET 4", [(7, 1), (None, 6)]),
        ("SELECT 5 AS c FROM star ORDER BY c LIMIT 1", [(5,)]),
        ("SELECT 1 FROM star GROUP BY 1", [(1,)]),
        ("SELECT DISTINCT n FROM star ORDER BY n", [(-7,), (0,), (5,), (7,), (None,)]),
        ("SELECT COUNT(*), COUNT(n), COUNT(DISTINCT n), SUM(n), AVG(n), MIN(n), MAX(n) FROM star", [(6, 5, 4, 10, 2.0, -7, 7)]),
        ("SELECT SUM(flag), AVG(flag), MAX(flag), COUNT(flag) FROM star", [(3, 0.6, 1, 5)]),
        ("SELECT COUNT(*) FROM star WHERE id > 100", [(0,)]),
        ("SELECT SUM(n) FROM star WHERE id > 100", [(None,)]),
        ("SELECT n, COUNT(*) AS c FROM star GROUP BY n HAVING COUNT(*) > 1", [(5, 2)]),
        ("SELECT FLOOR(mag) AS m, COUNT(*) AS c FROM star GROUP BY m ORDER BY m", [(0, 1), (1, 1), (2, 2), (3, 1), (None, 1)]),
        ("SELECT MEDIAN(mag), STDDEV_POP(n), VARIANCE(n) FROM star WHERE id < 3", [(2.0, 7.0, 98.0)]),
        ("SELECT SUM(n) FILTER (WHERE flag = 1) AS a, COUNT(*) FILTER (WHERE n = 5) AS b FROM star", [(12, 2)]),
        ("SELECT s.id, e.night FROM star s JOIN demo.epoch e ON s.id = e.id ORDER BY 1, 2", [(1, 1), (1, 2), (2, 1)]),
        ("SELECT id, night FROM star JOIN demo.epoch USING (id) ORDER BY id, night", [(1, 1), (1, 2), (2, 1)]),
        ("SELECT id, night FROM star NATURAL JOIN demo.epoch ORDER BY id, night", [(1, 1), (1, 2), (2, 1)]),
        ("SELECT id, COUNT(night) AS k FROM star LEFT JOIN demo.epoch USING (id) GROUP BY id ORDER BY id LIMIT 3", [(1, 2), (2, 1), (3, 0)]),
        ("SELECT id FROM star RIGHT JOIN demo.epoch USING (id) ORDER BY id", [(1,), (1,), (2,), (9,)]),
        ("SELECT id FROM star FULL JOIN demo.epoch USING (id) ORDER BY id", [(1,), (1,), (2,), (3,), (4,), (5,), (6,), (9,)]),
        ("SELECT COUNT(*) FROM star, demo.epoch", [(24,)]),
        ("SELECT COUNT(*) FROM star CROSS JOIN demo.epoch", [(24,)]),
        ("SELECT COUNT(*) FROM obs.field, star s RIGHT JOIN demo.epoch e ON s.id = e.id", [(8,)]),
        ("SELECT s.id, e.flux FROM star s LEFT JOIN (demo.epoch e JOIN obs.field f ON e.night = f.field_id) ON s.id = e.id AND f.field_id = 2 "
         "ORDER BY s.id LIMIT 2", [(1, 20.0), (2, None)]),
        ("SELECT id FROM star WHERE id < 3 UNION ALL SELECT id FROM demo.epoch ORDER BY id", [(1,), (1,), (1,), (2,), (2,), (9,)]),
        ("SELECT id FROM star WHERE id < 3 UNION SELECT id FROM demo.epoch ORDER BY 1", [(1,), (2,), (9,)]),
        ("SELECT id FROM star UNION SELECT id FROM demo.epoch INTERSECT SELECT 9 FROM star ORDER BY id DESC LIMIT 1", [(9,)]),
        ("SELECT id FROM star WHERE id = 1 UNION SELECT id FROM demo.epoch INTERSECT SELECT night FROM demo.epoch ORDER BY id", [(1,), (2,)]),
        ("SELECT id FROM star EXCEPT SELECT id FROM demo.epoch EXCEPT SELECT 3 FROM star ORDER BY id", [(4,), (5,), (6,)]),
        ("SELECT id FROM demo.epoch EXCEPT ALL SELECT id FROM star ORDER BY id", [(1,), (9,)]),
        ("SELECT TOP 1 n FROM star WHERE n = 5 UNION ALL SELECT TOP 1 n FROM star WHERE n = 5", [(5,), (5,)]),
        ("SELECT n FROM star WHERE id = 1 UNION ALL SELECT mag FROM star WHERE id = 2 ORDER BY n", [(2.5,), (7.0,)]),
        ("WITH a AS (SELECT id, mag FROM star WHERE mag > 2) SELECT COUNT(*) FROM a x JOIN a y ON x.mag = y.mag", [(5,)]),
        ("WITH a AS (SELECT id FROM star), b AS (SELECT id FROM a WHERE id > 4) SELECT * FROM b ORDER BY id", [(5,), (6,)]),
        ("SELECT d.c FROM (SELECT COUNT(*) AS c FROM star) AS d", [(6,)]),
        ("SELECT a.b FROM (SELECT id FROM star WHERE id = 1) AS a(b)", [(1,)]),
        ("SELECT id, ROW_NUMBER() OVER (ORDER BY mag DESC) AS r FROM star ORDER BY r LIMIT 2", [(3, 1), (2, 2)]),
        ("SELECT id FROM star QUALIFY RANK() OVER (PARTITION BY n ORDER BY id) = 2", [(5,)]),
        ("SELECT id, SUM(n) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM star ORDER BY id LIMIT 3", [(1, 7), (2, 0), (3, -7)]),
        ("SELECT LAG(id) OVER (ORDER BY id) AS p FROM star ORDER BY id LIMIT 2", [(None,), (1,)]),
        ("SELECT field_id FROM obs.field ORDER BY \"order\"", [(2,), (1,)]),
        ("SELECT COUNT(*) FROM (SELECT id FROM star ORDER BY id LIMIT 2) t", [(2,)]),
        ("(SELECT id FROM star ORDER BY id DESC) LIMIT 1", [(6,)]),
    ],
)  # fmt: skip
def test_statement(world: World, text: str, expected: list[Row]) -> None:
    found = world.rows(text)
    if "ORDER BY" in text:
        assert found == expected
    else:
        assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_intersect_binds_tighter(world: World) -> None:
    text = "SELECT id FROM star WHERE id = 6 UNION SELECT id FROM demo.epoch INTERSECT SELECT id FROM star WHERE id = 2 ORDER BY id"
    assert world.rows(text) == [(2,), (6,)]
    grouped = "(SELECT id FROM star WHERE id = 6 UNION SELECT id FROM demo.epoch) INTERSECT SELECT id FROM star WHERE id = 2"
    assert world.rows(grouped) == [(2,)]


def test_star_order_hides_hidden_columns_and_keeps_declared_names(world: World) -> None:
    answer = world.run("SELECT * FROM DEMO.STAR WHERE ID = 1")
    assert [c.name for c in answer.bound.columns] == ["ra", "dec", "id", "mag", "n", "small", "flag", "Name", "seen"]
    assert world.rows("SELECT s._load FROM star s WHERE id = 1") == [(1,)]
    joined = world.run("SELECT * FROM star JOIN demo.epoch USING (id)").bound.columns
    assert [c.name for c in joined][:3] == ["id", "ra", "dec"]
    assert [c.name for c in joined][-2:] == ["night", "flux"]


def test_equal_names_are_made_unique_with_a_warning(world: World) -> None:
    answer = world.run("SELECT a.id, b.ID, a.id AS Id FROM star a JOIN star b ON a.id = b.id")
    assert [c.name for c in answer.bound.columns] == ["id", "id_2", "Id_3"]
    assert any("unique" in warning for warning in answer.bound.warnings)


def test_group_by_ordinal_is_a_constant_in_adql_and_a_column_in_sql(world: World) -> None:
    assert world.rows("SELECT n, COUNT(*) AS c FROM star WHERE n = 5 GROUP BY 1", "sql") == [(5, 2)]
    assert world.rows("SELECT COUNT(*) AS c FROM star GROUP BY 1") == [(6,)]


def test_bare_booleans_are_conditions_in_sql(world: World) -> None:
    assert world.rows("SELECT id FROM star WHERE flag ORDER BY id", "sql") == [(1,), (3,), (5,)]
    assert world.rows("SELECT id FROM star WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 0.05)) ORDER BY id", "sql") == [(1,)]


def test_sum_of_integers_overflows_with_an_error(world: World) -> None:
    with pytest.raises(duckdb.Error):
        world.rows("SELECT SUM(id * 4611686018427387904) FROM star WHERE id = 1 OR id = 1 AND n = 7 UNION ALL "
                   "SELECT SUM(9223372036854775807 - id + id) FROM star")  # fmt: skip


def test_rand_is_between_zero_and_one(world: World) -> None:
    assert all(0 <= row[0] < 1 for row in world.rows("SELECT RAND() FROM star"))
    assert all(0 <= row[0] < 1 for row in world.rows("SELECT RAND(5) AS r FROM star ORDER BY r"))


def test_same_alias_in_sub_queries_is_made_unique(world: World) -> None:
    answer = world.run(
        "SELECT s.id FROM star s WHERE EXISTS (SELECT 1 FROM demo.epoch s WHERE s.night = 2) AND s.id IN (SELECT s.id FROM star s)"
    )
    aliases = [table.alias for table in answer.bound.tree.find_all(type(answer.bound.tree.args["from_"].this))]
    assert len({alias.lower() for alias in aliases}) == len(aliases) == 3
    assert len(answer.rows) == 6
