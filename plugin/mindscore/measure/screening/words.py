"""Words that memories and responses have in common: a prior that takes no tokens."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from mindhooks import Context, Node, Role
from mindscore.measure.memories import is_response

K1, B = 1.2, 0.75
"""The usual constants: how fast repeated words saturate, and how much the length counts."""

MOST_HOLDERS = 50
"""Documents, or a tenth of them, that may have a word: one that more have tells nothing apart."""

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
    turns = list(_turns(context, window))
    texts = memory_texts(context, ids)
    documents = {key: _words(text) for key, text in texts.items()}
    asked = {turn[-1].id: [it for node in turn for it in _words(_own_text(node))] for turn in turns}
    found = bm25(documents, asked)
    if any(found.values()):
        return found
    said = {turn[-1].id: [it for node in turn for it in _own_ids(node)] for turn in turns}
    return bm25(ids, said)


def memory_texts(context: Context, keys: Iterable[str]) -> dict[str, str]:
    """Return the text of each memory of ``keys``, each place where it stands on a line."""
    found: dict[str, list[str]] = {key: [] for key in keys}
    for node in (*context.system, *context.identity, *context.conversation):
        said = [(node.memory_key, node.text), *((it.memory_key, it.text) for it in node.parts)]
        for key, text in said:
            if key in found:
                found[key].append(text)
    return {key: "\n".join(texts) for key, texts in found.items()}


def _turns(context: Context, window: range) -> Iterator[list[Node]]:
    """Yield each response with the messages before it since the last one, memories left out."""
    turn: list[Node] = []
    for index in window:
        node = context.conversation[index]
        if node.memory_key is None:
            turn.append(node)
        if node.role == Role.ASSISTANT:
            if is_response(node):
                yield turn if turn and turn[-1] is node else [*turn, node]
            turn = []


def _own_text(node: Node) -> str:
    """Return a message's text without the memories printed in it."""
    if not node.parts:
        return node.text
    return " ".join(part.text for part in node.parts if part.memory_key is None)


def _own_ids(node: Node) -> Sequence[int]:
    keys = frozenset(part.memory_key for part in node.parts if part.memory_key is not None)
    return node.render(keys) if keys and node.render is not None else node.token_ids


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
