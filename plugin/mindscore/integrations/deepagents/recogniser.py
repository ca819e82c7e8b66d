"""deepagents: files such as AGENTS.md in ``<agent_memory>``, each under its path.

As of 0.7 (``deepagents/middleware/memory.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from mindscore.recognisers import Block, Entry, Unread, hookimpl

_OPEN, _CLOSE = "<agent_memory>\n", "\n\n</agent_memory>"
_JOINER = "\n\n"
_NOTHING = "(No memory loaded)"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# A paragraph of one line that may be a path: where there are several, nobody knows which are.
_PATH = re.compile(
    r"(?:\A|(?<=\n\n))(?:(?:/|~/|\.{1,2}/)[^\n]*\S|[^\s#`]+[/\\][^\s`]+|[^\n]*\.md)(?=\n\n)"
)


class Deepagents:
    """Keys are the files' paths."""

    @hookimpl
    def find_memories(
        self, role: str, text: str, known: Mapping[str, str]
    ) -> Iterator[Block | Unread]:
        """The section of a system prompt.

        Exact where ``known`` are the files, raw, as ``MemoryMiddleware`` keeps them; else a
        section of one file alone is taken.
        """
        start = text.find(_OPEN) if role == "system" else -1
        if start < 0:
            return
        first = start + len(_OPEN)
        entries = _files(text, first, known) or _file(text, first)
        if entries:
            end = first + len(_JOINER.join(it.text for it in entries))
            yield _block(first, end, entries)
        elif not text.startswith(_NOTHING + _CLOSE, first):
            why = "which lines are the files' paths cannot be told without the files' own text"
            yield Unread(start, len(text), why)


def _block(first: int, end: int, entries: Sequence[Entry]) -> Block:
    def render(skipped: frozenset[str]) -> str:
        return _JOINER.join(it.text for it in entries if it.key not in skipped) or _NOTHING

    return Block(first, end, tuple(dict.fromkeys(entries)), render)


def _files(text: str, at: int, known: Mapping[str, str]) -> list[Entry]:
    """The known files that fill the section; nothing where they do not fill it exactly."""
    printed = [Entry(path, _printed(path, raw)) for path, raw in known.items()]
    printed = [it for it in printed if it.text]
    found: list[Entry] = []
    while not found or not text.startswith(_CLOSE, at):
        at += len(_JOINER) if found else 0
        here = [it for it in printed if text.startswith(it.text + _JOINER, at)]
        if not here:
            return []
        found.append(max(here, key=lambda it: len(it.text)))
        at += len(found[-1].text)
    return found


def _printed(path: str, raw: str) -> str:
    """A file as it stands in the section; nothing for one that says nothing."""
    said = _COMMENT.sub("", raw).rstrip()
    return f"{path}{_JOINER}{said}" if said else ""


def _file(text: str, first: int) -> list[Entry]:
    """The one file that the section holds, if only one line of it can be a path."""
    end = text.find(_CLOSE, first)
    body = text[first:end]
    paths = list(_PATH.finditer(body))
    alone = end >= 0 and text.find(_CLOSE, end + 1) < 0 and text.find(_OPEN, first) < 0
    if not alone or len(paths) != 1 or paths[0].start() or body != body.rstrip():
        return []
    return [Entry(paths[0][0], body)]
