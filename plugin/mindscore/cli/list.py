"""``mindscore list``: the conversations of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from mindhooks import Role
from mindscore._util.text import one_line, shortened
from mindscore.cli.interruption import DONE
from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.display.documents import with_remarks
from mindscore.display.screen import new_console, write_json
from mindscore.readers.conversations import Conversations

NAME = 40
TITLE = 60


def run_list(file: Path, format_: str | None, json: bool) -> int:
    """Print the conversations of ``file``, and return the exit status."""
    conversations = Conversations(file, format_)
    listed = [
        _fields(number, conversation, transcript)
        for number, (conversation, transcript) in enumerate(conversations.transcripts(), start=1)
    ]
    if json:
        head = {"command": "list", "file": str(file), "format": conversations.format}
        write_json({**head, "conversations": listed})
    else:
        _show(conversations.format, listed)
    return DONE


def _fields(number: int, conversation: Conversation, transcript: Transcript) -> dict[str, Any]:
    messages = (*transcript.system, *transcript.identity, *transcript.conversation)
    return {
        "number": number,
        "name": conversation.name,
        "title": conversation.title or _first_words(transcript),
        "messages": len(messages),
        "responses": len(transcript.responses()),
        "memories": transcript.keys(),
        **with_remarks(transcript.remarks),
    }


def _first_words(transcript: Transcript) -> str:
    asked = (it.text for it in transcript.conversation if it.role == Role.USER)
    return one_line(next(asked, ""), TITLE)


def _show(format_: str, listed: list[dict[str, Any]]) -> None:
    table = Table(box=None)
    table.add_column("", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("title", overflow="fold")
    for column in ("messages", "responses", "memories"):
        table.add_column(column, justify="right")
    for it in listed:
        table.add_row(
            f"{it['number']}",
            shortened(it["name"], NAME),
            one_line(it["title"], TITLE),
            f"{it['messages']:,}",
            f"{it['responses']:,}",
            f"{len(it['memories']):,}",
        )
    console = new_console()
    console.print(table)
    console.print(Text(f"format: {format_}", style="dim"))
