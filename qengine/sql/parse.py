"""Station 1: text -> ParsedQuery.

The text passes three gates: the token stream (`tokens`: caps, stray commas, foreign operators), sqlglot's parser with a
dialect in which nothing but SELECT can be said (`dialect`), and the shape of the tree (`shape`: node classes and clauses that
the profile allows). What comes out is exactly one SELECT query; names, types and functions are the binder's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp
from sqlglot.errors import ErrorLevel, ParseError
from sqlglot.tokenizer_core import Token

from qengine.errors import ConfigError, QEngineError, QuerySyntaxError
from qengine.sql.deep import run_deep
from qengine.sql.dialect import ADQL, ExtendedADQL, LanguageParser
from qengine.sql.language import Language, language_of
from qengine.sql.lists import Lists, take_lists
from qengine.sql.mistakes import from_parser
from qengine.sql.shape import check_shape
from qengine.sql.spans import span_at
from qengine.sql.tokens import MAX_TOKENS, tokenize
from qengine.sql.trees import find
from qengine.sql.windows import inline_windows


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """One SELECT query as written. `extensions` names what it uses beyond ADQL 2.1, each once, in order of appearance."""

    text: str
    language: str
    tree: exp.Query
    extensions: tuple[str, ...] = ()


def parse(text: str, language: str) -> ParsedQuery:
    """Parse one statement in the profile `language`. Raise `QuerySyntaxError` with a position if it is not one."""
    try:
        return _parsed(text, language_of(language))
    except QEngineError as error:
        error.located(text)
        raise


def _parsed(text: str, profile: Language) -> ParsedQuery:
    shown, lists = take_lists(text)
    found = tokenize(shown, profile)
    if len(found) + 2 * sum(map(len, lists.values())) > MAX_TOKENS:
        raise QuerySyntaxError(f"the statement has more than {MAX_TOKENS} words", hint="upload long lists as a table")
    try:
        return run_deep(lambda: _parse(text, profile, found, lists))
    except QEngineError:
        raise
    except ParseError as error:
        raise from_parser(text, found, error) from error
    except Exception as error:  # whatever a foreign parser throws on a stranger's text is a fault of the text
        raise QuerySyntaxError("the statement cannot be understood") from error


def table_names(parsed: ParsedQuery) -> frozenset[tuple[str, str]]:
    """Return (schema, table) of all tables that the query names anywhere, the schema empty where none is written."""
    return frozenset((table.db, table.name) for table in find(parsed.tree, exp.Table))


def parse_adql(text: str) -> ParsedQuery:
    """Parse one statement of ADQL 2.1 and nothing else; raise `QuerySyntaxError` otherwise."""
    return parse(text, "adql-strict")


def _parse(text: str, profile: Language, found: list[Token], lists: Lists) -> ParsedQuery:
    dialect = ExtendedADQL() if profile.has_extensions else ADQL()
    try:
        parser = dialect.parser(error_level=ErrorLevel.IMMEDIATE)
    except TypeError as error:
        hint = "the package sqlglotc, which compiles sqlglot, cannot be used: uninstall it"
        raise ConfigError(f"this sqlglot cannot be extended: {error}", hint=hint) from error
    assert isinstance(parser, LanguageParser)
    parser.lists = lists
    trees = parser.parse(found, text)
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise QuerySyntaxError("a statement is one SELECT query", span=span_at(text, 0, len(text)))
    tree = trees[0]
    further = ["named windows"] if inline_windows(tree, text) else []
    further += ["&&"] if any(token.text == "&&" for token in found) else []
    extensions = check_shape(tree, text, profile)
    return ParsedQuery(text, profile.name, tree, (*extensions, *further))
