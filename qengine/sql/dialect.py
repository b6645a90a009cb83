"""ADQL for sqlglot: which words are keywords, and a parser that interprets nothing.

The stock parser knows hundreds of functions, types and statements of other systems. Here every keyword is listed, so that
`COPY` or `PRAGMA` are just names and can start nothing; every call stays an `exp.Anonymous`, so that only our own function
table (`qengine.sql.functions`) gives it a meaning; and CAST keeps the words of its target type. What sqlglot still accepts
beyond the language is refused by `qengine.sql.tokens` before parsing and `qengine.sql.shape` after it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar

from sqlglot import exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.tokenizer_core import TokenType

from qengine.sql.lists import Lists, list_node

_STANDARD = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "OFFSET", "WITH", "AS", "ASC", "DESC", "DISTINCT", "ALL",
    "UNION", "INTERSECT", "EXCEPT", "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "OUTER", "NATURAL", "ON", "USING",
    "AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "LIKE", "ILIKE", "EXISTS", "||", "<>", "!=", "<=", ">=",
    # known in order to be refused with their own message
    "CASE", "WHEN", "THEN", "ELSE", "END", "OVER", "FILTER", "QUALIFY", "CROSS", "RECURSIVE", "ROWS", "RANGE", "PARTITION BY",
    "ESCAPE", "TRUE", "FALSE", "FIRST", "==", "<=>", "::",
)  # fmt: skip

_EXTENDED = ("LIMIT", "DIV", "&&", "=>")


def _keywords(words: tuple[str, ...]) -> dict[str, TokenType]:
    known = tokens.Tokenizer.KEYWORDS
    return {word: known[word] for word in words} | {"TOP": TokenType.TOP}


class _StrictTokenizer(tokens.Tokenizer):
    IDENTIFIERS: ClassVar[Any] = ['"']
    QUOTES: ClassVar[Any] = ["'"]
    COMMENTS: ClassVar[Any] = ["--"]
    KEYWORDS: ClassVar[Any] = _keywords(_STANDARD)


class _ExtendedTokenizer(tokens.Tokenizer):
    IDENTIFIERS: ClassVar[Any] = ['"']
    QUOTES: ClassVar[Any] = ["'"]
    COMMENTS: ClassVar[Any] = ["--", ("/*", "*/")]
    KEYWORDS: ClassVar[Any] = _keywords(_STANDARD + _EXTENDED)


class LanguageParser(parser.Parser):
    """The parser of all profiles. `lists` are the long lists of integers that were taken out of the text."""

    lists: Lists = MappingProxyType({})

    FUNCTIONS: ClassVar[Any] = {}
    ARRAY_CONSTRUCTORS: ClassVar[Any] = {}
    FUNCTION_PARSERS: ClassVar[Any] = {"CAST": lambda self: self.parse_cast_arguments()}
    NO_PAREN_FUNCTIONS: ClassVar[Any] = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[Any] = {"CASE": parser.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}

    def _parse_conjunction(self) -> exp.Expr | None:
        """XOR binds weaker than AND and stronger than OR, as in MySQL."""
        this = super()._parse_conjunction()
        while self._match(TokenType.XOR):
            this = self.expression(exp.Xor(this=this, expression=super()._parse_conjunction()))
        return this

    def _parse_in(self, this: exp.Expr | None, alias: bool = False) -> exp.In:
        """Read a list of plain numbers or texts, which may have thousands of members, without climbing the grammar for each.

        A long list of integers is not in the text any more: its node is put in its place.
        """
        opening = self._curr
        if opening and (values := self.lists.get(opening.start)) is not None:
            found = super()._parse_in(this, alias=alias)
            node = list_node(values)
            node.meta.update(start=opening.start, end=self._prev.end)
            found.set("expressions", [node])
            return found
        last = self._list_end()
        if last is None:
            return super()._parse_in(this, alias=alias)
        self._advance()
        first, items = self._index, []
        for token in self._tokens[first:last]:
            if token.token_type is not TokenType.COMMA:
                literal = exp.Literal(this=token.text, is_string=token.token_type is TokenType.STRING)
                items.append(literal.update_positions(token))
        self._advance(last - first + 1)
        return self.expression(exp.In(this=this, expressions=items))

    def _list_end(self) -> int | None:
        """Return the place of the bracket that closes a list of literals which opens here, None if it is no such list."""
        tokens = self._tokens
        place = self._index
        if place >= len(tokens) or tokens[place].token_type is not TokenType.L_PAREN:
            return None
        while place + 2 < len(tokens) and tokens[place + 1].token_type in (TokenType.NUMBER, TokenType.STRING):
            kind = tokens[place + 2].token_type
            if kind is TokenType.R_PAREN:
                return place + 2
            if kind is not TokenType.COMMA:
                return None
            place += 2
        return None

    def _parse_join(self, *args: Any, **kwargs: Any) -> exp.Join | None:
        """Remember which joins were written as commas: `t, u` and the unfinished `t JOIN u` give the same node."""
        first = self._curr
        join = super()._parse_join(*args, **kwargs)
        if join is not None and first and first.token_type is TokenType.COMMA:
            join.meta["comma"] = True
        return join

    def parse_cast_arguments(self) -> exp.Expr:
        """Parse `value AS word [word] [(n)]`; the target is kept as written, in upper case, for the binder to judge."""
        value = self._parse_disjunction()
        if not self._match(TokenType.ALIAS):
            self.raise_error("CAST needs AS and a type")
        first = self._curr
        words: list[str] = []
        while self._curr and self._curr.token_type is TokenType.VAR:
            words.append(self._curr.text.upper())
            self._advance()
        if not words:
            self.raise_error("CAST needs the name of a type after AS")
        target = " ".join(words)
        if self._match(TokenType.L_PAREN):
            if not self._curr or self._curr.token_type is not TokenType.NUMBER:
                self.raise_error("the length of a type is an unsigned integer")
            target += f"({self._curr.text})"
            self._advance()
            self._match_r_paren()
        kind = exp.Var(this=target).update_positions(first)
        return self.expression(exp.Cast(this=value, to=kind))


class ADQL(Dialect):
    """ADQL 2.1 and the words that strict mode must know in order to refuse them."""

    NULL_ORDERING = "nulls_are_last"
    Tokenizer = _StrictTokenizer
    Parser = LanguageParser


class ExtendedADQL(Dialect):
    """The same with LIMIT, DIV, && and block comments. More words are made keywords where they stand (`contextual`)."""

    NULL_ORDERING = "nulls_are_last"
    Tokenizer = _ExtendedTokenizer
    Parser = LanguageParser
