"""The configuration's types and rules (the TOML tables, one struct each)."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import asdict, force_setattr

from mindscore._util.errors import ConfigError
from mindscore.config.errors import explain

T = TypeVar("T")

SQLITE = "sqlite:///"
POSTGRESQL = "postgresql+psycopg://"

# msgspec lets infinity pass a lower bound alone.
_FINITE = 1e300
Positive = Annotated[float, Meta(gt=0, le=_FINITE)]
NonNegative = Annotated[float, Meta(ge=0, le=_FINITE)]
# The event loop's timers and the clock's nanoseconds overflow at much more.
MAX_DURATION_S = 1e9
Duration = Annotated[float, Meta(gt=0, le=MAX_DURATION_S)]
# As mindhooks, which reads it too.
MAX_LISTENER_TIMEOUT_S = 1e6
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]
AbsolutePath = Annotated[str, Meta(pattern=r"^(/|[A-Za-z]:[/\\])")]

TOKEN_ID_LIMIT = 2**31
"""No tokenizer has so large an id."""

TokenId = Annotated[int, Meta(ge=0, lt=TOKEN_ID_LIMIT)]
"""A token id in a transcript, a request or a server's answer."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A TOML table: unknown keys are errors."""


class ServerSettings(_Table, frozen=True):
    """``[server]``: the model that scores, and the way to reach it.

    ``base_urls``: servers of one model, among which a pass over many conversations divides them;
    other commands use the first, unless ``base_url`` names one.
    """

    scorer: Name = "local"
    base_url: str = ""
    base_urls: list[str] = field(default_factory=list)
    model: str = "smollm2"
    adapter: str = ""
    tokenizer: str = ""
    chat_template: Literal["chatml", "auto"] = "auto"
    api_key_env: str = "MINDSCORE_API_KEY"
    api_key_file: str = ""
    timeout_s: Duration = 300.0
    deadline_s: Duration = 900.0
    max_attempts: AtLeastOne = 5
    breaker_failures: AtLeastOne = 3
    max_response_mb: AtLeastOne = 256
    allow_insecure: bool = False
    concurrency: AtLeastOne = 4
    priority: int = 5
    self_test: bool = True
    require_images: bool = False
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    cache_mb: Count | Literal["auto"] = "auto"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.base_urls)) < len(self.base_urls):
            raise ValueError("base_urls: the same address is there twice")
        if self.base_urls and not self.base_url:
            force_setattr(self, "base_url", self.base_urls[0])
        if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", self.device):
            raise ValueError(
                "device: expected 'auto', 'cpu', 'cuda', 'mps' or 'xpu', or one of several, such "
                f"as 'cuda:1', got {self.device!r}"
            )

    @property
    def place(self) -> str:
        """The server's address, or the scorer's name where there is none: speeds are kept by it.

        A third party's scorer may take an address with a password: only a hash of it is returned.
        """
        if not self.base_url:
            return self.scorer
        is_plain = not set("@?#") & set(self.base_url)
        return self.base_url if is_plain else sha256(self.base_url.encode()).hexdigest()


class MemorySettings(_Table, frozen=True):
    """``[memory]``: when a memory is due, and the responses that it is scored by.

    ``screen``: whether the matrix is screened, ``"auto"``: with more than ``screen_from`` memories;
    ``screen_confirm_nats``: the estimate from which on a memory is measured exactly;
    ``screen_sample``: memories that are drawn at random from the others, and measured.
    """

    interval_s: Annotated[float, Meta(ge=0, le=MAX_DURATION_S)] = 3600
    response_window: AtLeastOne = 50
    token_cutoff: Fraction = 0.6
    min_divergence: NonNegative = 0.01
    ewma_alpha: Annotated[float, Meta(gt=0, le=1)] = 0.3
    noise_repeats: Count | Literal["auto"] = "auto"
    screen: Literal["off", "auto", "on"] = "off"
    screen_from: Count = 100
    screen_confirm_nats: Positive = 0.5
    screen_sample: Count = 8

    def screens(self, memories: int) -> bool:
        """Return whether the matrix of so many memories is screened, unless an option says so."""
        return self.screen == "on" or (self.screen == "auto" and memories > self.screen_from)


class FinetuneSettings(_Table, frozen=True):
    """``[finetune]``: the responses that become candidates."""

    threshold: NonNegative = 1.0
    window_fraction: Fraction = 0.5
    prior_messages: Count = 2
    generate_alternates: bool = False
    max_alternate_tokens: AtLeastOne = 256


