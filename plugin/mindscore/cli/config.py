"""``mindscore config``: look at the settings, and write a file of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mindscore._util.text import printable
from mindscore.cli.options import ConfigFile, ConfigOptions, takes_options

app = typer.Typer(help="Look at the configuration, or write a first one.")


@app.command()
def init(
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Write this file, not the one that is read."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a configuration file with all defaults."""
    from mindscore._util.errors import ConfigError, UsageError
    from mindscore._util.files import write_whole
    from mindscore.config.file import dump, named_config_file
    from mindscore.config.settings import Settings

    file = named_config_file(config_file)
    if file.exists() and not force:
        raise UsageError(f"{file} is there already; --force replaces it")
    try:
        # Resolved: many keep their configuration elsewhere, and a link here.
        write_whole(file.resolve(), dump(Settings()).encode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from None
    _say(printable(str(file)))


@app.command()
@takes_options
def show(options: ConfigOptions) -> None:
    """Print the settings in force, with defaults, as TOML."""
    from mindscore.config.file import dump
    from mindscore.config.settings import named_servers

    found = options.load()
    _say(dump(found.settings, named_servers(found.tables.get("server", {}))).rstrip())


@app.command()
@takes_options
def check(options: ConfigOptions) -> None:
    """Check the configuration."""
    file = options.load().file
    _say(printable(f"{file}: valid") if file else "no configuration file: the defaults apply")


@app.command()
def path(config_file: ConfigFile = None) -> None:
    """Print the file that is read, or that config init would write."""
    from mindscore.config.file import named_config_file

    _say(printable(str(named_config_file(config_file))))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
