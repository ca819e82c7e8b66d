"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mindscore._util.errors import UsageError

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read this TOML file instead of $MINDSCORE_CONFIG or the user's own.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting, such as server.scorer=toy."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Transcript = Annotated[Path, typer.Argument(metavar="TRANSCRIPT", help="A file of conversations.")]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="What the file is in, where not as detected."),
]
MemoriesFile = Annotated[
    Path | None,
    typer.Option(
        "--memories", metavar="FILE", help="JSON, {key: text}: memories printed in the messages."
    ),
]
Select = Annotated[
    str | None,
    typer.Option("--select", metavar="NAME", help="One of several conversations; or its number."),
]
Full = Annotated[bool, typer.Option("--full", help="Every memory against every response.")]
Finetune = Annotated[
    bool, typer.Option("--finetune", help="Responses that depend on the memories.")
]
All = Annotated[bool, typer.Option("--all", help="Score memories that are not due too.")]
Memories = Annotated[
    list[str] | None, typer.Option("--memory", metavar="KEY", help="Only this one.")
]
Hold = Annotated[
    bool, typer.Option("--hold", help="With --full: what each memory does alone, too.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="With --full: go on with the rows that are not kept yet.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=1, metavar="N", help="Score the memories that fit, oldest-scored first."
    ),
]

Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write what was found as one HTML file, too."),
]
Unreviewed = Annotated[
    bool,
    typer.Option("--unreviewed", help="Also what nobody has reviewed; never what was rejected."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="The model, where several are kept."),
]


def command_of(full: bool, finetune: bool) -> str:
    """The command that ``--full`` and ``--finetune`` choose.

    Raises:
        UsageError: both are given.
    """
    if full and finetune:
        raise UsageError("--full and --finetune exclude each other")
    return "score-full" if full else "score-finetune" if finetune else "score"
