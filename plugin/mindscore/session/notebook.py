"""Score a conversation by one call, and show a result in a notebook."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mindhooks import Context, MindCommand, Node, ResponseDivergence, ThreadedRegistry
from mindscore._util.errors import TranscriptError, UsageError
from mindscore._util.text import count_of, moment_ago, one_line, printable, shortened
from mindscore.config.file import load_configuration, merge
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.message import Message
from mindscore.measure.comparison import Comparison, Pair
from mindscore.measure.divergence import is_indistinct, within_noise
from mindscore.readers.conversations import Conversations
from mindscore.readers.memories import read_memories
from mindscore.readers.source import Source
from mindscore.session.result import NO_MEMORIES, NOT_SCORED, Result
from mindscore.session.session import Session

Given = str | os.PathLike[str] | Context | Sequence[Any] | Mapping[str, Any]
Memories = Mapping[str, str] | Sequence[str | Mapping[str, Any]] | str | os.PathLike[str] | None

CONVERSATION = Path("conversation")
"""Stands for the file in messages about a conversation that is none."""

KEYS, TEXTS = ("key", "id"), ("text", "content", "memory")
"""Names under which memories that are objects have their key and their text."""


def score(
    conversation: Given,
    memories: Memories = None,
    *,
    full: bool = False,
    finetune: bool = False,
    settings: Mapping[str, Any] | None = None,
    select: str | None = None,
) -> Result:
    """Score the memories of a conversation, and return what was found.

    It waits for the end, and may be called where an event loop runs, as in a notebook. Nothing is
    kept: the store is thrown away, unless ``settings`` name one (``{"store": {"url": …}}``). What
    fails while scoring is the result's ``error``; what was found until then is in it.

    Args:
        conversation: a file in any format that ``mindscore score`` reads; what such a file holds,
            as a list of OpenAI-style messages; or a ``Context``.
        memories: ``{key: text}``, a list of texts or of objects with ``key`` and ``text``, or a
            JSON file of ``{key: text}``, of memories printed in the messages. A text without a key
            gets its number in the list, from 1.
        full: score every memory against every response.
        finetune: find the responses that depend on the memories.
        settings: the parsed TOML; else the user's own configuration is read.
        select: the name or number of the conversation, where there are several.

    Raises:
        ConfigError: the configuration is wrong.
        TranscriptError: the conversation, or the file of memories, is not valid.
        UsageError: arguments do not go together, or ``memories`` is not as above.
        UnhandledCommand: the plugin for it is disabled.
    """
    if full and finetune:
        raise UsageError("full and finetune exclude each other")
    tables = load_configuration(None).tables if settings is None else settings
    parse_settings(tables)
    transcript, context = _read(conversation, _texts(memories), select)
    chosen = MindCommand.SCORE_FINETUNE if finetune else MindCommand.SCORE
    command = MindCommand.SCORE_FULL if full else chosen
    with TemporaryDirectory(prefix="mindscore-") as folder:
        if settings is None or not (tables.get("store") or {}).get("url"):
            tables = merge(tables, {"store": {"url": f"sqlite:///{folder}/store.sqlite3"}})
        session = Session(transcript, context=context)
        # In a thread of its own: a loop may be running in this one.
        with ThreadedRegistry(session, tables) as registry:
            registry.load_entry_points()
            session.listen(registry.registry)
            return registry.submit(session.run(command, tuple(transcript.keys()))).result()


def _read(
    given: Given, memories: dict[str, str] | None, select: str | None
) -> tuple[Transcript, Context | None]:
    if isinstance(given, Context):
        if memories is not None or select is not None:
            raise UsageError("a Context marks its own memories, and is one conversation")
        sections = (given.system, given.identity, given.conversation)
        system, identity, spoken = (tuple(map(_message, nodes)) for nodes in sections)
        return Transcript(CONVERSATION, system, identity, spoken, id=given.id), given
    if isinstance(given, str | os.PathLike):
        conversations = Conversations(Path(given))
    elif isinstance(given, Sequence | Mapping) and not isinstance(given, bytes):
        conversations = Conversations(Source(CONVERSATION, _encoded(given)))
    else:
        got = type(given).__name__
        raise UsageError(f"conversation: expected a file, messages or a Context, got {got}")
    return conversations.transcript(conversations.chosen(select), memories), None


def _message(node: Node) -> Message:
    return Message(
        node.role,
        node.text,
        memory_key=node.memory_key,
        id=node.id,
        timestamp_ns=node.timestamp_ns,
        parts=node.parts,
    )


def _encoded(given: Sequence[Any] | Mapping[str, Any]) -> bytes:
    """Return the bytes of a file that holds ``given``."""
    is_native = not isinstance(given, Mapping) and any(map(_marks_memories, given))
    try:
        if is_native:
            return "\n".join(json.dumps(it, default=_dumped) for it in given).encode()
        return json.dumps(given, default=_dumped).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TranscriptError(f"conversation: is not JSON: {error}") from None


def _marks_memories(given: Any) -> bool:
    """Return whether a message is of the native format, and of no other."""
    if not isinstance(given, Mapping):
        return False
    content = given.get("content")
    parts = content if isinstance(content, list) else []
    is_keyed = any(isinstance(it, Mapping) and "key" in it for it in parts)
    return is_keyed or "section" in given or given.get("role") in ("memory", "identity")


def _dumped(value: Any) -> Any:
    """Return what JSON can hold of a message that is an object, or of any other collection."""
    if callable(dump := getattr(value, "model_dump", None)):
        # As a client's message says it: what is not there is not sent, either.
        return dump(exclude_none=True)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    raise TypeError(f"it holds a {type(value).__name__}")


def _texts(given: Memories) -> dict[str, str] | None:
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        return read_memories(Path(given))
    if isinstance(given, Mapping):
        pairs: Iterable[tuple[Any, Any]] = given.items()
    elif isinstance(given, Sequence) and not isinstance(given, bytes):
        pairs = [_pair(number, it) for number, it in enumerate(given, start=1)]
    else:
        got = type(given).__name__
        raise UsageError(f"memories: expected {{key: text}}, a list or a file, got {got}")
    texts = dict[str, str]()
    for key, text in pairs:
        name = str(key)
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"memories: {name!r}: expected text that is not empty")
        if texts.setdefault(name, text) != text:
            raise UsageError(f"memories: there are two texts of {name!r}")
    return texts


def _pair(number: int, given: Any) -> tuple[Any, Any]:
    """Return key and text of a memory in a list."""
    if not isinstance(given, Mapping):
        return number, given
    key = next((given[it] for it in KEYS if it in given), number)
    return key, next((given[it] for it in TEXTS if it in given), None)


# -- the result in a notebook ---------------------------------------------------------------------

MOST_ROWS, MOST_COLUMNS = 200, 30
"""Memories or candidates, and responses of the matrix, that a notebook shows."""

TEXT = 90
"""Characters of a response in a table."""

SCALE = 8.0
"""Nats at which a cell has its full colour."""

CELL = "padding:.15em .6em;text-align:left;vertical-align:top;"
NUMBER = f"{CELL}text-align:right;font-variant-numeric:tabular-nums;"
DIM = "opacity:.7;"
HELPED, HARMED = "8,120,200", "184,92,0"
"""Blue and orange, as red, green and blue, under text of any theme's own colour."""

