"""llm's plugin: ``llm mind``, over the conversations that llm logged.

llm imports it at every start: what its commands need is imported when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click
import llm  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    from pathlib import Path


P = ParamSpec("P")
T = TypeVar("T")


@llm.hookimpl  # type: ignore[untyped-decorator, unused-ignore]
def register_commands(cli: click.Group) -> None:
    """Add ``llm mind``."""
    cli.add_command(mind)


def _one_line_errors(command: Callable[P, T]) -> Callable[P, T]:
    @wraps(command)
    def guarded(*args: P.args, **options: P.kwargs) -> T:
        from mindhooks import MindhooksError

        try:
            return command(*args, **options)
        except MindhooksError as error:
            from mindscore._util.errors import format_error

            raise click.ClickException(format_error(error)) from error

    return guarded


_settings = click.option(
    "assignments", "--set", multiple=True, metavar="KEY=VALUE", help="Override one of mindscore's "
    "settings, such as server.scorer=toy.",
)  # fmt: skip
_count = click.option(
    "count", "-n", type=click.IntRange(min=1), default=50, show_default=True,
    help="How many of the last conversations with fragments.",
)  # fmt: skip


@click.group
def mind() -> None:
    """Measure what each fragment did to the responses."""


@mind.command
@_count
@click.option("conversation", "--conversation", metavar="ID", help="Only this conversation.")
@click.option("full", "--full", is_flag=True, help="Score every fragment on every response.")
@_settings
@_one_line_errors
def score(count: int, conversation: str | None, full: bool, assignments: tuple[str, ...]) -> None:
    """Score the fragments of logged conversations, the newest first."""
    from mindscore.integrations.llm.scoring import chosen, score_logged

    failed = score_logged(chosen(_logs(), count, conversation), full, assignments)
    if failed:
        raise click.ClickException(failed)


@mind.command("list")
@_count
@_one_line_errors
def list_(count: int) -> None:
    """List the conversations with fragments, the newest first."""
    from mindscore.integrations.llm.scoring import chosen, show_logged

    show_logged(chosen(_logs(), count, None))


@mind.command
@_settings
@_one_line_errors
def fragments(assignments: tuple[str, ...]) -> None:
    """Rank the scored fragments by their weight."""
    from mindscore.integrations.llm.scoring import show_fragments

    show_fragments(assignments)


def _logs() -> Path:
    """Return the file that llm logs to."""
    file: Path = llm.user_dir() / "logs.db"
    if not file.is_file():
        raise click.ClickException(f"nothing is logged yet: there is no {file}")
    return file
