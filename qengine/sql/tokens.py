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
from qengine.sql.contextual import retag
from qengine.sql.dialect import ADQL, ExtendedADQL
from qengine.sql.language import Language
from qengine.sql.mistakes import check_neighbours, check_start, check_typography, error_at, unfinished
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
    TokenType.DCOLON: ("'::' is not part of the language", "write CAST(x AS type)"),
    TokenType.PLACEHOLDER: ("parameters are not supported", "write the value"),
    TokenType.PARAMETER: ("'@' is not part of the language", "write the value itself: there are no variables"),
    TokenType.DOLLAR: ("'$' is not part of the language", "write the value itself: there are no parameters"),
    TokenType.COLON: ("':' is not part of the language", "write the value itself: there are no parameters"),
    TokenType.HASH: ("'#' is not part of the language", "a comment starts with --"),
    TokenType.BACKSLASH: ("a backslash is not part of the language", "a quote inside a text is doubled: 'it''s'"),
    TokenType.L_BRACE: ("'{' is not part of the language", ""),
    TokenType.R_BRACE: ("'}' is not part of the language", ""),
}
_BITS = (TokenType.AMP, TokenType.PIPE, TokenType.CARET, TokenType.TILDE)


def tokenize(text: str, language: Language) -> list[Token]:
    """Return the tokens of one statement without its closing semicolon. Raise `QuerySyntaxError` with a position otherwise."""
    _check_text(text)
    dialect = ExtendedADQL() if language.has_extensions else ADQL()
    try:
        found = list(dialect.tokenize(text.replace("\u00a0", " ")))
    except TokenError as error:
        raise unfinished(text) from error
    if len(found) > MAX_TOKENS:
        raise QuerySyntaxError(f"the statement has more than {MAX_TOKENS} words", hint="upload long lists as a table")
    if found and found[-1].token_type is TokenType.SEMICOLON:
        found.pop()
    if not found:
        raise QuerySyntaxError("the statement is empty", hint="a statement is SELECT .. FROM ..")
    check_start(text, found[0])
    _check_nesting(text, found)
    if language.has_extensions:
        found = retag(found)
    for index in range(len(found)):
        _check_token(text, found, index, language)
        if language.is_strict:
            _check_strict(text, found, index)
    return found if language.has_extensions else retag(found)


def _check_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise QuerySyntaxError("the statement is not valid Unicode text", span=span_at(text, error.start, error.end)) from error
    if size > MAX_BYTES:
        raise QuerySyntaxError(f"the statement has {size} bytes, more than {MAX_BYTES}", hint="upload long lists as a table")
    check_typography(text)
    for match in re.finditer(r"[^\x20-\x7e]", text):
        if unicodedata.category(match[0]) in ("Cc", "Cf") and match[0] not in "\t\n\r":
            span = span_at(text, match.start(), match.end())
            raise QuerySyntaxError(f"the statement has a control character (U+{ord(match[0]):04X})", span=span)


def _check_nesting(text: str, found: list[Token]) -> None:
    depth = prefixes = 0
    opened: list[Token] = []
    for token in found:
        kind = token.token_type
        prefixes = prefixes + 1 if kind in _PREFIXES else 0
        if kind in (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.CASE):
            depth += 1
            opened.append(token)
        elif kind in (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.END):
            depth -= 1
            if opened:
                opened.pop()
        if depth < 0:
            raise error_at(text, token, f"'{token.text}' closes nothing", "there is one more ) than (" if token.text == ")" else "")
        if max(depth, prefixes) > MAX_DEPTH:
            raise error_at(text, token, f"the statement is nested more than {MAX_DEPTH} levels deep")
    if depth > 0:
        what = "CASE" if opened[-1].token_type is TokenType.CASE else "bracket"
        end = "END" if what == "CASE" else ")"
        raise error_at(text, opened[-1], f"the {what} that begins here is not closed", f"write {end} where it ends")


def _check_token(text: str, found: list[Token], index: int, language: Language) -> None:
    token = found[index]
    before = found[index - 1] if index else None
    after = found[index + 1] if index + 1 < len(found) else None
    kind = token.token_type
    if kind in _FOREIGN and not (kind is TokenType.COLON and language.has_extensions and _is_in_brackets(found, index)):
        raise error_at(text, token, *_FOREIGN[kind])
    if kind is TokenType.SEMICOLON:
        raise error_at(text, token, "one statement at a time: nothing may follow ';'", "send the second statement by itself")
    if kind is TokenType.EQ and text[token.start : token.end + 1] == "==":
        raise error_at(text, token, "'==' is not part of the language", "compare with '='")
    if kind is TokenType.COMMA and (before is None or before.token_type in _BEFORE_COMMA):
        raise error_at(text, token, "nothing stands before this comma")
    if kind is TokenType.COMMA and (after is None or after.token_type in _AFTER_COMMA):
        raise error_at(text, token, "nothing follows this comma", "take the comma out")
    if kind is TokenType.FROM and (before is None or before.token_type in (TokenType.L_PAREN, TokenType.ALL, *_SET_WORDS)):
        raise error_at(text, token, "SELECT and its columns come before FROM")
    if kind is TokenType.SELECT and (after is None or after.token_type in (TokenType.FROM, TokenType.R_PAREN, TokenType.WHERE)):
        raise error_at(text, token, "SELECT needs at least one column", "SELECT * gives all of them")
    if kind is TokenType.IN and (after is None or after.token_type is not TokenType.L_PAREN):
        raise error_at(text, token, "IN needs a list or a sub-query in parentheses", "write IN (1, 2, 3)")
    is_empty = kind is TokenType.R_PAREN and index > 1 and found[index - 1].token_type is TokenType.L_PAREN
    if is_empty and found[index - 2].token_type is TokenType.IN:
        raise error_at(text, token, "the list of IN is empty", "an empty list matches no row: leave the query out")
    if kind in (TokenType.TOP, TokenType.OFFSET, TokenType.LIMIT) and not _is_unsigned(after):
        _check_amount(text, found, index)
    if kind is TokenType.TOP and not _follows_select(found, index) and before and before.token_type is not TokenType.DOT:
        hint = "write SELECT TOP 10 .., or SELECT DISTINCT TOP 10 .."
        raise error_at(text, token, "TOP stands right after SELECT, or after SELECT DISTINCT", hint)
    if kind is TokenType.COMMA and before and before.token_type is TokenType.NUMBER and _follows_limit(found, index):
        raise error_at(text, token, "LIMIT takes one number", "LIMIT skipped, rows is written LIMIT rows OFFSET skipped")
    if kind is TokenType.NUMBER:
        _check_number(text, token, after, language)
    check_neighbours(text, found, index, language)