MEANING = "nats: 0.7 doubles the probability, 2.3 is ten times likelier"


def as_html(result: Result) -> str:
    """Return the result as a piece of HTML that loads nothing and runs nothing.

    It takes the colours of the text and of the ground from the page around it.
    """
    if result.comparison is not None:
        body = _comparison(result.comparison)
    else:
        is_finetune = result.command == MindCommand.SCORE_FINETUNE
        body = _candidates(result) if is_finetune else _memories(result)
    stats = result.stats
    cost = f", {count_of(stats.calls, 'call')}, {stats.seconds:.1f} s" if stats else ""
    head = f"{result.command} of {result.transcript.file.name} with {result.model}{cost}"
    parts = [_line(head, "font-weight:bold;")]
    if result.error is not None:
        parts.append(_line(f"This is not complete: {result.error}", f"color:rgb({HARMED});"))
    if not result.transcript.keys():
        parts.append(_line(NO_MEMORIES))
    parts += [*body, *(_line(it, DIM) for it in result.all_remarks[:10])]
    return f'<div style="overflow-x:auto;font-size:.95em">{"".join(parts)}</div>'


def _memories(result: Result) -> Iterator[str]:
    spreads = result.spreads
    largest = {
        key: max(it.divergences, key=lambda cell: cell.divergence, default=None)
        for key, it in result.scores.items()
    }
    told = {
        key: on is not None and on.divergence > 0 and not is_indistinct(on, spreads)
        for key, on in largest.items()
    }
    ranked = sorted(result.scores.values(), key=lambda it: (not told[it.key], -it.score))
    is_full = result.command == MindCommand.SCORE_FULL
    columns = result.transcript.responses()[:MOST_COLUMNS] if is_full else []
    head = ["memory", "nats", *(f"#{index}" for index, _ in columns)]
    rows = []
    for it in ranked[:MOST_ROWS]:
        cells = {cell.node_id: cell for cell in it.divergences}
        row = [_cell(shortened(it.key, TEXT), "th"), _cell(f"{it.score:.2f}", style=NUMBER)]
        row += [_effect(cells.get(id_), result.min_divergence, spreads) for _, id_ in columns]
        about = _about(result, largest[it.key], told[it.key]) if not is_full else None
        rows.append([*row, *([] if about is None else [_cell(about)])])
    if rows:
        yield _table([*head, *([] if is_full else ["most on"])], rows)
        yield _line(f"{MEANING}; the score is the largest over responses", DIM)
        uncoloured = "no colour: within noise, or no more than most memories do; ?: unknown"
        yield from [_line(uncoloured, DIM)] if is_full else []
    yield from _left_out(len(ranked), MOST_ROWS, "memory", "memories")
    if is_full:
        yield from _left_out(len(result.transcript.responses()), MOST_COLUMNS, "response")
    known = sorted(result.known.values(), key=lambda it: -it.score)[:MOST_ROWS]
    if known:
        rows = [
            [
                _cell(shortened(it.key, TEXT), "th"),
                _cell(f"{it.score:.2f}", style=NUMBER),
                _cell(moment_ago(it.scored_at)),
            ]
            for it in known
        ]
        yield _table(["scored before", "nats", "measured"], rows)
    yield from (_line(it) for it in result.screened)
    if result.placebo is not None:
        yield _line(result.placebo.remark, DIM)
    for key in result.keys[:MOST_ROWS]:
        outcome = result.outcome(key)
        # What is estimated is above.
        if outcome.status not in ("scored", "estimated"):
            why = outcome.error or NOT_SCORED.get(outcome.status, outcome.status)
            yield _line(f"{shortened(key, TEXT)}: {why}", DIM)


