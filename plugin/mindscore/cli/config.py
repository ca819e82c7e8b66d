"""``mindscore config``: the settings and the file they come from."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mindscore._util.text import printable
from mindscore.cli.options import Assignments, ConfigFile

app = typer.Typer(help="Look at the configuration, or start one.")


@app.command()
def init(
    config_file: ConfigFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration file with every default in it."""
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
def show(config_file: ConfigFile = None, assignments: Assignments = None) -> None:
    """Print the settings in force, defaults included, as TOML."""
    from mindscore.config.file import dump, load_configuration

    _say(dump(load_configuration(config_file, assignments or ()).settings).rstrip())


@app.command()
def check(config_file: ConfigFile = None, assignments: Assignments = None) -> None:
    """Say whether the configuration is valid."""
    from mindscore.config.file import load_configuration

    file = load_configuration(config_file, assignments or ()).file
    _say(printable(f"{file}: valid") if file else "no configuration file: the defaults apply")


@app.command()
def path(config_file: ConfigFile = None) -> None:
    """Print the file that is read, or that config init would write."""
    from mindscore.config.file import named_config_file

    _say(printable(str(named_config_file(config_file))))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
