"""The pass over the token stream before parsing: caps, and what sqlglot would repair or overlook.

sqlglot drops stray commas, reads `FROM t` as a SELECT, takes `TOP` with anything behind it and overflows the stack on deep
nesting. All of that is decided here on the tokens, where positions are exact. What needs the tree is in `qengine.sql.shape`.
"""

from __future__ import annotations

import re
import unicodedata

from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from qengine.errors import QuerySyntaxError
from qengine.sql.dialect import ADQL, ExtendedADQL
from qengine.sql.language import Language
from qengine.sql.spans import span_at

MAX_BYTES = 256 * 1024
MAX_TOKENS = 60_000
MAX_DEPTH = 100

_SET_WORDS = (TokenType.UNION, TokenType.INTERSECT, TokenType.EXCEPT)
_PREFIXES = (TokenType.NOT, TokenType.DASH, TokenType.PLUS)
_BEFORE_COMMA = (TokenType.COMMA, TokenType.L_PAREN, TokenType.SELECT, TokenType.FROM, TokenType.GROUP_BY, TokenType.ORDER_BY)
_AFTER_COMMA = (
    TokenType.COMMA, TokenType.R_PAREN, TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY, TokenType.HAVING,
    TokenType.ORDER_BY, TokenType.OFFSET, TokenType.LIMIT, TokenType.SEMICOLON, *_SET_WORDS,
)  # fmt: skip

_FOREIGN = {
    TokenType.DCOLON: ("'::' is not ADQL", "write CAST(x AS type)"),
    TokenType.PLACEHOLDER: ("parameters are not supported", "write the value"),
    TokenType.PARAMETER: ("'@' is not part of the language", ""),
    TokenType.DOLLAR: ("'$' is not part of the language", ""),
    TokenType.COLON: ("':' is not part of the language", ""),
    TokenType.AMP: ("bit operators are not part of the language", ""),
    TokenType.PIPE: ("bit operators are not part of the language", "'||' joins texts"),
    TokenType.CARET: ("'^' is not part of the language", "write POWER(x, y)"),
    TokenType.TILDE: ("'~' is not part of the language", ""),
    TokenType.HASH: ("'#' is not part of the language", "a comment starts with --"),
    TokenType.BACKSLASH: ("a backslash is not part of the language", ""),
    TokenType.L_BRACKET: ("'[' is not part of the language", 'delimit names with double quotes: "a name"'),
    TokenType.R_BRACKET: ("']' is not part of the language", ""),
    TokenType.L_BRACE: ("'{' is not part of the language", ""),
    TokenType.R_BRACE: ("'}' is not part of the language", ""),
}


def tokenize(text: str, language: Language) -> list[Token]:
    """Return the tokens of one statement without its closing semicolon. Raise `QuerySyntaxError` with a position otherwise."""
    _check_text(text)
    dialect = ExtendedADQL() if language.has_extensions else ADQL()
    try:
        found = list(dialect.tokenize(text.replace("\u00a0", " ")))
    except TokenError as error:
        raise QuerySyntaxError("the statement ends inside a string, a delimited name or a comment") from error
    check_count(len(found))
    if found and found[-1].token_type is TokenType.SEMICOLON:
        found.pop()
    if not found:
        raise QuerySyntaxError("the statement is empty")
    if found[0].token_type not in (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN):
        raise _error(text, found[0], f"a statement starts with SELECT or WITH, not with {found[0].text}")
    _check_nesting(text, found)
    for index in range(len(found)):
        _check_token(text, found, index)
        if language.is_strict:
            _check_strict(text, found, index)
    return found


def check_count(words: int) -> None:
    """Raise `QuerySyntaxError` if these are more words than a statement may have."""
    if words > MAX_TOKENS:
        raise QuerySyntaxError(f"the statement has more than {MAX_TOKENS} words", hint="upload long lists as a table")


def _check_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise QuerySyntaxError("the statement is not valid Unicode text", span=span_at(text, error.start, error.end)) from error
    if size > MAX_BYTES:
        raise QuerySyntaxError(f"the statement has {size} bytes, more than {MAX_BYTES}", hint="upload long lists as a table")
    for match in re.finditer(r"[^\x20-\x7e]", text):
        if unicodedata.category(match[0]) in ("Cc", "Cf") and match[0] not in "\t\n\r":
            span = span_at(text, match.start(), match.end())
            raise QuerySyntaxError(f"the statement has a control character (U+{ord(match[0]):04X})", span=span)


