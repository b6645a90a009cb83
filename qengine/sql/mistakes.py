"""Mistakes that the words of a statement show before it is parsed, each with a sentence that helps.

A parser can only say what it expected. Here the commonest things that people write who come from another system, or in a hurry, are
recognised by the words beside each other: a statement that would write, quotation marks of a word processor, `= NULL`, WHERE twice,
a comma before FROM. The list with the sentences is in `tests/errors`.
"""

from __future__ import annotations

import re

from sqlglot.errors import ParseError
from sqlglot.tokenizer_core import Token, TokenType

from qengine.errors import QuerySyntaxError, Span
from qengine.sql.language import Language
from qengine.sql.spans import nearest, span_at

_WRITES = {
    "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "DROP", "ALTER", "REPLACE", "GRANT", "REVOKE", "COPY", "ATTACH",
    "DETACH", "EXPORT", "IMPORT", "LOAD", "INSTALL",
}  # fmt: skip
_CLOCK = "write the time itself, such as '2026-01-01T00:00:00'"
_CONE = "write DISTANCE(ra, dec, 10, -20) < 0.1, in degrees"
FOREIGN_FUNCTIONS = {
    "ISNULL": "write x IS NULL", "IF": "write CASE WHEN .. THEN .. ELSE .. END", "IIF": "write CASE WHEN .. THEN .. ELSE .. END",
    "DECODE": "write CASE x WHEN .. THEN .. END", "NVL": "write COALESCE(x, y)", "NOW": _CLOCK, "GETDATE": _CLOCK,
    "SYSDATE": _CLOCK, "CURDATE": _CLOCK, "CURRENT_TIMESTAMP": _CLOCK, "UNIX_TIMESTAMP": _CLOCK, "CONVERT": "write CAST(x AS type)",
    "TO_CHAR": "write CAST(x AS VARCHAR)", "TO_NUMBER": "write CAST(x AS DOUBLE PRECISION)", "STR": "write CAST(x AS VARCHAR)",
    "LEN": "write LENGTH(x)", "SQUARE": "write POWER(x, 2)", "SQR": "write POWER(x, 2)",
    "EXISTS": "EXISTS is followed by a sub-query", "AVERAGE": "write AVG(x)",
    "STDEV": "write STDDEV(x)", "STD": "write STDDEV(x)", "VAR": "write VARIANCE(x)",
    "Q3C_RADIAL_QUERY": _CONE, "Q3C_JOIN": "write DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.001, in degrees", "Q3C_DIST": _CONE,
    "FGETNEARBYOBJEQ": _CONE, "CONE": _CONE, "INCIRCLE": _CONE, "ANGDIST": _CONE, "HAVERSINE": _CONE,
    "UNNEST": "a list is opened in FROM: FROM t, UNNEST(t.list) AS u(x)",
    "ARCSEC": "divide by 3600: positions and radii are degrees", "ARCMIN": "divide by 60: positions and radii are degrees",
}  # fmt: skip
"""Functions of other systems and what to write instead."""

_OTHERS = {
    "EXPLAIN": "ask for the plan with `qengine explain`, connection.explain(..) or the /explain resource",
    "DESCRIBE": "columns are listed in TAP_SCHEMA.columns", "DESC": "columns are listed in TAP_SCHEMA.columns",
    "SHOW": "tables are listed in TAP_SCHEMA.tables", "USE": "write the catalogue before the table: catalogue.table",
    "SET": "there are no variables and no session settings", "CALL": "there are no procedures",
    "VALUES": "write SELECT * FROM (VALUES ..) AS v", "FROM": "write SELECT * FROM ..",
}  # fmt: skip
_QUOTES = {
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00b4": "'", "\u2032": "'",
}  # fmt: skip
_LAMBDA = "use a sub-query over the list: (SELECT LIST(u.x + 1) FROM UNNEST(t.list) AS u(x) WHERE u.x < 15)"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"


def check_start(text: str, first: Token) -> None:
    if first.token_type in (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN):
        return
    word = first.text.upper()
    if word in _WRITES:
        raise error_at(text, first, f"{word} would change the catalogues, which are read only", "only SELECT is possible here")
    if word in _OTHERS:
        raise error_at(text, first, f"a statement starts with SELECT or WITH, not with {word}", _OTHERS[word])
    hint = nearest(word, ("SELECT", "WITH"))
    raise error_at(text, first, f"a statement starts with SELECT or WITH, not with {first.text}", hint)