class StoreSettings(_Table, frozen=True):
    """``[store]``: the database of scores, the agent that they are of, and their retention.

    ``keep_texts``: the texts of memories are kept beside their hashes.
    """

    url: str = ""
    namespace: Name = "default"
    retention_days: NonNegative = 90.0
    keep_texts: bool = True

    def __post_init__(self) -> None:
        if "\0" in self.url:
            shown = without_password(self.url)
            raise ValueError(f"url: a file's name holds no NUL character, got {shown!r}")
        if self.url.startswith(POSTGRESQL):
            address = self.url.removeprefix(POSTGRESQL).partition("?")[0]
            if address.count("@") > 1 or "@" in address.partition("/")[2]:
                # Else a part of the password would be taken for the server's name, and shown.
                raise ValueError("url: in a user's name or password write @ as %40 and / as %2F")
            return
        file = self.url.removeprefix(SQLITE)
        if self.url and (file == self.url or file in ("", ":memory:")):
            raise ValueError(
                f'url: expected "", "sqlite:///FILE" (absolute: four slashes) or '
                f'"{POSTGRESQL}USER@HOST/DATABASE", got {without_password(self.url)!r}'
            )

    def __repr__(self) -> str:
        """Return the settings without the password that the URL may have."""
        values = {**asdict(self), "url": without_password(self.url)}
        return f"StoreSettings({', '.join(f'{name}={it!r}' for name, it in values.items())})"


def without_password(url: str) -> str:
    """Return the URL of a database with ``***`` in the place of its passwords."""
    # To the last @: one that should be %40 is no end.
    hidden = re.sub(r"(?<=://)([^:/?@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)([?&][^=&]*pass[^=&]*)=[^&]*", r"\1=***", hidden)


class TrainSettings(_Table, frozen=True):
    """``[train]``: the destination of accepted candidates, and their form.

    ``context``: the prompt to train on, ``"bare"`` without any memory, so that the model
    internalises them, or ``"full"``. ``guard``: the most, in nats per token, that a training here
    or on ``mindscore serve --train`` may make answers to unrelated things worse, else its adapter
    is not used; 0: by any amount. ``folder`` is for the sinks ``jsonl`` and ``peft``, ``format``
    for ``jsonl``; ``options`` is free-form, for third parties' sinks and ``peft``.
    """

    sink: Name = "http"
    context: Literal["bare", "full"] = "bare"
    guard: NonNegative = 0.05
    folder: str = ""
    format: Literal["input_ids", "prompt_completion", "messages", "preference"] = "input_ids"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Sent again from another folder, it must come to the same place.
        if self.folder and not (self.folder.startswith("~") or Path(self.folder).is_absolute()):
            raise ValueError(f'folder: expected "" or an absolute path, got {self.folder!r}')


class AdviseSettings(_Table, frozen=True):
    """``[advise]``: what a verdict on a memory takes.

    ``confidence``: of intervals and tests; ``min_conversations``: a memory seen in fewer is never
    dropped; ``drop_below_nats``: the most that a dropped memory may help, on average per response;
    ``stake_nats``: one help of this size protects a memory; ``merge_share``: of the responses that
    a memory supports, those for which another must do the same.
    """

    confidence: Annotated[float, Meta(ge=0.5, le=0.999)] = 0.95
    min_conversations: AtLeastOne = 30
    drop_below_nats: Positive = 0.2
    stake_nats: Positive = 3.0
    merge_share: Fraction = 0.5


class RaySettings(_Table, frozen=True):
    """``[ray]``: passes over an archive with ``--engine ray``.

    ``folder``: where conversations wait and findings are gathered; every machine of the cluster has
    it at the same path, or it is a URI that pyarrow can open. Empty: in the user's data folder.
    ``workers``: how many score at the same time; 0: one for each of ``server.base_urls``, or for
    each GPU of the cluster.
    """

    folder: str = ""
    workers: Count = 0

    def __post_init__(self) -> None:
        is_path = self.folder.startswith("~") or Path(self.folder).is_absolute()
        if self.folder and not is_path and "://" not in self.folder:
            raise ValueError(f'folder: expected "", an absolute path or a URI, got {self.folder!r}')