def _check_nesting(text: str, found: list[Token]) -> None:
    depth = prefixes = 0
    for token in found:
        kind = token.token_type
        prefixes = prefixes + 1 if kind in _PREFIXES else 0
        if kind in (TokenType.L_PAREN, TokenType.CASE):
            depth += 1
        elif kind in (TokenType.R_PAREN, TokenType.END):
            depth -= 1
        if depth < 0:
            raise _error(text, token, f"'{token.text}' closes nothing")
        if max(depth, prefixes) > MAX_DEPTH:
            raise _error(text, token, f"the statement is nested more than {MAX_DEPTH} levels deep")
    if depth > 0:
        raise _error(text, found[-1], "the statement ends before a bracket or CASE is closed")


def _check_token(text: str, found: list[Token], index: int) -> None:
    token = found[index]
    before = found[index - 1] if index else None
    after = found[index + 1] if index + 1 < len(found) else None
    kind = token.token_type
    if kind in _FOREIGN:
        raise _error(text, token, *_FOREIGN[kind])
    if kind is TokenType.DISTINCT and after and after.token_type is TokenType.ON:
        raise _error(text, after, "DISTINCT ON is not supported", "use ROW_NUMBER() and QUALIFY")
    if kind is TokenType.SEMICOLON:
        raise _error(text, token, "one statement at a time: nothing may follow ';'")
    if kind is TokenType.EQ and text[token.start : token.end + 1] == "==":
        raise _error(text, token, "'==' is not part of the language", "compare with '='")
    if kind is TokenType.COMMA and (before is None or before.token_type in _BEFORE_COMMA):
        raise _error(text, token, "nothing stands before this comma")
    if kind is TokenType.COMMA and (after is None or after.token_type in _AFTER_COMMA):
        raise _error(text, token, "nothing follows this comma")
    if kind is TokenType.FROM and (before is None or before.token_type in (TokenType.L_PAREN, TokenType.ALL, *_SET_WORDS)):
        raise _error(text, token, "SELECT and its columns come before FROM")
    if kind is TokenType.SELECT and (after is None or after.token_type in (TokenType.FROM, TokenType.R_PAREN, TokenType.WHERE)):
        raise _error(text, token, "SELECT needs at least one column")
    if kind is TokenType.IN and (after is None or after.token_type is not TokenType.L_PAREN):
        raise _error(text, token, "IN needs a list or a sub-query in parentheses")
    if kind in (TokenType.TOP, TokenType.OFFSET, TokenType.LIMIT) and not _is_unsigned(after):
        raise _error(text, token, f"{token.text.upper()} needs an unsigned integer")
    if kind is TokenType.COMMA and before and before.token_type is TokenType.NUMBER and _follows_limit(found, index):
        raise _error(text, token, "LIMIT takes one number", "skip rows with OFFSET")
    if kind is TokenType.NUMBER and after and after.start == token.end + 1 and after.token_type is TokenType.VAR:
        raise _error(text, token, f"'{text[token.start : after.end + 1]}' is not a number")
    if kind is TokenType.NUMBER and not re.fullmatch(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text[token.start : token.end + 1]):
        raise _error(text, token, f"'{text[token.start : token.end + 1]}' is not a number")


def _check_strict(text: str, found: list[Token], index: int) -> None:
    token = found[index]
    word = token.text.upper()
    if token.token_type is TokenType.MOD:
        raise _error(text, token, "'%' is not ADQL", "write MOD(x, y)")
    follower = found[index + 1].text.upper() if index + 1 < len(found) else ""
    if token.token_type is TokenType.VAR and word == "NULLS" and follower in ("FIRST", "LAST"):
        raise _error(text, token, "NULLS FIRST and NULLS LAST are not ADQL", "NULLs come last")
    if token.token_type is TokenType.SLASH and text[token.start : token.start + 2] == "/*":
        raise _error(text, token, "/* */ comments are not ADQL", "a comment starts with -- and goes to the end of the line")


def _is_unsigned(token: Token | None) -> bool:
    return token is not None and token.token_type is TokenType.NUMBER and token.text.isdigit()


def _follows_limit(found: list[Token], comma: int) -> bool:
    return comma >= 2 and found[comma - 2].token_type is TokenType.LIMIT


def _error(text: str, token: Token, message: str, hint: str = "") -> QuerySyntaxError:
    return QuerySyntaxError(message, span=span_at(text, token.start, token.end + 1), hint=hint)
