"""Mistakes that the words of a statement show before it is parsed, each with a sentence that helps.

A parser can only say what it expected. Here the commonest things that people write who come from another system, or in a hurry, are
recognised by the words beside each other: a statement that would write, quotation marks of a word processor, `= NULL`, WHERE twice,
a comma before FROM. The list with the sentences is in `tests/errors`.
"""

from __future__ import annotations

import re

from sqlglot.tokenizer_core import Token, TokenType

from qengine.errors import QuerySyntaxError
from qengine.sql.spans import nearest, span_at

_WRITES = {
    "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "DROP", "ALTER", "REPLACE", "GRANT", "REVOKE", "COPY", "ATTACH",
    "DETACH", "EXPORT", "IMPORT", "LOAD", "INSTALL",
}  # fmt: skip
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


def check_neighbours(text: str, found: list[Token], index: int) -> None:
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
    if kind in _COMPARES and after.token_type in _COMPARES:
        written = text[token.start : after.end + 1]
        hint = {"=<": "write <=", "=>": "write >=", "><": "write <>", "<<": "shifts are not part of ADQL"}.get(written, "")
        if written not in ("<<", ">>"):
            raise error_at(text, token, f"'{written}' is not an operator", hint)
    if kind is TokenType.EQ and after.token_type is TokenType.NULL:
        raise error_at(text, token, "'= NULL' is never true", "write IS NULL")
    if kind is TokenType.NEQ and after.token_type is TokenType.NULL:
        raise error_at(text, token, f"'{token.text} NULL' is never true", "write IS NOT NULL")
    if kind is TokenType.GROUP_BY and after.token_type is TokenType.ALL:
        raise error_at(text, after, "GROUP BY ALL is not supported", "name the columns")
    is_between = index > 0 and found[index - 1].token_type in _ENDS and after.token_type in _STARTS
    if kind is TokenType.VAR and token.text.upper() in ("ORDER", "GROUP") and is_between:
        raise error_at(text, token, f"{token.text.upper()} is followed by BY", f"write {token.text.upper()} BY")
    if kind is TokenType.VAR and token.text.upper() == "AT" and after.token_type is TokenType.L_PAREN and _is_version(found, index):
        message = "AT (VERSION => n) in the statement is not supported"
        raise error_at(text, token, message, "give the snapshot beside the statement: SNAPSHOT=<catalogue>:<n>, or snapshots={..}")


def _is_version(found: list[Token], index: int) -> bool:
    return index + 2 < len(found) and found[index + 2].text.upper() in ("VERSION", "TIMESTAMP")


def error_at(text: str, token: Token, message: str, hint: str = "") -> QuerySyntaxError:
    return QuerySyntaxError(message, span=span_at(text, token.start, token.end + 1), hint=hint)
