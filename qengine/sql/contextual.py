"""Words that are keywords only where they can be.

`WINDOW`, `VALUES`, `LATERAL`, `CUBE`, `XOR` and their like are ordinary names in astronomical tables. So the tokenizer knows
them as names, and this pass makes keywords of them where the words around leave no other reading: `CUBE (` in GROUP BY,
`LATERAL (` in FROM, `XOR` between two operands. It also writes spellings of other systems as the language's own:
`FETCH FIRST n ROWS ONLY` as LIMIT, `OFFSET n ROWS` as OFFSET, `&&` as AND, `0x1F` as a number. All positions stay those of the
text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sqlglot.tokenizer_core import Token, TokenType

_CLAUSES = {
    TokenType.SELECT: "SELECT", TokenType.FROM: "FROM", TokenType.JOIN: "FROM", TokenType.WHERE: "WHERE",
    TokenType.GROUP_BY: "GROUP BY", TokenType.HAVING: "HAVING", TokenType.ORDER_BY: "ORDER BY", TokenType.QUALIFY: "QUALIFY",
    TokenType.ON: "ON", TokenType.USING: "ON",
}  # fmt: skip
_OPERAND_ENDS = (
    TokenType.VAR, TokenType.IDENTIFIER, TokenType.NUMBER, TokenType.STRING, TokenType.R_PAREN, TokenType.R_BRACKET,
    TokenType.END, TokenType.NULL, TokenType.TRUE, TokenType.FALSE,
)  # fmt: skip
_OPERAND_STARTS = (
    TokenType.VAR, TokenType.IDENTIFIER, TokenType.NUMBER, TokenType.STRING, TokenType.L_PAREN, TokenType.L_BRACKET,
    TokenType.CASE, TokenType.NULL, TokenType.TRUE, TokenType.FALSE, TokenType.NOT, TokenType.DASH, TokenType.PLUS,
    TokenType.EXISTS, TokenType.LEFT, TokenType.RIGHT, TokenType.TILDE,
)  # fmt: skip
_INFIX = {"XOR": TokenType.XOR, "RLIKE": TokenType.RLIKE, "REGEXP": TokenType.RLIKE}
_JOIN_WORDS = (TokenType.JOIN, TokenType.LEFT, TokenType.INNER, TokenType.RIGHT, TokenType.FULL)


def retag(found: list[Token]) -> list[Token]:
    """Return the tokens with contextual keywords made keywords; the input is left as it is."""
    return _Pass(found).run()


@dataclass(slots=True)
class _Pass:
    found: list[Token]
    out: list[Token] = field(default_factory=list)
    clauses: list[str] = field(default_factory=lambda: [""])
    index: int = 0

    def run(self) -> list[Token]:
        while self.index < len(self.found):
            token = self.found[self.index]
            kind = token.token_type
            self._enter(kind)
            if kind is TokenType.DAMP:
                self._put(TokenType.AND, token)
            elif kind in (TokenType.VAR, TokenType.ROWS, TokenType.NUMBER):
                self._word(token)
            else:
                self.out.append(token)
                self.index += 1
        return self.out

    def _enter(self, kind: TokenType) -> None:
        if kind in (TokenType.L_PAREN, TokenType.L_BRACKET):
            self.clauses.append("")
        elif kind in (TokenType.R_PAREN, TokenType.R_BRACKET):
            if len(self.clauses) > 1:
                self.clauses.pop()
        elif kind in _CLAUSES:
            self.clauses[-1] = _CLAUSES[kind]
        elif kind is TokenType.COMMA and self.clauses[-1] == "ON":
            self.clauses[-1] = "FROM"

    def _at(self, offset: int) -> Token | None:
        place = self.index + offset
        return self.found[place] if 0 <= place < len(self.found) else None

    def _kind(self, offset: int) -> TokenType | None:
        token = self._at(offset)
        return token.token_type if token else None

    def _text(self, offset: int) -> str:
        token = self._at(offset)
        return token.text.upper() if token and token.token_type is not TokenType.IDENTIFIER else ""

    def _put(self, kind: TokenType, first: Token, last: Token | None = None, *, text: str = "", used: int = 1) -> None:
        last = last or first
        self.out.append(
            Token(kind, text or first.text, line=last.line, col=last.col, start=first.start, end=last.end, comments=last.comments)
        )
        self.index += used

    def _word(self, token: Token) -> None:
        word, clause = token.text.upper(), self.clauses[-1]
        is_called = self._kind(1) is TokenType.L_PAREN
        before = self.out[-1].token_type if self.out else None
        starts_item = before in (TokenType.FROM, TokenType.JOIN, TokenType.LATERAL) or (
            before is TokenType.COMMA and clause == "FROM"
        )
        after = self._at(1)
        keyword = self._keyword(word, clause, before, is_called=is_called, starts_item=starts_item)
        if keyword is not None:
            self._put(keyword, token)
        elif word == "GROUPING" and self._text(1) == "SETS" and self._kind(2) is TokenType.L_PAREN:
            self._put(TokenType.GROUPING_SETS, token, after, text="GROUPING SETS", used=2)
        elif token.text == "0" and after and after.start == token.end + 1 and re.fullmatch(r"[xX][0-9a-fA-F]+", after.text):
            self._put(TokenType.NUMBER, token, after, text=str(int(after.text[1:], 16)), used=2)
        elif word in ("ROW", "ROWS") and before is TokenType.NUMBER and self.out[-2].token_type is TokenType.OFFSET:
            self.index += 1
        elif not (word == "FETCH" and self._text(1) in ("FIRST", "NEXT") and before in _OPERAND_ENDS and self._fetch(token)):
            self.out.append(token)
            self.index += 1

    def _keyword(self, word: str, clause: str, before: TokenType | None, *, is_called: bool, starts_item: bool) -> TokenType | None:
        """Return what the word is as a keyword where it stands, None if it is a name."""
        match word:
            case "UNNEST" if is_called and starts_item:
                return TokenType.UNNEST
            case "LATERAL" if starts_item and (is_called or self._text(1) == "UNNEST"):
                return TokenType.LATERAL
            case "VALUES" if is_called and before is TokenType.L_PAREN and self._opens_item():
                return TokenType.VALUES
            case "WINDOW" if before in _OPERAND_ENDS and self._kind(2) is TokenType.ALIAS and self._kind(3) is TokenType.L_PAREN:
                return TokenType.WINDOW
            case "SEMI" | "ANTI" if self._kind(1) is TokenType.JOIN:
                return TokenType.SEMI if word == "SEMI" else TokenType.ANTI
            case "ASOF" if self._kind(1) in _JOIN_WORDS and before in _OPERAND_ENDS:
                return TokenType.ASOF
            case "ROLLUP" | "CUBE":
                is_key = is_called and (clause == "GROUP BY" or "GROUP BY" in self.clauses[-2:-1])
                if is_key or before is TokenType.WITH:
                    return TokenType.ROLLUP if word == "ROLLUP" else TokenType.CUBE
            case _ if word in _INFIX and (before in _OPERAND_ENDS or before is TokenType.NOT):
                return _INFIX[word] if self._kind(1) in _OPERAND_STARTS else None
        return None

    def _opens_item(self) -> bool:
        """Say whether the bracket that was just opened is an item of FROM."""
        before = self.out[-2].token_type if len(self.out) > 1 else None
        return before in (TokenType.FROM, TokenType.JOIN) or (before is TokenType.COMMA and "FROM" in self.clauses[-2:-1])

    def _fetch(self, token: Token) -> bool:
        """`FETCH FIRST [n] ROW|ROWS ONLY` as `LIMIT n`."""
        number = self._at(2)
        has_number = number is not None and number.token_type is TokenType.NUMBER
        rest = 3 if has_number else 2
        last = self._at(rest + 1)
        if self._text(rest) not in ("ROW", "ROWS") or self._text(rest + 1) != "ONLY" or last is None:
            return False
        self.out.append(Token(TokenType.LIMIT, "FETCH", token.line, token.col, token.start, token.end, token.comments))
        count = number.text if has_number and number else "1"
        self.out.append(Token(TokenType.NUMBER, count, last.line, last.col, token.start, last.end))
        self.index += rest + 2
        return True
