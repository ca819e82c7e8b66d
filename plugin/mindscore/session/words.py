"""Divide responses into words, each with its number of tokens."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain

from mindhooks import Context, Scorer
from mindscore._util.errors import format_error

_logger = logging.getLogger("mindscore")

Detokenize = Callable[[Sequence[int]], Awaitable[str]]

# Written without blanks between words: each of these may be a word.
_WIDE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uffdc"
_JOINED = re.compile(rf"[^\W{_WIDE}]{{2}}")
_PART_OF_A_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of a response's text; empty for tokens that are not shown, as an end of turn."""

    text: str
    tokens: int


Spoken = dict[str, tuple[Word, ...]]
"""The words of responses, by node id; their tokens add up to the response's body."""


async def spoken_words(context: Context, node_ids: Collection[str], scorer: Scorer) -> Spoken:
    """Return the words of the responses ``node_ids``, by the scorer's ``detokenize``.

    Responses whose tokens it cannot tell apart are left out; without ``detokenize``, all are.
    """
    found: Spoken = {}
    bodies = {
        node: node.token_ids[slice(*node.body)] for node in context.conversation if node.body[1]
    }
    ends = Counter(ids[-1] for ids in bodies.values())
    detokenize: Detokenize | None = getattr(scorer, "detokenize", None)
    if detokenize is None or not ends:
        return found
    [(end, _)] = ends.most_common(1)
    try:
        for node, ids in bodies.items():
            if node.id in node_ids:
                pieces = await _pieces(ids, end, detokenize)
                if pieces is not None:
                    found[node.id] = tuple(_words(pieces, node.text))
    # A scorer may be anybody's, and only the colours of the words are lost.
    except Exception as error:
        _logger.info("the words of the responses are not known: %s", format_error(error))
    return found


async def _pieces(ids: Sequence[int], end: int, detokenize: Detokenize) -> list[Word] | None:
    """Return the text of each token of ``ids``, or ``None`` where they do not add up.

    Three requests suffice: special tokens do not change the text of their neighbours, so a text
    with the ``end`` of turn between all tokens is divided there.
    """
    mark, whole = await detokenize([end]), await detokenize(ids)
    others = [token for token in ids if token != end]
    divided = await detokenize([it for token in others for it in (token, end)])
    texts = divided.split(mark) if mark else []
    if len(texts) != len(others) + 1:
        return None
    left = iter(texts)
    return _aligned(whole, [mark if token == end else next(left) for token in ids])


def _aligned(whole: str, texts: Sequence[str]) -> list[Word] | None:
    """Return the stretches of ``whole`` that ``texts`` are, one after the other."""
    pieces, at, waiting = list[Word](), 0, 0
    for text in texts:
        waiting += 1
        # Blanks may come and go beside special tokens, and characters of several tokens have none.
        bare = text if whole.startswith(text, at) else text.strip()
        if not bare or _PART_OF_A_CHARACTER in bare:
            continue
        start = whole.find(bare, at)
        if start < 0 or (waiting == 1 and whole[at:start].strip()):
            return None
        if waiting > 1 and start > at:
            pieces.append(Word(whole[at:start], waiting - 1))
            at, waiting = start, 1
        pieces.append(Word(whole[at : start + len(bare)], waiting))
        at, waiting = start + len(bare), 0
    if waiting:
        pieces.append(Word(whole[at:], waiting))
    elif at < len(whole):
        return None
    return pieces


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
