"""The commands' options, each a field of a dataclass that its command takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from typer import Argument, Option

from mindscore._util.errors import UsageError

if TYPE_CHECKING:
    from mindscore.config.file import Configuration
    from mindscore.conversation.conversation import Transcript

T = TypeVar("T")

Json = Annotated[bool, Option("--json", help="Print one JSON document and nothing else.")]
Format = Annotated[
    str | None,
    Option("--format", metavar="NAME", help="Format of the file, where it is not detected."),
]
MemoriesFiles = Annotated[
    list[Path],
    Option(
        "--memories",
        metavar="FILE",
        help="JSON or Markdown file of memories printed in the messages; may be repeated.",
    ),
]
MemoriesAnywhere = Annotated[
    bool,
    Option("--memories-anywhere", help="Look for --memories in what the user typed, too."),
]
ConfigFile = Annotated[
    Path | None,
    Option(
        "--config",
        metavar="FILE",
        help="Read this TOML file instead of $MINDSCORE_CONFIG or the user's own.",
    ),
]
Port = Annotated[
    int, Option("--port", min=0, max=65535, help="Port to listen on; 0: any free one.")
]
TranscriptFile = Annotated[
    Path,
    Argument(
        metavar="TRANSCRIPT", help="A file of one or several conversations; -: standard input."
    ),
]


class Engine(StrEnum):
    """The engine that runs a pass over an archive."""

    ASYNCIO = "asyncio"
    RAY = "ray"


def takes_options(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command the fields of the dataclasses that it takes as parameters, for typer.

    Those that a class declares itself come before those that it inherits.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _parameters(kind)
        else:
            changes = {"annotation": kind, "kind": inspect.Parameter.KEYWORD_ONLY}
            parameters.append(parameter.replace(**changes))

    @wraps(function)
    def command(**values: Any) -> T:
        for name, kind in groups.items():
            values[name] = kind(**{it.name: values.pop(it.name) for it in fields(kind)})
        return function(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {it.name: it.annotation for it in parameters}
    del command.__wrapped__
    return command


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    declared = {it.name: it for it in fields(kind)}
    own_first = [name for each in kind.__mro__ for name in inspect.get_annotations(each)]
    for name in dict.fromkeys(own_first):
        default = declared[name].default
        if default is MISSING:
            is_list = declared[name].default_factory is list
            default = [] if is_list else inspect.Parameter.empty
        only = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(name, only, default=default, annotation=hints[name])


def check_memories(files: Sequence[Path], anywhere: bool) -> None:
    """Refuse ``--memories-anywhere`` alone.

    Raises:
        UsageError: no file names memories.
    """
    if anywhere and not files:
        raise UsageError("--memories-anywhere goes with --memories FILE")


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """The options of every command that reads the configuration."""

    config_file: ConfigFile = None
    assignments: Annotated[
        list[str],
        Option(
            "--set", metavar="KEY=VALUE", help="Override one setting, such as server.scorer=toy."
        ),
    ] = field(default_factory=list)

    def load(self) -> Configuration:
        """Read the configuration.

        Raises:
            ConfigError: it is wrong.
        """
        from mindscore.config.file import load_configuration

        return load_configuration(self.config_file, self.assignments)


@dataclass(frozen=True, kw_only=True)
class ConversationOptions(ConfigOptions):
    """The options of commands that read one conversation of a file."""

    format: Format = None
    memories: MemoriesFiles = field(default_factory=list)
    memories_anywhere: MemoriesAnywhere = False
    select: Annotated[
        str | None,
        Option(
            "--select",
            metavar="NAME",
            help="Name or number of the conversation, where the file has several.",
        ),
    ] = None

    def read(self, file: Path) -> Transcript:
        """Read the conversation that is chosen of ``file``.

        Raises:
            UsageError: the file does not have it.
            TranscriptError: the file cannot be read.
        """
        from mindscore.readers.conversations import read_chosen

        check_memories(self.memories, self.memories_anywhere)
        return read_chosen(
            file, self.format, self.select, self.memories, anywhere=self.memories_anywhere
        )


@dataclass(frozen=True, kw_only=True)
class PlanOptions(ConversationOptions):
    """The options that ``plan`` and ``score`` share."""

    paths: Annotated[
        list[Path],
        Argument(
            metavar="PATH...",
            help="Files of conversations, folders of such files, patterns; -: standard input.",
        ),
    ]
    full: Annotated[bool, Option("--full", help="Score every memory against every response.")] = (
        False
    )
    finetune: Annotated[
        bool, Option("--finetune", help="Find the responses that depend on the memories.")
    ] = False
    all_due: Annotated[bool, Option("--all", help="Score the memories that are not due, too.")] = (
        False
    )
    memory: Annotated[
        list[str],
        Option("--memory", metavar="KEY", help="Score this memory only; may be repeated."),
    ] = field(default_factory=list)
    hold: Annotated[
        bool, Option("--hold", help="With --full: also score each memory alone, against none.")
    ] = False
    placebo: Annotated[
        bool,
        Option("--placebo", help="With --full: also try unrelated texts in the memories' places."),
    ] = False
    resume: Annotated[
        bool, Option("--resume", help="With --full: score only the rows that are not stored yet.")
    ] = False
    screen: Annotated[
        bool,
        Option(
            "--screen",
            help="With --full: estimate every memory cheaply, and measure those that stand out.",
        ),
    ] = False
    max_tokens: Annotated[
        int | None,
        Option(
            "--max-tokens",
            min=1,
            metavar="N",
            help="Send at most N tokens: score what fits, the longest unscored memories first.",
        ),
    ] = None
    since: Annotated[
        str | None,
        Option(
            "--since",
            metavar="WHEN",
            help="Of several conversations, those that ended later: 12h, 30d, 2w ago, or a date.",
        ),
    ] = None
    sample: Annotated[
        int | None,
        Option("--sample", min=1, metavar="N", help="Of several conversations, N by chance."),
    ] = None
    seed: Annotated[
        int, Option("--seed", help="With --sample: another number, other conversations.")
    ] = 0
    require_images: Annotated[
        bool,
        Option("--require-images", help="Refuse images that the scorer would not be given."),
    ] = False
    json: Json = False

    @property
    def command(self) -> str:
        """The command to dispatch."""
        return "score-full" if self.full else "score-finetune" if self.finetune else "score"

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: names them.
        """
        if self.full and self.finetune:
            raise UsageError("--full and --finetune exclude each other")
        if self.finetune and self.memory:
            raise UsageError("--memory does not go with --finetune, which removes all memories")
        if self.hold and not self.full:
            raise UsageError("--hold goes with --full")
        if self.placebo and not self.full:
            raise UsageError("--placebo goes with --full")
        if self.screen and not self.full:
            raise UsageError("--screen goes with --full")
        if self.resume and not self.full:
            raise UsageError("--resume goes with --full: without it, what is scored is not due")

    def check_one(self) -> None:
        """Refuse options that do not go together for one conversation.

        Raises:
            UsageError: names them.
        """
        if self.max_tokens is not None and self.command != "score" and not self.screen:
            raise UsageError(
                "--max-tokens goes with score alone or --full --screen, not with --full or "
                "--finetune by themselves"
            )

    def check_pass(self) -> None:
        """Refuse options that do not go with several conversations.

        Raises:
            UsageError: names them.
        """
        check_memories(self.memories, self.memories_anywhere)
        if self.select is not None:
            raise UsageError("--select goes with one file")
        if self.placebo:
            raise UsageError("--placebo goes with one conversation: choose it with --select")


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(PlanOptions):
    """The options of ``plan``."""

    measure: Annotated[
        bool, Option("--measure", help="Load the model and time one short prompt.")
    ] = False
    price: Annotated[
        float | None,
        Option("--price", min=0, metavar="MONEY", help="Price of a million tokens sent."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions(ConversationOptions):
    """The options of ``run``."""

    command: Annotated[
        str, Argument(metavar="COMMAND", help="A command that an installed plugin answers.")
    ]
    transcript: TranscriptFile
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(PlanOptions):
    """The options of ``score``."""

    no_self_test: Annotated[
        bool, Option("--no-self-test", help="Do not test the server before scoring.")
    ] = False
    html: Annotated[
        Path | None,
        Option("--html", metavar="FILE", help="Also write the findings to one HTML file."),
    ] = None
    engine: Annotated[
        Engine, Option("--engine", help="What runs a pass over an archive; ray: several machines.")
    ] = Engine.ASYNCIO


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ConfigOptions):
    """The options of ``serve``."""

    host: Annotated[
        str, Option("--host", help="Address to listen on; any but loopback needs a key.")
    ] = "127.0.0.1"
    port: Port = 8017
    queue: Annotated[int, Option("--queue", min=1, help="Requests that may wait.")] = 64
    train: Annotated[
        bool, Option("--train", help="Also train adapters of the model, at /v1/train.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ReviewOptions(ConversationOptions):
    """The options of ``review``."""

    transcript: Annotated[
        Path | None,
        Argument(metavar="[TRANSCRIPT]", help="A file with a conversation to score on the page."),
    ] = None
    port: Port = 0


@dataclass(frozen=True, kw_only=True)
class ShowOptions(ConversationOptions):
    """The options of ``show``."""

    conversation: Annotated[
        str | None,
        Argument(
            metavar="[TRANSCRIPT|CONVERSATION-ID]",
            help="A file with the conversation, or its id as show lists it.",
        ),
    ] = None
    model: Annotated[
        str | None, Option("--model", metavar="NAME", help="Only what this model has found.")
    ] = None
    html: Annotated[
        Path | None,
        Option("--html", metavar="FILE", help="Also write what is kept to one HTML file."),
    ] = None
    json: Json = False