def _check_amount(text: str, found: list[Token], index: int) -> None:
    token = found[index]
    word = token.text.upper()
    after = found[index + 1] if index + 1 < len(found) else None
    if after is not None and after.token_type is TokenType.L_PAREN and word == "TOP":
        raise error_at(text, after, "TOP needs an unsigned integer without brackets", "write TOP 10")
    raise error_at(text, token, f"{word} needs an unsigned integer", f"write {word} 10")


def _check_number(text: str, token: Token, after: Token | None, language: Language) -> None:
    written = text[token.start : token.end + 1]
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", written) or written[0].isalpha():  # FETCH FIRST has no number of its own
        return
    if after and after.start == token.end + 1 and after.token_type is TokenType.VAR:
        whole = text[token.start : after.end + 1]
        if language.is_strict and re.fullmatch(r"0[xX][0-9a-fA-F]+", whole):
            raise error_at(
                text, token, "hexadecimal numbers are not ADQL 2.1", f"write {int(whole, 16)}, or use the profile 'adql'"
            )
        raise error_at(text, token, f"'{whole}' is not a number", "a name that begins with a digit stands in double quotes")
    if not re.fullmatch(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", written):
        raise error_at(text, token, f"'{written}' is not a number")


def _is_in_brackets(found: list[Token], index: int) -> bool:
    depth = 0
    for token in reversed(found[:index]):
        if token.token_type is TokenType.R_BRACKET:
            depth += 1
        elif token.token_type is TokenType.L_BRACKET:
            if depth == 0:
                return True
            depth -= 1
    return False


def _follows_select(found: list[Token], index: int) -> bool:
    before = found[index - 1].token_type if index else None
    if before in (TokenType.DISTINCT, TokenType.ALL):
        before = found[index - 2].token_type if index > 1 else None
    return before is TokenType.SELECT


def _check_strict(text: str, found: list[Token], index: int) -> None:
    token = found[index]
    word = token.text.upper()
    follower = found[index + 1].text.upper() if index + 1 < len(found) else ""
    if token.token_type is TokenType.MOD:
        raise error_at(text, token, "'%' is not ADQL 2.1", "write MOD(x, y), or use the profile 'adql'")
    if token.token_type in _BITS:
        raise error_at(text, token, "bit operators are not ADQL 2.1", f"the profile 'adql' takes {token.text}")
    if token.token_type in (TokenType.L_BRACKET, TokenType.R_BRACKET):
        hint = "names are delimited with double quotes; the profile 'adql' takes members of lists"
        raise error_at(text, token, f"'{token.text}' is not ADQL 2.1", hint)
    if token.token_type is not TokenType.VAR:
        if token.token_type is TokenType.SLASH and text[token.start : token.start + 2] == "/*":
            hint = "a comment starts with -- and goes to the end of the line; the profile 'adql' takes /* */"
            raise error_at(text, token, "/* */ comments are not ADQL 2.1", hint)
        return
    if word == "NULLS" and follower in ("FIRST", "LAST"):
        raise error_at(text, token, "NULLS FIRST and NULLS LAST are not ADQL 2.1", "NULLs come last; the profile 'adql' takes it")
    if word == "LIMIT" and follower.isdigit():
        raise error_at(text, token, "LIMIT is not ADQL 2.1", f"write SELECT TOP {follower} .., or use the profile 'adql'")
    if word == "FETCH" and follower in ("FIRST", "NEXT"):
        raise error_at(text, token, "FETCH FIRST is not ADQL 2.1", "write SELECT TOP n .., or use the profile 'adql'")
    if word in ("DIV", "XOR", "RLIKE", "REGEXP") and index and found[index - 1].token_type in _ENDS and follower not in _STOPS:
        hint = "write MOD(x, y) and x / y for integers" if word == "DIV" else ""
        raise error_at(text, token, f"{word} is not ADQL 2.1", f"the profile 'adql' takes {word}" + (f"; {hint}" if hint else ""))


_ENDS = (TokenType.VAR, TokenType.IDENTIFIER, TokenType.NUMBER, TokenType.STRING, TokenType.R_PAREN, TokenType.NOT)
_STOPS = frozenset(["", ",", "FROM", ")", "WHERE", "GROUP BY", "ORDER BY", "."])


def _is_unsigned(token: Token | None) -> bool:
    return token is not None and token.token_type is TokenType.NUMBER and token.text.isdigit()


def _follows_limit(found: list[Token], comma: int) -> bool:
    return comma >= 2 and found[comma - 2].token_type is TokenType.LIMIT
