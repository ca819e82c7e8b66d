"""Read the memories that files name: JSON of several shapes, JSON Lines, Markdown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindscore._util.errors import TranscriptError, UsageError
from mindscore._util.files import STANDARD_INPUT
from mindscore._util.text import shortened
from mindscore.readers.source import Source, first_text, kind_of

if TYPE_CHECKING:
    from markdown_it.token import Token

KEYS = ("key", "id", "uuid", "memory_id", "name", "label", "path", "title")
"""Fields that hold a memory's key, the first one that is there."""
TEXTS = ("memory", "text", "content", "value", "fact")
"""Fields that hold its text."""
LISTS = ("results", "memories", "items", "data", "facts")
"""Fields that hold a list of memories."""

NAME_CHARACTERS = 100
"""Longest key that an error shows."""
SLUG_WORDS, SLUG_CHARACTERS = 6, 40
"""Most words and characters of a memory in the key that is made of it."""


def read_memories(*files: Path, transcript: Path | None = None) -> dict[str, str]:
    """Read the memories that files name, ``{key: text}``.

    A file is JSON: ``{key: text}``, a list of texts, a list of objects with a key and a text, such
    as mem0's; JSON Lines of such objects, or of an MCP memory server; or Markdown, of which each
    list item and paragraph is a memory, its key beginning with its headings. The key of a memory
    without one is made of its first words, and never of its number.

    Raises:
        UsageError: standard input is named twice, or is the ``transcript`` as well.
        TranscriptError: names the file, the memory and the reason.
    """
    if [transcript, *files].count(STANDARD_INPUT) > 1:
        raise UsageError("standard input is the transcript or one file of memories, not both")
    found: dict[str, str] = {}
    for file in files:
        source = Source(file)
        given = list(_memories(source))
        for key, text in given:
            where = f"memory {shortened(str(key), NAME_CHARACTERS)!r}"
            if not key:
                source.refuse("a memory", "a key is empty")
            if not isinstance(text, str):
                source.refuse(where, f"expected text, got {kind_of(text)}")
            if not text.strip():
                source.refuse(where, "its text is empty")
            if found.setdefault(key, text) != text:
                source.refuse(where, "another memory of the same key has another text")
        if not given:
            raise TranscriptError(f"{file}: holds no memories")
    return found


def _memories(source: Source) -> Iterable[tuple[str, Any]]:
    """Yield the keys of memories with their texts, which may be anything yet."""
    content = source.content.lstrip()
    if not is_markdown(source.file) and (content[:1] in (b"{", b"[") or source.first is not None):
        values = [value for _, value in source.values()]
        # No memory is left out without a word.
        if source.damage.first is not None:
            raise source.damage.first
        is_lines = len(values) > 1 or source.file.suffix.lower() in (".jsonl", ".ndjson")
        return named_memories(source, values if is_lines else values[0])
    with source.placed("the file"):
        return _headed(source.content.decode("utf-8"))


def is_markdown(file: Path) -> bool:
    """Return whether a file is Markdown by its name, whatever it begins with."""
    return file.suffix.lower() in (".md", ".markdown")


def named_memories(source: Source, given: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and text of each memory of a JSON value; the text may be anything yet.

    Raises:
        TranscriptError: it holds something that is no memory.
    """
    if isinstance(given, dict):
        for name in LISTS:
            if isinstance(given.get(name), list):
                yield from named_memories(source, given[name])
                return
        for key, value in given.items():
            yield key, text_of(value) if isinstance(value, dict) else value
    elif isinstance(given, list):
        for number, item in enumerate(given, start=1):
            yield from item_memories(source, f"memory {number}", item)
    else:
        raise TranscriptError(
            f"{source.file}: expected {{key: text}} or a list of memories, got {kind_of(given)}"
        )


def item_memories(source: Source, where: str, item: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and text of each memory of a list's item: one, or an entity's observations.

    Raises:
        TranscriptError: it is no memory.
    """
    if isinstance(item, str):
        if not item.strip():
            source.refuse(where, "its text is empty")
        yield slug(item), item
    elif not isinstance(item, dict):
        source.refuse(where, f"expected text or an object, got {kind_of(item)}")
    elif isinstance(item.get("observations"), list):
        # An entity of an MCP memory server, which prints each observation of it.
        entity = first_text(item.get("name"))
        for text in item["observations"]:
            yield f"{entity}/{slug(text)}" if isinstance(text, str) else entity, text
    elif "relationType" in item:
        # As the server prints it: white space aside, that of its JSON.
        relation = {key: item.get(key) for key in ("from", "to", "relationType")}
        named = "/".join(map(str, relation.values()))
        fields = ", ".join(f"{json.dumps(key)}: {json.dumps(it)}" for key, it in relation.items())
        yield named, fields
    else:
        text = text_of(item)
        if text is None:
            source.refuse(where, f"expected a text in one of {', '.join(TEXTS)}")
        key = next((item[it] for it in KEYS if isinstance(item.get(it), str | int)), "")
        yield str(key) or (slug(text) if isinstance(text, str) else ""), text


def text_of(item: Mapping[str, Any]) -> Any:
    """Return the text of a memory that is an object, ``None`` if it has none."""
    return next((item[name] for name in TEXTS if item.get(name) is not None), None)


_SAID = ("inline", "fence", "code_block")
"""Tokens of Markdown that hold text."""

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def _headed(text: str) -> Iterator[tuple[str, str]]:
    """Yield the list items, paragraphs and blocks of code of a Markdown document."""
    from markdown_it import MarkdownIt

    text = FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    # Hermes parts its entries so.
    tokens = MarkdownIt("commonmark").parse(re.sub("^§$", "", text, flags=re.MULTILINE))
    for key, token in keyed_tokens(tokens):
        if any(map(str.isalnum, token.content)):
            yield key, token.content


def keyed_tokens(tokens: Iterable[Token]) -> Iterator[tuple[str, Token]]:
    """Yield Markdown's tokens that hold text, each with its key: its headings and its words."""
    headings: dict[int, str] = {}
    inside = ""
    for token in tokens:
        if token.type == "heading_open":
            inside = token.tag
        elif token.type == "heading_close":
            inside = ""
        elif inside:
            level = int(inside[1:])
            headings = {at: it for at, it in headings.items() if at < level}
            headings[level] = slug(token.content, whole=True)
        elif token.type in _SAID:
            yield "/".join((*headings.values(), slug(token.content))), token


def slug(text: str, *, whole: bool = False) -> str:
    """Return a readable key made of a text: its first words, and a hash if it holds more.

    ``whole``: cut it without the hash.
    """
    said = " ".join(text.lower().split())
    words = re.findall(r"\w+", said)
    short = "-".join(words[:SLUG_WORDS])[:SLUG_CHARACTERS].strip("-_")
    if whole or (short and short == said.removesuffix(".").replace(" ", "-")):
        return short
    digest = hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{short}-{digest}" if short else digest
