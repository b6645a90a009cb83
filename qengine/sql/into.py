"""SELECT .. INTO mydb.<name> FROM ..: where the answer goes, taken out of the statement.

ADQL reserves the word and has no such clause. What is left, with blanks in its place so that all positions hold, is a statement as
every other; what is wrong with that is the parser's business. The clause stands before the first FROM of the outermost SELECT, as
in CasJobs and SQL Server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot.tokenizer_core import Token, TokenType

from qengine.catalog.user_tables import ALIAS
from qengine.errors import QEngineError, QuerySyntaxError
from qengine.sql.language import language_of
from qengine.sql.lists import take_lists
from qengine.sql.spans import span_at
from qengine.sql.tokens import tokenize

_WORD = re.compile(r"\binto\b", re.IGNORECASE)
_SET_WORDS = (TokenType.UNION, TokenType.INTERSECT, TokenType.EXCEPT)


@dataclass(frozen=True, slots=True)
class Into:
    """A statement without its INTO, and the table of MyDB that it names."""

    text: str
    table: str


def take_into(text: str, language: str) -> Into | None:
    """Return what INTO says, None if the statement has none. Raise `QuerySyntaxError` for one that cannot be meant."""
    if _WORD.search(text) is None:
        return None
    try:
        found = tokenize(take_lists(text)[0], language_of(language))
    except QEngineError:
        return None  # the parser says so, too
    at = _place(found)
    if at is None:
        return None
    names = _names(found, at)
    last = found[at + 2 * len(names) - 1]
    span = span_at(text, found[at].start, last.end + 1)
    if len(names) != 2 or names[0].lower() != ALIAS:
        error = QuerySyntaxError("an answer goes INTO a table of your own", span=span, hint=f"write INTO {ALIAS}.<name>")
        raise error.located(text)
    blank = re.sub(r"\S", " ", text[found[at].start : last.end + 1])
    return Into(text[: found[at].start] + blank + text[last.end + 1 :], names[1])


def _place(found: Sequence[Token]) -> int | None:
    """Return which token is the INTO of the outermost SELECT."""
    depth = 0
    for index, token in enumerate(found):
        kind = token.token_type
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        if depth:
            continue
        if kind is TokenType.FROM or kind in _SET_WORDS:
            return None
        if kind is TokenType.VAR and token.text.upper() == "INTO" and _names(found, index):
            return index
    return None


def _names(found: Sequence[Token], at: int) -> list[str]:
    """Return the names between INTO and FROM, none if it is another use of the word."""
    names: list[str] = []
    for index in range(at + 1, len(found), 2):
        names.append(found[index].text)
        after = found[index + 1].token_type if index + 1 < len(found) else None
        if not names[-1] or found[index].token_type in (TokenType.FROM, TokenType.DOT, TokenType.COMMA, TokenType.STRING):
            return []
        if after is not TokenType.DOT:
            return names if after is TokenType.FROM else []
    return []
