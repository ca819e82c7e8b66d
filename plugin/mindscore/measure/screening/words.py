"""Words that memories and responses have in common: a prior that takes no tokens."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from mindhooks import Context, Node, Role
from mindscore.measure.memories import Said, Sections, is_response, told_memories

K1, B = 1.2, 0.75
"""The usual constants: how fast repeated words saturate, and how much the length counts."""

MOST_HOLDERS = 50
"""Documents, or a tenth of them, that may have a word: one that more have tells nothing apart."""


T = TypeVar("T", bound=Said)

_WORD = re.compile(r"\w+")


def bm25(
    documents: Mapping[str, Sequence[Hashable]], queries: Mapping[str, Sequence[Hashable]]
) -> dict[str, dict[str, float]]:
    """Return the score of each document for each query, above 0, by document and query.

    Okapi BM25 (Robertson and Zaragoza 2009, Foundations and Trends in Information Retrieval 3(4)),
    with the inverse document frequency ``log(1 + (N - n + 0.5) / (n + 0.5))``, which is never below
    0. A word that a query has twice counts once, one that very many documents have does not count.
    """
    average = sum(map(len, documents.values())) / max(1, len(documents)) or 1.0
    holders: dict[Hashable, list[tuple[str, float]]] = defaultdict(list)
    for name, words in documents.items():
        scale = K1 * (1 - B + B * len(words) / average)
        for word, count in Counter(words).items():
            holders[word].append((name, count * (K1 + 1) / (count + scale)))
    found: dict[str, dict[str, float]] = {name: {} for name in documents}
    for query, words in queries.items():
        for word in dict.fromkeys(words):
            its = holders.get(word, ())
            if len(its) > max(MOST_HOLDERS, len(documents) // 10):
                continue
            weight = math.log(1 + (len(documents) - len(its) + 0.5) / (len(its) + 0.5))
            for name, saturated in its:
                scores = found[name]
                scores[query] = scores.get(query, 0.0) + weight * saturated
    return found


def common_words(
    context: Context, window: range, ids: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Return the BM25 of each memory for each response and what was said to it since the last one.

    It is that of their words or, where the texts have none in common, of their token ids; ``ids``
    are those of the memories, by key.
    """
    nodes = [context.conversation[index] for index in window]
    its = list(turns(nodes, {node.id for node in nodes if is_response(node)}))
    found = _common(memory_texts(context, ids), its)
    if any(found.values()):
        return found
    said = {turn[-1].id: [it for node in turn for it in own_ids(node)] for turn in its}
    return bm25(ids, said)


def words_in_common(
    talk: Sections, responses: Collection[str], keys: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return ``common_words`` of a conversation that need not be tokenised, by its texts alone.

    ``responses`` are ids of its messages, ``keys`` those of its memories.
    """
    return _common(memory_texts(talk, keys), turns(talk.conversation, responses))


def _common(
    texts: Mapping[str, str], spoken: Iterable[Sequence[Said]]
) -> dict[str, dict[str, float]]:
    documents = {key: _words(text) for key, text in texts.items()}
    asked = {
        turn[-1].id: [it for each in turn for it in _words(_own_text(each))] for turn in spoken
    }
    return bm25(documents, asked)


def memory_texts(context: Sections, keys: Iterable[str]) -> dict[str, str]:
    """Return the text of each memory of ``keys``, each place where it stands on a line."""
    found: dict[str, list[str]] = {key: [] for key in keys}
    for key, text in told_memories(context):
        if key in found:
            found[key].append(text)
    return {key: "\n".join(texts) for key, texts in found.items()}


def turns(messages: Iterable[T], responses: Collection[str]) -> Iterator[list[T]]:
    """Yield each response with the messages before it since the last one, memories left out."""
    turn: list[T] = []
    for each in messages:
        if each.memory_key is None:
            turn.append(each)
        if each.role == Role.ASSISTANT:
            if each.id in responses:
                yield turn if turn and turn[-1] is each else [*turn, each]
            turn = []


def _own_text(message: Said) -> str:
    """Return a message's text without the memories printed in it."""
    if not message.parts:
        return message.text
    return " ".join(part.text for part in message.parts if part.memory_key is None)


def own_ids(node: Node) -> Sequence[int]:
    """Return a message's ids without the memories printed in it."""
    keys = frozenset(part.memory_key for part in node.parts if part.memory_key is not None)
    return node.render(keys) if keys and node.render is not None else node.token_ids


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
