"""The options of ``mindscore advise``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mindscore._util.errors import UsageError
from mindscore.cli.options import (
    ConfigOptions,
    Format,
    Json,
    MemoriesAnywhere,
    MemoriesFiles,
    check_memories,
)


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(ConfigOptions):
    """The options of ``advise``."""

    paths: Annotated[
        list[Path],
        Argument(
            metavar="[PATH]...",
            help="With --verify: files, folders and patterns of the conversations.",
        ),
    ] = field(default_factory=list)
    model: Annotated[
        str | None, Option("--model", metavar="NAME", help="The model that has measured.")
    ] = None
    since: Annotated[
        str | None,
        Option("--since", metavar="AGE|DATE", help="Only responses since then, such as 90d."),
    ] = None
    verify: Annotated[
        bool,
        Option("--verify", help="Measure the proposed drops, removed together from PATH."),
    ] = False
    max_tokens: Annotated[
        int | None,
        Option("--max-tokens", min=1, metavar="N", help="With --verify: send at most N tokens."),
    ] = None
    format: Format = None
    memories: MemoriesFiles = field(default_factory=list)
    memories_anywhere: MemoriesAnywhere = False
    csv: Annotated[
        Path | None, Option("--csv", metavar="FILE", help="Also write a row for each memory.")
    ] = None
    html: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Also write a page: one HTML file.")
    ] = None
    write: Annotated[
        Path | None,
        Option("--write", metavar="FILE", help="Also write the keys to drop, one a line, or JSON."),
    ] = None
    diff: Annotated[
        list[Path],
        Option(
            "--diff",
            metavar="FILE",
            help="Print what would change in a file of memories; may be repeated.",
        ),
    ] = field(default_factory=list)
    json: Json = False

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: says which.
        """
        if self.verify and not self.paths:
            raise UsageError(
                "--verify goes with PATH: the conversations to remove the memories from"
            )
        for name, is_given in {
            "PATH": bool(self.paths),
            "--max-tokens": self.max_tokens is not None,
            "--memories": bool(self.memories),
            "--format": self.format is not None,
        }.items():
            if is_given and not self.verify:
                raise UsageError(f"{name} goes with --verify")
        check_memories(self.memories, self.memories_anywhere)
        if self.json and self.diff:
            raise UsageError("--json and --diff both print to standard output: choose one")
