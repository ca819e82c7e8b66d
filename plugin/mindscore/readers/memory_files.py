"""Files of memories without some of them: JSON, JSON Lines, Markdown, and Hermes' entries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mindscore._util.errors import TranscriptError
from mindscore._util.files import decode, unreadable
from mindscore.readers.memories import (
    FRONT_MATTER,
    LISTS,
    is_markdown,
    item_memories,
    keyed_tokens,
    text_of,
)
from mindscore.readers.source import Source

IsGone = Callable[[str, str], bool]
"""Returns whether the memory of a key and a text is to go."""

DELIMITER = "\n§\n"
"""What Hermes parts its entries with."""

_INDENTS = (None, 1, 2, 3, 4, "\t")
_SEPARATORS = (None, (",", ":"))


def read_text(file: Path) -> str:
    """Return the text of a file as it is, line ends included.

    Raises:
        TranscriptError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise unreadable(file, error) from None
    except UnicodeDecodeError:
        raise TranscriptError(f"{file}: is not UTF-8") from None


def without_memories(file: Path, text: str, is_gone: IsGone) -> str:
    """Return ``text``, the content of ``file``, without the memories that are to go.

    Whatever else it holds stays as it is, but for JSON that no usual way of printing makes: that
    is printed anew.

    Raises:
        TranscriptError: it is no file of memories.
    """
    if DELIMITER in text or is_gone("", text):
        entries = text.split(DELIMITER)
        return DELIMITER.join(it for it in entries if not is_gone("", it))
    if not is_markdown(file) and text.lstrip()[:1] in ("{", "["):
        return _json_without(file, text, is_gone)
    return _markdown_without(text, is_gone)


# -- Markdown ------------------------------------------------------------------------------------


def _markdown_without(text: str, is_gone: IsGone) -> str:
    from markdown_it import MarkdownIt

    front = FRONT_MATTER.match(text)
    begin = text[: front.end()] if front else ""
    lines = text[len(begin) :].splitlines(keepends=True)
    tokens = MarkdownIt("commonmark").parse(text[len(begin) :].replace("\r\n", "\n"))
    gone = set[int]()
    for key, token in keyed_tokens(tokens):
        if token.map and token.content.strip() and is_gone(key, token.content):
            gone.update(range(*token.map))
    return begin + "".join(_left(lines, gone))


def _left(lines: list[str], gone: set[int]) -> Iterator[str]:
    """Yield the lines that stay, without the blank line behind a paragraph that goes."""
    before_blank = True
    for number, line in enumerate(lines):
        is_blank = not line.strip()
        if number in gone or (is_blank and number - 1 in gone and before_blank):
            continue
        before_blank = is_blank
        yield line


# -- JSON ----------------------------------------------------------------------------------------


def _json_without(file: Path, text: str, is_gone: IsGone) -> str:
    source = Source(file)
    try:
        value = decode(text.encode())
    except ValueError:
        return "".join(_lines_without(source, text, is_gone))
    left = _pruned(source, value, is_gone)
    if left == value:
        return text
    return _printed_like(text, value, left)


def _lines_without(source: Source, text: str, is_gone: IsGone) -> Iterator[str]:
    """Yield the lines of JSON Lines that stay."""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.strip():
            yield line
            continue
        try:
            value = decode(line.encode())
        except ValueError as error:
            raise TranscriptError(f"{source.file}, line {number}: {error}") from None
        left = _pruned(source, [value], is_gone)
        if left == [value]:
            yield line
        elif left:
            yield _printed_like(line, value, left[0])


def _printed_like(text: str, value: Any, left: Any) -> str:
    """Return ``left`` printed in the way in which ``text`` is ``value``."""
    end = text[len(text.rstrip()) :]
    for indent in _INDENTS:
        for separators in _SEPARATORS:
            for ascii_ in (False, True):

                def dump(it: Any) -> str:
                    return json.dumps(it, indent=indent, separators=separators, ensure_ascii=ascii_)  # noqa: B023

                if dump(value) == text.rstrip():
                    return dump(left) + end
    return json.dumps(left, indent=2, ensure_ascii=False) + end


def _pruned(source: Source, value: Any, is_gone: IsGone) -> Any:
    if isinstance(value, dict):
        for name in LISTS:
            if isinstance(value.get(name), list):
                return {**value, name: _pruned(source, value[name], is_gone)}
        return {
            key: it
            for key, it in value.items()
            if not is_gone(key, str(text_of(it) if isinstance(it, dict) else it))
        }
    if not isinstance(value, list):
        return value
    left = []
    for number, item in enumerate(value, start=1):
        found = list(item_memories(source, f"memory {number}", item))
        stay = [not is_gone(key, str(text)) for key, text in found]
        if all(stay):
            left.append(item)
        elif any(stay):
            # An entity of an MCP memory server: some of its observations.
            observed = zip(item["observations"], stay, strict=True)
            left.append({**item, "observations": [it for it, stays in observed if stays]})
    return left
