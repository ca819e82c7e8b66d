"""Responses taken apart into words, each with the number of tokens that it takes."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from mindhooks import Context, Node, Scorer, ScorerCapabilities
from mindscore._util.errors import format_error

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_logger = logging.getLogger("mindscore")

MOST_ASKED = 5_000
"""Different words, or tokens, that a server is asked for, for one report."""

AT_ONCE = 8
LONGEST_JOIN = 8
"""Tokens, or words, that are tried together where they do not fit alone."""

# Written without blanks between words: each of these may be a word.
_WIDE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uffdc"
_JOINED = re.compile(rf"[^\W{_WIDE}]{{2}}")
_WORD = re.compile(rf"\s*(?:[{_WIDE}]|[^\W{_WIDE}]+|[^\w\s]+)|\s+")


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of a response's text; one without text is what is not shown: an end of turn."""

    text: str
    tokens: int


Spoken = dict[str, tuple[Word, ...]]
"""The words of responses, by node id; they make up the response's body."""


async def spoken_words(context: Context, node_ids: Collection[str], scorer: Scorer) -> Spoken:
    """The words of the responses ``node_ids``, of those whose tokens can be told apart.

    By the scorer's ``detokenize``, if it has one that works; else by tokenising words, until they
    make up the response's tokens.
    """
    nodes = [node for node in context.conversation if node.id in node_ids]
    ways: list[_Decoder | _Tokenizer] = [_Tokenizer(scorer.tokenize)]
    if (detokenize := ScorerCapabilities.of(scorer).detokenize) is not None:
        ways.insert(0, _Decoder(detokenize))
    found: Spoken = {}
    for way in ways:
        left = [node for node in nodes if node.id not in found]
        try:
            await way.prepare(left)
            for node in left:
                words = await way.words(_body(node), node.text)
                if words is not None:
                    found[node.id] = tuple(words)
        # A scorer may be anybody's, and nothing is lost but the colours of the words.
        except Exception as error:
            _logger.info(
                "the words of %d responses are not known: %s", len(left), format_error(error)
            )
    return found


def _body(node: Node) -> tuple[int, ...]:
    return node.token_ids[slice(*node.body)]


async def _ask(
    ask: Callable[[Asked], Awaitable[Answer]], wanted: Iterable[Asked]
) -> dict[Asked, Answer]:
    """What ``ask`` answers to each, asked for several at once; no more than ``MOST_ASKED``."""
    left, found = iter(islice(dict.fromkeys(wanted), MOST_ASKED)), dict[Asked, Answer]()
    while batch := list(islice(left, AT_ONCE)):
        answers = await asyncio.gather(*map(ask, batch), return_exceptions=True)
        for one, answer in zip(batch, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            found[one] = answer
    return found


class _Decoder:
    """By the texts of single tokens, which make up the text of all."""

    def __init__(self, detokenize: Callable[[Sequence[int]], Awaitable[str]]) -> None:
        self._detokenize = detokenize
        self._texts: dict[tuple[int, ...], str] = {}

    async def prepare(self, nodes: Sequence[Node]) -> None:
        """Ask for what each token of ``nodes`` says alone, and what each says as a whole."""
        bodies = [_body(node) for node in nodes]
        tokens = [(token,) for body in bodies for token in body]
        self._texts = await _ask(self._detokenize, [*bodies, *tokens])

    async def words(self, ids: Sequence[int], text: str) -> list[Word] | None:
        """The words of ``ids``; ``None`` where their texts do not make up the text of all."""
        asked = {tuple(ids), *((token,) for token in ids)}
        if not asked <= self._texts.keys():
            return None
        whole, pieces = self._texts[tuple(ids)], list[Word]()
        at, waiting = 0, list[int]()
        for token in ids:
            waiting.append(token)
            piece = await self._text(tuple(waiting))
            # Some tokenizers drop the blank that a word begins with, where it comes first.
            fits = next((it for it in (piece, f" {piece}") if whole.startswith(it, at)), None)
            if fits is not None:
                pieces.append(Word(fits, len(waiting)))
                at += len(fits)
                waiting.clear()
            elif len(waiting) == LONGEST_JOIN:
                return None
        return None if waiting or at < len(whole) else _joined(pieces, text)

    async def _text(self, ids: tuple[int, ...]) -> str:
        if ids not in self._texts:
            self._texts[ids] = await self._detokenize(ids)
        return self._texts[ids]


def _joined(pieces: Sequence[Word], text: str) -> list[Word]:
    """Pieces as whole words; what comes after ``text`` is not shown if it is but an end of turn."""
    words: list[Word] = []
    length, rest = 0, 0
    for at, piece in enumerate(pieces):
        if length >= len(text) > 0 and len(pieces) - at <= 2:
            rest += piece.tokens
            continue
        length += len(piece.text)
        last = words[-1] if words else None
        if last and _JOINED.fullmatch(last.text[-1:] + piece.text[:1]):
            words[-1] = Word(last.text + piece.text, last.tokens + piece.tokens)
        else:
            words.append(piece)
    return [*words, Word("", rest)] if rest else words


class _Tokenizer:
    """By the tokens of single words, which make up those of all."""

    def __init__(self, tokenize: Callable[[str], Awaitable[list[int]]]) -> None:
        self._tokenize = tokenize
        self._ids: dict[str, list[int]] = {}

    async def prepare(self, nodes: Sequence[Node]) -> None:
        """Ask for the tokens of the words of ``nodes``."""
        words = [word for node in nodes for word in _WORD.findall(node.text)]
        self._ids = await _ask(self._tokenize, words)

    async def words(self, ids: Sequence[int], text: str) -> list[Word] | None:
        """The words of ``text``; ``None`` where their tokens do not make up ``ids``."""
        words, at, waiting = list[Word](), 0, list[str]()
        for word in _WORD.findall(text):
            waiting.append(word)
            joined = "".join(waiting)
            known = self._ids.get(joined)
            if known is None and len(waiting) > 1:
                known = self._ids[joined] = await self._tokenize(joined)
            if known is not None and tuple(ids[at : at + len(known)]) == tuple(known):
                words.append(Word(joined, len(known)))
                at += len(known)
                waiting.clear()
            elif known is None or len(waiting) == LONGEST_JOIN:
                return None
        if waiting:
            return None
        return [*words, Word("", len(ids) - at)] if at < len(ids) else words


def as_cuts(words: Sequence[Word]) -> list[int]:
    """Length and number of tokens of each word, in turn; lengths as JavaScript counts them."""
    return list(chain.from_iterable((_length(word.text), word.tokens) for word in words))


def _length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
