"""The options of ``mindscore compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mindscore._util.errors import UsageError
from mindscore.cli.options import ConversationOptions, Json, check_memories


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ConversationOptions):
    """The options of ``compare``."""

    paths: Annotated[
        list[Path],
        Argument(
            metavar="PATH...",
            help="Files of conversations, folders of such files, patterns; -: standard input.",
        ),
    ]
    other: Annotated[
        str | None,
        Option(
            "--with",
            metavar="OTHER",
            help="The other model: a table [server.OTHER], an adapter's folder (./…), or a model.",
        ),
    ] = None
    say: Annotated[
        bool, Option("--say", help="Also have the other model say each response itself.")
    ] = False
    responses_only: Annotated[
        bool, Option("--responses-only", help="Do not remove each memory under both models.")
    ] = False
    html: Annotated[
        Path | None,
        Option("--html", metavar="FILE", help="Also write the comparison to one HTML file."),
    ] = None
    json: Json = False

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: says which.
        """
        check_memories(self.memories, self.memories_anywhere)
        if self.select is not None and len(self.paths) > 1:
            raise UsageError("--select goes with one file")
