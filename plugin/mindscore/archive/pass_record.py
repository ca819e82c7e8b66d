"""Records of a pass: when a conversation has not changed, and how one has grown."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import msgspec

from mindhooks import Context, FinetuneStats, MemoryStats, MindCommand, Role
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.message import Message
from mindscore.measure.memories import assistant_indexes, find_memories, response_window
from mindscore.measure.prompts import RowFingerprints
from mindscore.store import Pass

UNFINISHED = "not finished"
"""``Pass.error`` of a conversation that was begun and has not ended."""

BUDGET_SPENT = "left out in part: --max-tokens"
"""``Pass.error`` of a conversation of which not everything fitted."""

LINK_BYTES = 8
"""Length of a link of ``response_chain``."""


def transcript_digest(transcript: Transcript) -> bytes:
    """Return a hash of a conversation's messages, memories and tools: of all that is rendered."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(msgspec.msgpack.encode((transcript.id, transcript.tools)))
    for section in (transcript.system, transcript.identity, transcript.conversation):
        digest.update(len(section).to_bytes(4))
        for message in section:
            digest.update(msgspec.msgpack.encode(_facts(message)))
    return digest.digest()


def _facts(message: Message) -> tuple[Any, ...]:
    keys = dict.fromkeys(message.memory_keys())
    return (
        message.id,
        message.role,
        _bytes(message.text),
        [(it.name, _bytes(it.arguments)) for it in message.tool_calls],
        message.memory_key,
        message.timestamp_ns,
        [(it.mime, hashlib.blake2b(it.data).digest()) for it in message.images],
        message.placeholders,
        [(_bytes(it.text), it.memory_key) for it in message.parts],
        # What is printed without each: by the host's own rules.
        [_bytes(message.text_without(frozenset((it,)))) for it in keys] if message.blocks else [],
        message.token_ids,
        message.body,
        _bytes(message.reasoning),
        message.tool_call_id,
        message.name,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def response_chain(transcript: Transcript) -> bytes:
    """Return a hash, of ``LINK_BYTES``, of the responses up to each.

    Of two states of one conversation, the chain of the earlier one begins that of the later one.
    """
    digest, links = hashlib.blake2b(digest_size=LINK_BYTES), []
    for message in transcript.conversation:
        if message.role == Role.ASSISTANT:
            digest.update(hashlib.blake2b(_bytes(message.text)).digest())
            links.append(digest.copy().digest())
    return b"".join(links)


def settings_digest(tables: Mapping[str, Any], command: str) -> bytes:
    """Return a hash of the settings that change what ``command`` finds in a conversation.

    The server's address is not among them: ``weights_of`` tells models apart.
    """
    settings = parse_settings(tables)
    server, memory, finetune = settings.server, settings.memory, settings.finetune
    options = settings.plugins.settings.get("memory-scoring", {})
    facts: dict[str, Any] = {
        "scorer": server.scorer,
        "model": server.model,
        "adapter": server.adapter,
        "tokenizer": server.tokenizer,
        "chat_template": server.chat_template,
        "dtype": server.dtype,
        "images": server.require_images,
        "options": server.options,
        "disabled": sorted(settings.plugins.disabled),
        "only": sorted(options.get("only", ())),
        "hold": bool(options.get("hold")),
    }
    if command == MindCommand.SCORE:
        facts["window"] = (memory.response_window, memory.token_cutoff, memory.noise_repeats)
    elif command == MindCommand.SCORE_FINETUNE:
        facts["finetune"] = finetune
    if command == MindCommand.SCORE_FULL and (options.get("screen") or memory.screen != "off"):
        many = 0 if options.get("screen") or memory.screen == "on" else memory.screen_from
        facts["screen"] = (many, memory.screen_confirm_nats, memory.screen_sample)
    return hashlib.blake2b(msgspec.msgpack.encode(facts), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class PassFingerprint:
    """The facts that a conversation's result depends on; ``Pass.fingerprint`` as text.

    Attributes:
        content: a hash of the conversation.
        conditions: a hash of the settings and the model; empty: the model's weights are not known.
        count: how many messages the conversation had when it was last scored wholly.
        prefix: a hash of these, as they were sent to the model; empty: it never was.
        begun_at: when the pass began that has not ended, in seconds since the epoch.
    """

    content: str
    conditions: str
    count: int = 0
    prefix: str = ""
    begun_at: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the fingerprint that a record has, or ``None`` where it is another version's."""
        content, *rest = text.split("/")
        try:
            conditions, count, prefix, begun_at = rest
            return cls(content, conditions, int(count), prefix, float(begun_at))
        except ValueError:
            return None

    def __str__(self) -> str:
        fields = (self.content, self.conditions, self.count, self.prefix, repr(self.begun_at))
        return "/".join(map(str, fields))

    def finished(self, context: Context) -> Self:
        """Return this with the length and the hash of ``context``, which was scored wholly."""
        count, prefix = len(context.conversation), prefix_hash(context)
        return replace(self, count=count, prefix=prefix, begun_at=0.0)

    def is_prefix_of(self, context: Context) -> bool:
        """Return whether ``context`` begins with exactly what was sent to the model then."""
        count = self.count
        if not 0 < count <= len(context.conversation) or context.prompts is not None:
            return False
        return prefix_hash(first_messages(context, count)) == self.prefix


def short_hash(text: str) -> str:
    """Return a hash of ``text``, of 16 hexadecimal digits."""
    return hashlib.blake2b(_bytes(text), digest_size=8).hexdigest()


def first_messages(context: Context, count: int) -> Context:
    """Return the context with the first ``count`` messages of the conversation alone."""
    return Context(context.system, context.identity, context.conversation[:count], context.id)


def prefix_hash(context: Context) -> str:
    """Return a hash of a conversation as it is sent, with its memories and without each."""
    fingerprints = RowFingerprints(context)
    rows = "".join(fingerprints.of(it.key) for it in find_memories(context))
    return short_hash(rows or fingerprints.of(""))


def conditions_of(settings: bytes, weights: str | None) -> str:
    """Return a hash of ``settings_digest`` and ``weights_of``; empty: these are not known."""
    return "" if weights is None else short_hash(f"{settings.hex()} {weights}")


def last_fingerprint(known: Pass | None, conditions: Collection[str]) -> PassFingerprint | None:
    """Return the fingerprint of a record, if it was made under one of these conditions."""
    found = None if known is None else PassFingerprint.parse(known.fingerprint)
    return found if found is not None and found.conditions in conditions else None


def closed_memories(context: Context, count: int, window: int) -> set[str]:
    """Return the memories that later messages cannot judge any more.

    Their windows, of ``window`` responses, lie within the first ``count`` messages.
    """
    before = first_messages(context, count)
    closed = set()
    for memory in find_memories(before):
        its = response_window(context, memory.position, window)
        if len(assistant_indexes(before, its)) >= window:
            closed.add(memory.key)
    return closed


def record_of(
    model: str,
    conversation: str,
    command: str,
    fingerprint: PassFingerprint,
    error: str | None,
    stats: MemoryStats | FinetuneStats | None,
) -> Pass:
    """Return the record, as of now, of what a pass has done with one conversation."""
    return Pass(
        model=model,
        conversation=conversation,
        command=command,
        fingerprint=str(fingerprint),
        done_at=time.time(),
        seconds=stats.seconds if stats else 0.0,
        calls=stats.calls if stats else 0,
        prompt_tokens=stats.prompt_tokens if stats else 0,
        computed_tokens=stats.computed_tokens if stats else None,
        error=error,
    )
