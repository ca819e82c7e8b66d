"""Hashes of responses, and of all that a memory's scores follow from."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import msgspec

from mindhooks import Context, Node


def response_hash(continuation_ids: Iterable[int]) -> str:
    """Return a hash of a response's token ids: with its timestamp it marks it as trained."""
    return _digest(continuation_ids).hex()


def derived_timestamp_ns(context_ids: Iterable[int], continuation_ids: Iterable[int]) -> int:
    """Return a stand-in for a missing timestamp, 0 to 2**63 - 1, from prompt and body.

    It is the same for the same response behind the same prompt, and differs otherwise.
    """
    digest = _digest(context_ids) + _digest(continuation_ids)
    return int.from_bytes(hashlib.sha256(digest).digest()[:8]) >> 1


class RowFingerprints:
    """Hashes of all that a memory's row of the matrix follows from.

    Those are the messages' ids, bodies, images, keys and order, a message that prints the memory
    as it is without it, and ``weights``: the adapter, or whatever tells models of one name apart.
    """

    def __init__(self, context: Context, weights: str = "") -> None:
        self._sections = (context.system, context.identity, context.conversation)
        digest = hashlib.sha256(weights.encode("utf-8", "surrogatepass"))
        for nodes in self._sections:
            digest.update(len(nodes).to_bytes(8))
            for node in nodes:
                images = [(it.mime, hashlib.sha256(it.data).digest()) for it in node.images]
                facts = (node.id, node.role, node.memory_key, node.body, images)
                digest.update(msgspec.msgpack.encode(facts))
                digest.update(_digest(node.token_ids))
        self._conversation = digest.digest()

    def of(self, key: str) -> str:
        """Return the hash for the memory ``key``."""
        digest = hashlib.sha256(self._conversation + key.encode("utf-8", "surrogatepass"))
        for nodes in self._sections:
            for node in nodes:
                if node.render is not None and _prints(node, key):
                    digest.update(_digest(node.render(frozenset({key}))))
        return digest.hexdigest()


def _prints(node: Node, key: str) -> bool:
    return any(part.memory_key == key for part in node.parts)


def _digest(ids: Iterable[int]) -> bytes:
    return hashlib.sha256(array("q", ids).tobytes()).digest()
