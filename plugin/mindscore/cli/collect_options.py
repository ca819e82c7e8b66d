"""The options of ``collect``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typer import Option

from mindscore.cli.options import ConfigOptions, MemoriesAnywhere, MemoriesFiles, Port


@dataclass(frozen=True, kw_only=True)
class CollectOptions(ConfigOptions):
    """The options of ``collect``."""

    host: Annotated[
        str, Option("--host", help="Address to listen on; any but loopback needs --key-file.")
    ] = "127.0.0.1"
    port: Port = 4318
    key_file: Annotated[
        Path | None,
        Option("--key-file", metavar="FILE", help="File with the key that senders need; mode 600."),
    ] = None
    memories: MemoriesFiles = field(default_factory=list)
    memories_anywhere: MemoriesAnywhere = False
    memory_attribute: Annotated[
        str | None,
        Option("--memory-attribute", metavar="NAME", help="Attribute of spans that has memories."),
    ] = None
    idle_s: Annotated[
        float,
        Option("--idle-s", min=0, max=1e6, help="Score a conversation once idle for so long."),
    ] = 60.0
    queue_mb: Annotated[
        int, Option("--queue-mb", min=1, max=2**20, help="Most MiB of turns that may wait.")
    ] = 256
    once: Annotated[
        bool, Option("--once", help="Score all that waits, listen to nobody, and end.")
    ] = False
