"""Where the configuration comes from: a file, ``--set`` and the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import msgspec

from mindscore.config import ServerSettings, Settings, parse_settings
from mindscore.errors import ConfigError
from mindscore.text import printable

ENVIRONMENT = "MINDSCORE_CONFIG"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The parsed TOML as a host gives it to its registry, the same checked, and its file."""

    tables: Mapping[str, Any]
    settings: Settings
    file: Path | None


def user_config_file() -> Path:
    """The file in the user's configuration folder, whether it exists or not."""
    import platformdirs

    return platformdirs.user_config_path("mindscore") / "config.toml"


def named_config_file(given: Path | None) -> Path:
    """The file that counts: ``given``, ``$MINDSCORE_CONFIG``, or the user's own; it may not exist.

    Never one in the current folder: a file in a cloned repository must not be able to send a
    conversation elsewhere.
    """
    return _named(given) or user_config_file()


def _named(given: Path | None) -> Path | None:
    """The file that somebody named, and that must therefore be there."""
    named = given or os.environ.get(ENVIRONMENT)
    return Path(named) if named else None


def load_configuration(given: Path | None, assignments: Iterable[str] = ()) -> Configuration:
    """Read the configuration file, if any, and apply ``--set`` assignments (``key=value``).

    Raises:
        ConfigError: names the file or assignment, the key, and what was expected.
    """
    file = _named(given)
    if file is None and (own := user_config_file()).is_file():
        file = own
    tables = _read(file) if file is not None else {}
    try:
        settings = parse_settings(tables)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    for assignment in assignments:
        tables = merge(tables, _assigned(assignment))
        settings = parse_settings(tables)
    return Configuration(tables, settings, file)


def dump(settings: Settings) -> str:
    """The settings as TOML, every key written out."""
    import tomli_w

    # TOML has dates and times of its own.
    return tomli_w.dumps(msgspec.to_builtins(settings, builtin_types=(date, datetime, time)))


def read_api_key(server: ServerSettings) -> str | None:
    """The bearer key from the file or the environment variable that ``[server]`` names.

    Raises:
        ConfigError: the file cannot be read, or the key cannot stand in a header. The key itself
            is never part of the text.
    """
    if server.api_key_file:
        source = f"server.api_key_file: {server.api_key_file}"
        try:
            key = Path(server.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{source}: cannot be read: {_reason(error)}") from None
        if not key:
            raise ConfigError(f"{source}: is empty")
    else:
        source = f"environment variable {server.api_key_env}"
        key = os.environ.get(server.api_key_env, "").strip() if server.api_key_env else ""
    if not (key.isascii() and (key.isprintable() or not key)):
        raise ConfigError(f"{source}: holds a key with characters that no header can carry")
    return key or None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {_reason(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def _reason(error: OSError | UnicodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _assigned(assignment: str) -> dict[str, Any]:
    """The nested tables that ``a.b=value`` stands for; the value is TOML if it fits as such."""
    key, sign, text = assignment.partition("=")
    path = _key_path(key.strip())
    # Errors name the key alone: the value may be a secret that went to the wrong place.
    shown = printable(key.strip())
    if not sign or not path:
        raise ConfigError(f"--set {shown}: expected KEY=VALUE, such as memory.interval_s=0")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    readings: list[Any] = [parsed["value"]] if parsed.keys() == {"value"} else []
    readings.append(text)
    errors = []
    for value in readings:
        tables = _nested(path, value)
        try:
            parse_settings(tables)
        except ConfigError as error:
            errors.append(error)
        else:
            return tables
    raise ConfigError(f"--set {shown}: {errors[0]}")


def _key_path(key: str) -> list[str]:
    """The parts of a dotted TOML key; empty when it is none."""
    if key.startswith("[") or not key.isprintable():
        return []
    try:
        rest: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return []
    path = []
    while isinstance(rest, dict) and len(rest) == 1:
        [(part, rest)] = rest.items()
        path.append(part)
    return path if rest == 0 else []


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    tables: dict[str, Any] = value
    return tables


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The tables ``under`` with the values of ``over`` put in, table by table."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged
