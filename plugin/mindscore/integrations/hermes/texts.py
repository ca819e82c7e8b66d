"""What the plugin in Hermes says, in plain lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from mindscore._util.text import one_line, printable
from mindscore.integrations.hermes.findings import FoundCandidate, MeasuredMemory
from mindscore.integrations.hermes.queue import Waiting
from mindscore.integrations.hermes.scoring import HermesSettings, Pass

SHOWN = 60
KINDS = {"memory": "MEMORY.md", "user": "USER.md", "recall": "recalled", "other": "other"}
DROPPABLE = ("memory", "user")
"""Memories that the user can drop; a provider recalls what it likes."""


def status_text(
    registered: Iterable[str], waiting: Waiting, settings: HermesSettings, measured: int
) -> str:
    """What is registered, what waits, and who scores."""
    server, about = settings.settings.server, waiting.about
    lines = [f"mindscore is registered with Hermes: {', '.join(registered)}."]
    line = f"Waiting: {_count(waiting.turns, 'turn')} of {_count(waiting.sessions, 'session')}"
    if waiting.oldest is not None:
        line += f", the oldest from {datetime.fromtimestamp(waiting.oldest):%Y-%m-%d %H:%M}"
    lines.append(f"{line}.")
    if waiting.dropped:
        lines.append(
            f"Dropped unscored, because too many waited: {waiting.dropped:,} turns so far."
        )
    where = f" at {server.base_url}" if server.base_url else ""
    idle_s = settings.options.idle_s
    when = f"when idle for {idle_s:g} s" if idle_s else "never by itself"
    lines.append(f"Scorer: {server.scorer} ({server.model}){where}; {when}.")
    configuration, namespace = settings.file or "the defaults", settings.settings.store.namespace
    lines.append(f"Configuration: {configuration}; namespace {namespace}.")
    if about.get("model"):
        lines.append(
            f"Hermes itself talks to {about['model']} at {about.get('base_url') or '?'} "
            f"({about.get('provider') or '?'}): only the configuration makes that the scorer."
        )
    lines.append(f"Measured so far: {_count(measured, 'memory', 'memories')}.")
    return _plain(lines)


def pass_text(done: Pass, waiting: Waiting) -> str:
    """What one pass found."""
    lines = []
    if done.turns:
        by = f" with {done.model}" if done.model else ""
        lines.append(
            f"Scored {_count(done.turns, 'turn')} of {_count(done.sessions, 'session')}{by}."
        )
    elif done.error is None:
        lines.append("Nothing waits to be scored.")
    if done.turns and not done.largest:
        lines.append("No memory was found in them.")
    for key, most in sorted(done.largest.items(), key=lambda it: (-it[1], it[0])):
        lines.append(f"{most:8.2f} nats  {key}  {one_line(done.memories.get(key, ''), SHOWN)}")
    if done.candidates:
        lines.append(
            f"{_count(len(done.candidates), 'candidate')} for training: hermes mind candidates."
        )
    lines += [f"Remark: {remark}." for remark in done.remarks]
    if done.error is not None:
        lines.append(f"Not finished ({_count(waiting.turns, 'turn')} still waiting): {done.error}")
    return _plain(lines)


def memories_text(
    memories: Iterable[MeasuredMemory], enough: int, min_divergence: float, model: str
) -> str:
    """What each memory does, and which to drop; proposals only."""
    current = [it for it in memories if it.is_current]
    if not current:
        return "No memory has been measured yet: hermes mind score."
    unused = [
        it
        for it in current
        if it.kind in DROPPABLE and it.responses >= enough and it.largest < min_divergence
    ]
    lines = [f"What the memories do, by {model} (largest divergence of any response):"]
    lines += [f"  {it.largest:8.2f} nats  {_memory(it)}" for it in current]
    if unused:
        lines.append(
            f"Never used, below {min_divergence:g} nats on {_count(enough, 'response')} or more; "
            "consider dropping:"
        )
        lines += [f"  {_memory(it)}" for it in unused]
    else:
        lines.append(
            f"None to drop: an entry is never used when it stays below {min_divergence:g} nats on "
            f"{_count(enough, 'response')} or more."
        )
    lines.append("Nothing was changed: that is for you, or for Hermes when you ask it to.")
    return _plain(lines)


def candidates_text(candidates: Iterable[FoundCandidate]) -> str:
    """The responses that would be likelier to come out otherwise without the memories."""
    lines = [f"{it.divergence:8.2f} nats  {one_line(it.text, SHOWN)}" for it in candidates]
    return _plain(lines) or "No candidate for training was found yet: hermes mind score."


def _memory(memory: MeasuredMemory) -> str:
    on = _count(memory.responses, "response")
    return f"{KINDS[memory.kind]:9}  {on:>13}  {one_line(memory.text, SHOWN)}"


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _plain(lines: Iterable[str]) -> str:
    return "\n".join(_printable(lines))


def _printable(lines: Iterable[str]) -> Iterator[str]:
    return (printable(line) for line in lines)
