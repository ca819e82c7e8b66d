"""Divide responses into words, each with its number of tokens."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

from mindhooks import Context, Node, Scorer, ScorerCapabilities
from mindscore._util.errors import format_error

_logger = logging.getLogger("mindscore")


LONGEST_JOIN = 8
"""Tokens that are tried together where they do not fit alone."""

# Written without blanks between words: each of these may be a word.
_WIDE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uffdc"
_JOINED = re.compile(rf"[^\W{_WIDE}]{{2}}")


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of a response's text; empty for tokens that are not shown, as an end of turn."""

    text: str
    tokens: int


Spoken = dict[str, tuple[Word, ...]]
"""The words of responses, by node id; their tokens add up to the response's body."""


async def spoken_words(context: Context, node_ids: Collection[str], scorer: Scorer) -> Spoken:
    """Return the words of the responses ``node_ids``.

    They come from the scorer's ``token_texts`` or, where it has none, from its ``detokenize``.
    Responses whose tokens it cannot tell apart are left out; with neither method, all are.
    """
    found: Spoken = {}
    responses = [node for node in context.conversation if node.body[0] < node.body[1]]
    ends = Counter(_body(node)[-1] for node in responses).most_common(1)
    try:
        for node in responses:
            if node.id in node_ids:
                pieces = await _pieces(node, ends[0][0], scorer)
                if pieces is not None:
                    found[node.id] = tuple(_words(pieces, node.text))
    # A scorer may be anybody's, and only the colours of the words are lost.
    except Exception as error:
        _logger.info("the words of the responses are not known: %s", format_error(error))
    return found


def _body(node: Node) -> tuple[int, ...]:
    return node.token_ids[slice(*node.body)]


async def _pieces(node: Node, end: int, scorer: Scorer) -> list[Word] | None:
    """Return the text of each token of a response, or ``None`` where they do not add up.

    Three requests to ``detokenize`` suffice in most cases: special tokens do not change the text of
    their neighbours, so a text with the ``end`` of turn after every other token is divided there.
    """
    ids = _body(node)
    capabilities = ScorerCapabilities.of(scorer)
    token_texts, detokenize = capabilities.token_texts, capabilities.detokenize
    if token_texts is not None:
        texts = await token_texts(ids)
        whole = node.text + (texts[-1] if ids[-1] == end else "")
    elif detokenize is not None:
        mark, whole = await detokenize([end]), await detokenize(ids)
        others = [token for token in ids if token != end]
        divided = (await detokenize([it for token in others for it in (token, end)])).split(mark)
        if len(divided) != len(others) + 1:
            return None
        left = iter(divided)
        texts = [mark if token == end else next(left) for token in ids]
    else:
        return None
    pieces, at, waiting = list[Word](), 0, list[int]()
    for token, text in zip(ids, texts, strict=True):
        waiting.append(token)
        # Tokens that are a part of a character have a text together only.
        joined = text if len(waiting) == 1 or detokenize is None else await detokenize(waiting)
        stop = _match(whole, at, joined)
        if stop is not None:
            pieces.append(Word(whole[at:stop], len(waiting)))
            at = stop
            waiting.clear()
        elif len(waiting) == LONGEST_JOIN:
            return None
    return None if waiting or at < len(whole) else pieces


def _match(whole: str, at: int, text: str) -> int | None:
    """Return where ``text`` ends if it begins at ``at``, up to blanks, which tokenizers drop."""
    if whole.startswith(text, at):
        return at + len(text)
    start = at + len(whole[at:]) - len(whole[at:].lstrip())
    return start + len(text.strip()) if whole.startswith(text.strip(), start) else None


def _words(pieces: Sequence[Word], text: str) -> list[Word]:
    """Join pieces to whole words; an end of turn after ``text`` has none."""
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


def as_cuts(words: Sequence[Word]) -> list[int]:
    """Return length and number of tokens of each word, in turn; lengths as JavaScript counts."""
    return list(chain.from_iterable((_length(word.text), word.tokens) for word in words))


def _length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
