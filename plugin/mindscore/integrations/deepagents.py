"""deepagents: the recogniser of its memory files, and its harness profile. As of 0.7.

The profile gives every deep agent a ``MindMiddleware``, if it is switched on: an installed package
must not spend anybody's time or tokens by itself, so it does nothing without
``[plugins.settings.deepagents] enabled = true`` in the user's configuration.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mindscore._util.errors import format_error
from mindscore.recognisers import Block, Entry, Unread, hookimpl

if TYPE_CHECKING:
    from mindscore.integrations.langchain.handler import MindMiddleware
    from mindscore.session.attach import Attached

_OPEN, _CLOSE = "<agent_memory>\n", "\n\n</agent_memory>"
_JOINER = "\n\n"
_NOTHING = "(No memory loaded)"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# A paragraph of one line that may be a path; among several, which ones are is unknown.
_PATH = re.compile(
    r"(?:\A|(?<=\n\n))(?:(?:/|~/|\.{1,2}/)[^\n]*\S|[^\s#`]+[/\\][^\s`]+|[^\n]*\.md)(?=\n\n)"
)


class Deepagents:
    """The recogniser of ``<agent_memory>`` (``middleware/memory.py``); keys are paths."""

    @hookimpl
    def find_memories(
        self, role: str, text: str, known: Mapping[str, str]
    ) -> Iterator[Block | Unread]:
        """Find the section of a system prompt.

        With ``known``, the raw files as ``MemoryMiddleware`` keeps them, it is exact; without
        them, only a section of one file is found.
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
    """Return the known files that fill the section; none if they do not fill it exactly."""
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
    """Return a file as it stands in the section; empty for one without text."""
    said = _COMMENT.sub("", raw).rstrip()
    return f"{path}{_JOINER}{said}" if said else ""


def _file(text: str, first: int) -> list[Entry]:
    """Return the only file of the section, if only one line of it can be a path."""
    end = text.find(_CLOSE, first)
    body = text[first:end]
    paths = list(_PATH.finditer(body))
    alone = end >= 0 and text.find(_CLOSE, end + 1) < 0 and text.find(_OPEN, first) < 0
    if not alone or len(paths) != 1 or paths[0].start() or body != body.rstrip():
        return []
    return [Entry(paths[0][0], body)]


_log = logging.getLogger("mindscore")

NAME = "deepagents"

# The names of models' providers: a profile is for one of them, none is for all.
PROVIDERS = (
    "amazon_bedrock", "anthropic", "anthropic_bedrock", "azure", "azure_ai", "azure_openai",
    "baseten", "bedrock", "bedrock_converse", "cohere", "deepseek", "fireworks", "google_genai",
    "google_vertexai", "groq", "huggingface", "ibm", "litellm", "llamacpp", "meta", "mistral",
    "mistralai", "nvidia", "ollama", "openai", "openrouter", "perplexity", "together", "upstage",
    "vllm", "xai",
)  # fmt: skip


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[plugins.settings.deepagents]``.

    ``enabled``: whether agents are scored; ``providers``: the names of further ones;
    ``every_turns`` and ``idle_s`` as in ``mindscore.attach``.
    """

    enabled: bool = False
    providers: list[str] = msgspec.field(default_factory=list)
    every_turns: int = 1
    idle_s: float = 60.0


class _Shared:
    """The middleware of this process, shared by an agent and its subagents."""

    def __init__(self, tables: Mapping[str, Any], options: Options) -> None:
        self._tables = tables
        self._options = options
        self._making = threading.Lock()
        self._failed = False
        self.middleware: MindMiddleware | None = None

    def __call__(self) -> list[MindMiddleware]:
        """Return the middleware for one more agent; nothing if it cannot be made."""
        with self._making:
            if self.middleware is None and not self._failed:
                try:
                    self._make()
                # Nothing here may stop the agent.
                except Exception as error:
                    self._failed = True
                    _log.warning("deep agents are not scored: %s", format_error(error))
            return [] if self.middleware is None else [self.middleware]

    def _make(self) -> None:
        from mindscore.integrations.langchain.handler import MindMiddleware

        self.middleware = MindMiddleware(
            settings=self._tables,
            every_turns=self._options.every_turns,
            idle_s=self._options.idle_s,
        )


_shared: _Shared | None = None


def mind() -> Attached | None:
    """Return the scoring of this process's deep agents; ``None`` before the first, or if off."""
    middleware = _shared.middleware if _shared is not None else None
    return middleware.mind if middleware is not None else None


def register() -> None:
    """Register the profile; deepagents calls this when the first agent is built."""
    global _shared
    from mindscore.config.file import load_configuration
    from mindscore.config.settings import parse_table

    try:
        configuration = load_configuration(None)
        table = configuration.settings.plugins.settings.get(NAME, {})
        options = parse_table(table, Options, f"plugins.settings.{NAME}")
    except Exception as error:
        _log.warning("deep agents are not scored: %s", format_error(error))
        return
    if not options.enabled:
        return
    from deepagents import (  # type: ignore[import-not-found, unused-ignore]
        HarnessProfile,
        register_harness_profile,
    )

    _shared = _Shared(configuration.tables, options)
    profile = HarnessProfile(extra_middleware=_shared)
    for provider in dict.fromkeys((*PROVIDERS, *options.providers)):
        register_harness_profile(provider, profile)