def unfinished(text: str) -> QuerySyntaxError:
    """Find which quotation mark, or comment, is not closed."""
    at = 0
    for match in re.finditer(r"'(?:[^']|'')*('?)|\"(?:[^\"]|\"\")*(\"?)|--[^\n]*|/\*(?:[^*]|\*(?!/))*(\*/)?", text):
        at = match.start()
        opening = text[at]
        if opening == "'" and not match[1]:
            return _unclosed(text, at, "the text that begins here is not closed", "a quote inside a text is doubled: 'it''s'")
        if opening == '"' and not match[2]:
            return _unclosed(text, at, "the name in double quotes that begins here is not closed", "")
        if match[0].startswith("/*") and not match[3]:
            return _unclosed(text, at, "the comment that begins here is not closed", "")
    return QuerySyntaxError("the statement ends inside a string, a delimited name or a comment")


def _unclosed(text: str, at: int, message: str, hint: str) -> QuerySyntaxError:
    return QuerySyntaxError(message, span=span_at(text, at, at + 1), hint=hint)


def check_typography(text: str) -> None:
    """Quotation marks and dashes that a word processor made. Inside a text or a quoted name they are what they are."""
    if text.isascii():
        return
    for match in re.finditer(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|([^\x00-\x7f])", text):
        character = match[1]
        if character in _QUOTES:
            span = span_at(text, match.start(), match.end())
            message = f"{character} is a typographic quotation mark"
            raise QuerySyntaxError(message, span=span, hint=f"write the plain {_QUOTES[character]}")
        if character and character in _DASHES:
            span = span_at(text, match.start(), match.end())
            raise QuerySyntaxError(f"{character} is a typographic dash", span=span, hint="write the plain -")


_CLAUSE_WORDS = {
    TokenType.WHERE: "WHERE", TokenType.GROUP_BY: "GROUP BY", TokenType.HAVING: "HAVING", TokenType.ORDER_BY: "ORDER BY",
    TokenType.QUALIFY: "QUALIFY", TokenType.FROM: "FROM",
}  # fmt: skip
_CONNECTORS = (TokenType.AND, TokenType.OR)
_COMPARES = (TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.GT, TokenType.LTE, TokenType.GTE)


_STARTS = (TokenType.VAR, TokenType.IDENTIFIER, TokenType.NUMBER)
_ENDS = (*_STARTS, TokenType.STRING, TokenType.R_PAREN)


def check_neighbours(text: str, found: list[Token], index: int, language: Language) -> None:
    """Raise an error for mistakes that a word and its neighbours show."""
    token = found[index]
    kind = token.token_type
    after = found[index + 1] if index + 1 < len(found) else None
    if after is None:
        if kind in _COMPARES or kind in (TokenType.AND, TokenType.OR, TokenType.NOT, *_CLAUSE_WORDS):
            raise error_at(text, token, f"the statement ends after {token.text.upper()}", "something has to follow")
        return
    if kind in _CLAUSE_WORDS and after.token_type in _CLAUSE_WORDS:
        word = _CLAUSE_WORDS[kind]
        message = f"nothing stands between {word} and {_CLAUSE_WORDS[after.token_type]}"
        raise error_at(text, token, message, f"leave {word} out, or write what it is about")
    if kind in _CONNECTORS and after.token_type in (*_CLAUSE_WORDS, *_CONNECTORS, TokenType.R_PAREN):
        raise error_at(text, token, f"nothing follows {token.text.upper()}", f"take the {token.text.upper()} out")
    if kind is TokenType.WHERE and after.token_type in (TokenType.AND, TokenType.OR):
        raise error_at(text, after, f"nothing stands before {after.text.upper()}", f"take the {after.text.upper()} out")
    if kind is TokenType.FARROW and not (index > 2 and _is_version(found, index - 3)):
        raise error_at(text, token, "'=>' is not an operator", "write >=")
    if kind is TokenType.DASH and after.token_type is TokenType.GT and after.start == token.end + 1:
        raise error_at(text, token, "'->' is not part of the language", _LAMBDA)
    if kind in _COMPARES and after.token_type in _COMPARES:
        written = text[token.start : after.end + 1]
        hint = {"=<": "write <=", "=>": "write >=", "><": "write <>", "<<": "shifts are not part of ADQL"}.get(written, "")
        if written not in ("<<", ">>"):
            raise error_at(text, token, f"'{written}' is not an operator", hint)
    if language.needs_warning and kind is TokenType.EQ and after.token_type is TokenType.NULL:
        raise error_at(text, token, "'= NULL' is never true", "write IS NULL")
    if language.needs_warning and kind is TokenType.NEQ and after.token_type is TokenType.NULL:
        raise error_at(text, token, f"'{token.text} NULL' is never true", "write IS NOT NULL")
    if kind is TokenType.GROUP_BY and after.token_type is TokenType.ALL:
        raise error_at(text, after, "GROUP BY ALL is not supported", "name the columns")
    is_between = index > 0 and found[index - 1].token_type in _ENDS and after.token_type in _STARTS
    if kind is TokenType.VAR and token.text.upper() in ("ORDER", "GROUP") and is_between:
        raise error_at(text, token, f"{token.text.upper()} is followed by BY", f"write {token.text.upper()} BY")
    is_at = kind is TokenType.VAR and token.text.upper() == "AT" and after.token_type is TokenType.L_PAREN
    if language.is_strict and is_at and _is_version(found, index):
        message = "AT (VERSION => n) is not ADQL 2.1"
        raise error_at(text, token, message, "give the snapshot beside the statement: SNAPSHOT=<catalogue>:<n>, or snapshots={..}")


def _is_version(found: list[Token], index: int) -> bool:
    return index + 2 < len(found) and found[index + 2].text.upper() in ("VERSION", "TIMESTAMP")


def error_at(text: str, token: Token, message: str, hint: str = "") -> QuerySyntaxError:
    return QuerySyntaxError(message, span=span_at(text, token.start, token.end + 1), hint=hint)


_WORDS = (
    "SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "JOIN", "UNION", "AND", "OR", "BETWEEN", "LIKE",
    "QUALIFY",
)  # fmt: skip


def from_parser(text: str, found: list[Token], error: ParseError) -> QuerySyntaxError:
    """Return what the parser found as an error in our words, at the token where it stopped."""
    detail = error.errors[0] if error.errors else {}
    message = str(detail.get("description") or "the statement cannot be understood").rstrip(". ")
    near = str(detail.get("highlight") or "")
    line, column = detail.get("line"), detail.get("col")
    token = next((token for token in found if (token.line, token.col) == (line, column)), None)
    if token is None:
        return QuerySyntaxError(
            f"{message} near '{near}'" if near and "<class" not in message else "the statement cannot be understood"
        )
    index = found.index(token)
    span = span_at(text, token.start, token.end + 1)
    before = found[index - 1] if index else None
    for word in (before, token):
        hint = nearest(word.text, _WORDS) if word is not None and word.token_type is TokenType.VAR and len(word.text) > 2 else ""
        if hint and word is not None:
            place = span_at(text, word.start, word.end + 1)
            return QuerySyntaxError(f"{word.text} is not expected here", span=place, hint=hint)
    if "missing for" in message:
        return _missing(message, found, index, span)
    if message.startswith("Found multiple"):
        what = message.split("'")[1] if "'" in message else near
        hint = "join the conditions with AND" if what == "WHERE" else f"there is one {what} in a query"
        return QuerySyntaxError(f"a second {what}", span=span, hint=hint)
    if message.startswith("Invalid expression"):
        return QuerySyntaxError(f"{near} is not expected here", span=span, hint=_unexpected(before, token))
    return QuerySyntaxError(f"{message} near '{near}'", span=span)


def _missing(message: str, found: list[Token], index: int, span: Span) -> QuerySyntaxError:
    words = [token.text.upper() for token in found[: index + 1]]
    if "Between" in message:
        return QuerySyntaxError("BETWEEN needs two values", span=span, hint="write x BETWEEN low AND high")
    if found[index].text == "%" and "LIKE" in words[-4:]:
        return QuerySyntaxError("the pattern of LIKE is a text", span=span, hint="write it in single quotes: LIKE 'ab%'")
    return QuerySyntaxError(f"something is missing beside {found[index].text}", span=span)


def _unexpected(before: Token | None, token: Token) -> str:
    if token.text == "`" or (before is not None and before.text == "`"):
        return 'names are delimited with double quotes: "a name"'
    if before is None:
        return ""
    if before.token_type is TokenType.COMMA and token.token_type is TokenType.NUMBER:
        return "decimal numbers are written with a point: 20.5"
    if before.token_type in _ENDS and token.token_type in (*_STARTS, TokenType.STRING, TokenType.L_PAREN):
        return f"between {before.text} and {token.text} an operator, a comma or AND is missing"
    if token.token_type is TokenType.STRING:
        return "a quote inside a text is doubled: 'it''s'"
    return ""