def _about(result: Result, on: ResponseDivergence | None, is_told: bool) -> str:
    """Return where a memory did most, or why its score says little."""
    if on is None or not on.divergence:
        return ""
    if not is_told:
        return "within noise" if within_noise(on) else "like most memories"
    texts = dict(enumerate(it.text for it in result.transcript.conversation))
    return f"#{on.entry_idx} {texts.get(on.entry_idx, on.node_id)}"


def _candidates(result: Result) -> Iterator[str]:
    rows = [
        [
            _cell(f"#{it.entry_idx}", "th"),
            _cell(f"{it.divergence:.2f}", style=NUMBER),
            _cell(it.response_text),
            _cell(it.alternate_text or ""),
        ]
        for it in result.candidates[:MOST_ROWS]
    ]
    yield _line(count_of(len(result.candidates), "candidate") + " for training")
    if rows:
        yield _table(["response", "nats", "said", "without the memories"], rows)
        yield _line(MEANING, DIM)
    yield from _left_out(len(result.candidates), MOST_ROWS, "candidate")


def _comparison(it: Comparison) -> Iterator[str]:
    heads = [it.model, it.other]
    found = sorted(it.responses, key=lambda one: -abs(one.difference))
    rows = [
        [_cell(f"#{one.entry_idx}", "th"), *_both(one.with_), _cell(one.text)]
        for one in found[:MOST_ROWS]
    ]
    yield _line(f"log-probabilities of responses, in {it.unit}; those that differ most come first")
    yield _table(["response", *heads, "change", "said"], rows)
    yield from _left_out(len(found), MOST_ROWS, "response")
    memories = sorted(it.memories, key=lambda one: one.change.difference)
    rows = [
        [_cell(shortened(one.key, TEXT), "th"), *_both(one.needs), _cell(one.verdict)]
        for one in memories[:MOST_ROWS]
    ]
    if rows:
        yield _line(f"what each memory adds to a response behind it, in {it.unit}")
        yield _table(["memory", *heads, "change", f"{it.other} needs it"], rows)
    yield from _left_out(len(memories), MOST_ROWS, "memory", "memories")


def _both(values: Pair) -> Iterator[str]:
    """Yield the cells of two models' values and of their difference."""
    one, other = values
    for text in (f"{one:.3f}", f"{other:.3f}", f"{other - one:+.3f}"):
        yield _cell(text, style=NUMBER)


def _effect(cell: ResponseDivergence | None, smallest: float, spreads: Mapping[str, float]) -> str:
    """Return one cell of the matrix, coloured by what it says."""
    if cell is None:
        return _cell("?", style=NUMBER + DIM)
    if abs(cell.signed) < smallest or within_noise(cell):
        return _cell("·", style=NUMBER + DIM)
    colour = HELPED if cell.signed > 0 else HARMED
    depth = 0.0 if is_indistinct(cell, spreads) else min(1.0, abs(cell.signed) / SCALE)
    ground = f"background:rgba({colour},{0.15 + 0.35 * depth:.2f});" if depth else ""
    return _cell(f"{cell.signed:.1f}", style=NUMBER + ground)


def _left_out(number: int, shown: int, noun: str, plural: str | None = None) -> Iterator[str]:
    if number > shown:
        yield _line(f"and {count_of(number - shown, f'more {noun}', plural and f'more {plural}')}")


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    numbers = [it == "nats" or it.startswith("#") for it in head]
    styles = [(NUMBER if is_number else CELL) + DIM for is_number in numbers]
    top = "".join(_cell(it, "th", style) for it, style in zip(head, styles, strict=True))
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<table style="border-collapse:collapse;color:inherit"><tr>{top}</tr>{body}</table>'


def _cell(text: str, tag: str = "td", style: str = CELL) -> str:
    return f'<{tag} style="{style}">{escape(one_line(text, TEXT))}</{tag}>'


def _line(text: str, style: str = "") -> str:
    return f'<div style="{style}">{escape(printable(text))}</div>'
