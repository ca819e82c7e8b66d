"""The actions of ``llm mind`` on logged conversations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from rich.table import Table
from rich.text import Text

from mindhooks import MindCommand
from mindscore._util.errors import UsageError
from mindscore._util.text import one_line, printable
from mindscore.config.file import load_configuration
from mindscore.conversation.conversation import Conversation
from mindscore.display.screen import new_console
from mindscore.display.tables import show_result
from mindscore.integrations.llm.reader import logged, one_logged
from mindscore.session.attach import attach
from mindscore.store import Store

TITLE_WIDTH = 60

# A logged conversation has ended: no fragment is too recent to judge, and none waits for its turn.
SETTINGS = ("store.namespace=llm", "memory.interval_s=0", "memory.token_cutoff=1")


def chosen(logs: Path, count: int, name: str | None) -> list[Conversation]:
    """Return the last ``count`` conversations with fragments, newest first, or the one named.

    Raises:
        TranscriptError: the logs cannot be read.
        UsageError: no conversation has this name.
    """
    if name is None:
        return list(islice((it for it in logged(logs, True) if _fragments(it)), count))
    found = one_logged(logs, name)
    if found is None:
        raise UsageError(f"no conversation {name!r} is logged; see llm mind list")
    return [found]


def _fragments(conversation: Conversation) -> list[str]:
    whole = [it.memory_key for it in conversation.messages if it.memory_key is not None]
    blocks = [block for it in conversation.messages for block in it.blocks]
    return list(dict.fromkeys(whole + [it.key for block in blocks for it in block.entries]))


def score_logged(
    conversations: Sequence[Conversation], full: bool, assignments: Sequence[str]
) -> str | None:
    """Score and print one conversation after the other; return what failed, or ``None``.

    Raises:
        ConfigError: the configuration is wrong.
        UnhandledCommand: the flow is disabled.
    """
    console = new_console()
    errors: list[str] = []
    command = MindCommand.SCORE_FULL if full else MindCommand.SCORE
    tables = load_configuration(None, (*SETTINGS, *assignments)).tables
    messages = {it.name: it.messages for it in conversations}
    now = ""
    with attach(lambda: messages[now], settings=tables, every_turns=0, idle_s=0) as attached:
        for conversation in conversations:
            now = conversation.name
            console.print(Text(_headline(conversation), style="bold"))
            found = attached.score(command).result()
            # The agent's side of a session sees the messages alone.
            remarks = (*conversation.remarks, *found.remarks)
            show_result(console, replace(found, remarks=remarks))
            if found.error is not None:
                errors.append(found.error)
    if not conversations:
        console.print("No conversation with fragments is logged.")
    more = f" (and {len(errors) - 1} more conversations failed)" if len(errors) > 1 else ""
    return errors[0] + more if errors else None


def show_logged(conversations: Sequence[Conversation]) -> None:
    """Print a line for each conversation."""
    table = Table(box=None)
    for title in ("conversation", "last response"):
        table.add_column(title, no_wrap=True)
    for title in ("fragments", "responses"):
        table.add_column(title, justify="right", min_width=len(title))
    table.add_column("title", no_wrap=True)
    for it in conversations:
        responses = [message for message in it.messages if message.role == "assistant"]
        table.add_row(
            printable(it.name),
            _when(it),
            str(len(_fragments(it))),
            str(len(responses)),
            one_line(it.title, TITLE_WIDTH),
        )
    console = new_console()
    console.print(table if conversations else "No conversation with fragments is logged.")


def show_fragments(assignments: Sequence[str]) -> None:
    """Print the scores of fragments in the store, the heaviest first.

    Raises:
        ConfigError: the configuration is wrong.
        StoreError: the store cannot be read.
    """
    store = Store(load_configuration(None, (*SETTINGS, *assignments)).settings.store)
    found = asyncio.run(store.memories())
    table = Table(box=None)
    for title in ("fragment", "model"):
        table.add_column(title, overflow="fold")
    for title in ("weight", "last", "times"):
        table.add_column(title, justify="right")
    for it in found:
        table.add_row(
            printable(it.key), printable(it.model), f"{it.weight:.2f}", f"{it.score:.2f}",
            str(it.count),
        )  # fmt: skip
    console = new_console()
    console.print(table if found else "No fragment is scored yet: see llm mind score.")


def _headline(conversation: Conversation) -> str:
    return f"{printable(conversation.name)}  {one_line(conversation.title, TITLE_WIDTH)}"


def _when(conversation: Conversation) -> str:
    stamps = [it.timestamp_ns for it in conversation.messages if it.timestamp_ns is not None]
    if not stamps:
        return ""
    return datetime.fromtimestamp(max(stamps) / 1e9).astimezone().isoformat(" ", "minutes")[:16]