class LiveSettings(_Table, frozen=True):
    """``[live]``: what an agent's plugins do by themselves, after its turns and when it is idle.

    ``candidates``: fine-tuning candidates are looked for, too; ``tokens_per_hour``: the most tokens
    that are sent in any 60 minutes, 0 for any number.
    """

    candidates: bool = False
    tokens_per_hour: Count = 0


class PluginSettings(_Table, frozen=True):
    """``[plugins]``: the plugins that are off, and each one's own table."""

    disabled: list[str] = field(default_factory=list)
    listener_timeout_s: Annotated[float, Meta(gt=0, le=MAX_LISTENER_TIMEOUT_S)] = 30.0
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # msgspec's own error would not name the plugin.
        for name, table in self.settings.items():
            if not isinstance(table, dict):
                raise ValueError(f"settings.{name}: expected a table, got {type(table).__name__}")


class MemoryScoringOptions(_Table, frozen=True):
    """``[plugins.settings.memory-scoring]``.

    ``only``: the keys of the memories to score, empty for all; ``hold``: the matrix has the effect
    of each memory alone, too; ``resume``: rows of the matrix that are in the store are not measured
    again; ``max_tokens``: the most tokens that ``score`` may send, 0 for any number; ``tokens``:
    report the effect on each token of a response, too; ``placebo``: the matrix has a control for
    the place; ``screen``: the matrix is screened, whatever ``memory.screen`` says.
    """

    only: list[str] = field(default_factory=list)
    hold: bool = False
    resume: bool = False
    max_tokens: Count = 0
    tokens: bool = False
    placebo: bool = False
    screen: bool = False


class FinetuneScoringOptions(_Table, frozen=True):
    """``[plugins.settings.finetune-scoring]``, which has no keys."""


class CompareScoringOptions(_Table, frozen=True):
    """``[plugins.settings.compare-scoring]``.

    ``with``: the other model, by the name of a table ``[server.NAME]``, as the folder of an adapter
    or as a model; ``say``: have it say what it would have responded; ``memories``: remove each
    memory under both.
    """

    with_: str = field(default="", name="with")
    say: bool = False
    memories: bool = True


OWN_PLUGINS: dict[str, type[_Table]] = {
    "memory-scoring": MemoryScoringOptions,
    "finetune-scoring": FinetuneScoringOptions,
    "compare-scoring": CompareScoringOptions,
}


class Settings(_Table, frozen=True):
    """The whole configuration, defaults filled in."""

    server: ServerSettings = field(default_factory=ServerSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    advise: AdviseSettings = field(default_factory=AdviseSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    live: LiveSettings = field(default_factory=LiveSettings)
    plugins: PluginSettings = field(default_factory=PluginSettings)


_TABLES: dict[str, type] = {"": Settings, **get_type_hints(Settings)}


# When a struct that holds others is used for the first time, msgspec lets another thread have what
# it knows of it so far, which may end the process.
_converting = threading.Lock()


def parse_settings(tables: Mapping[str, Any]) -> Settings:
    """Return the checked settings of parsed TOML, with every default filled in.

    Raises:
        ConfigError: names the key and what was expected of it.
    """
    settings = parse_table(tables, Settings, "")
    for name, kind in OWN_PLUGINS.items():
        parse_table(settings.plugins.settings.get(name, {}), kind, f"plugins.settings.{name}")
    server = tables.get("server", {})
    for name, over in named_servers(server).items():
        _convert({**_own(server), **over}, ServerSettings, f"server.{name}")
    return settings


def named_servers(server: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the tables ``[server.NAME]`` of the table ``[server]``, by name.

    Each describes another server, by the keys in which it differs: one without any is none.
    """
    own = ServerSettings.__struct_fields__
    return {
        name: table
        for name, table in server.items()
        if table and isinstance(table, Mapping) and name not in own
    }


def _own(server: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table ``[server]`` without those of other servers."""
    others = named_servers(server)
    return {key: value for key, value in server.items() if key not in others}


def parse_table(table: Mapping[str, Any], kind: type[T], name: str) -> T:
    """Return one table as the struct ``kind``; ``name`` is its dotted name, for errors.

    Raises:
        ConfigError: names the key and what was expected of it.
    """
    if kind is ServerSettings:
        table = _own(table)
    elif kind is Settings and isinstance(table.get("server"), Mapping):
        table = {**table, "server": _own(table["server"])}
    return _convert(table, kind, name)


def _convert(table: Mapping[str, Any], kind: type[T], name: str) -> T:
    try:
        with _converting:
            return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), kind, name, _TABLES)) from None
