"""The memories in Codex CLI's prompts: AGENTS.md, and the summary of its own. As of 0.171."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from mindscore.recognisers import Block, Entry, hookimpl

_FILES = re.compile(
    r"(?P<open># AGENTS\.md instructions(?: for (?P<folder>[^\n]+))?\n\n<INSTRUCTIONS>\n)"
    r"(?P<body>.*?)(?P<close>\n</INSTRUCTIONS>)",
    re.DOTALL,
)
_OLDER_FILES = re.compile(
    r"(?P<open><user_instructions>\s+)(?P<body>.*?)(?P<close>\s+</user_instructions>)", re.DOTALL
)
_PROJECT = "\n\n--- project-doc ---\n\n"
_SKILLS = re.compile(r"(?:\n\n|\A)## Skills\nA skill is a set of local instructions.*", re.DOTALL)
_SUMMARY = re.compile(
    r"=+ MEMORY_SUMMARY BEGINS =+\n(?P<body>.+?)\n=+ MEMORY_SUMMARY ENDS =+", re.DOTALL
)
_SUMMARY_FILE = re.compile(r"^- (\S.*memory_summary\.md) ", re.MULTILINE)


class Codex:
    """The recogniser of AGENTS.md and of ``memory_summary.md``; keys are paths.

    The files of a project are printed as one: they are one memory, under the working folder's path.
    """

    @hookimpl
    def find_memories(self, role: str, text: str) -> Iterator[Block]:
        """Find the files in a user message, and the summary in a system message."""
        if role == "user" and "instructions" in text:
            for form in (_FILES, _OLDER_FILES):
                yield from filter(None, map(_files, form.finditer(text)))
        elif role == "system" and (found := _SUMMARY.search(text)):
            path = _SUMMARY_FILE.search(text)
            entry = Entry(path[1] if path else "memory_summary.md", found["body"])
            start, end = found.span("body")
            yield Block(start, end, (entry,), partial(_unless_skipped, entry))


def _unless_skipped(entry: Entry, skipped: frozenset[str]) -> str:
    return "" if entry.key in skipped else entry.text


def _files(found: re.Match[str]) -> Block | None:
    """Return the block of one section; ``None`` if it holds no file."""
    # Older versions list skills after the files.
    skills = _SKILLS.search(found["body"])
    rest = skills[0] if skills else ""
    texts = found["body"].removesuffix(rest).split(_PROJECT, 1)
    keys = [_path(found), "~/.codex/AGENTS.md"][: len(texts)][::-1]
    entries = tuple(Entry(key, it) for key, it in zip(keys, texts, strict=True) if it.strip())
    if not entries:
        return None
    # Texts, not the match: what renders goes to other processes with the transcript.
    opening, closing = found["open"], found["close"]

    def render(skipped: frozenset[str]) -> str:
        left = _PROJECT.join(it.text for it in entries if it.key not in skipped)
        if not left and not rest:
            return ""
        return opening + left + (rest if left else rest.lstrip()) + closing

    return Block(found.start(), found.end(), entries, render)


def _path(found: re.Match[str]) -> str:
    folder = found.groupdict().get("folder")
    if not folder:
        return "AGENTS.md"
    return f"{folder}\\AGENTS.md" if "\\" in folder else f"{folder.rstrip('/')}/AGENTS.md"
