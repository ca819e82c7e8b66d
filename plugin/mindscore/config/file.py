"""Read the configuration from a file, ``--set`` and the environment."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import msgspec

from mindscore._util.errors import ConfigError
from mindscore._util.text import harmless_toml, shortened
from mindscore.config.settings import ServerSettings, Settings, parse_settings, without_password

ENVIRONMENT = "MINDSCORE_CONFIG"

MAX_LEVELS = 50
"""Most levels of tables and arrays: checking and printing settings recurses once a level."""

_TOO_DEEP = f"more than {MAX_LEVELS} levels of tables and arrays"
_ERROR_CHARACTERS = 300
_KEY_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Configuration:
    """The parsed TOML as a registry takes it, the checked settings, and the file."""

    tables: Mapping[str, Any]
    settings: Settings
    file: Path | None


def user_config_file() -> Path:
    """Return the file in the user's configuration folder; it may not exist."""
    import platformdirs

    return platformdirs.user_config_path("mindscore") / "config.toml"


def named_config_file(given: Path | None) -> Path:
    """Return ``given``, else ``$MINDSCORE_CONFIG``, else the user's own file; it may not exist.

    Never a file in the current folder: a file in a cloned repository must not be able to send a
    conversation elsewhere.
    """
    return _named(given) or user_config_file()


def _named(given: Path | None) -> Path | None:
    """Return the file that somebody named, which must exist."""
    named = given or os.environ.get(ENVIRONMENT)
    return Path(named) if named else None


MAX_FILE_BYTES = 2**20
"""Size of a configuration file."""


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
        raise ConfigError(f"{file}: {_short(error)}") from None
    for assignment in assignments:
        tables = merge(tables, _assigned(assignment))
        settings = parse_settings(tables)
    return Configuration(tables, settings, file)


def dump(settings: Settings, others: Mapping[str, Any] = {}) -> str:
    """Return the settings as TOML, every key written out, without the password of the store.

    ``others`` are the tables ``[server.NAME]``, which are written as they are.
    """
    import tomli_w

    # TOML has dates and times of its own.
    tables = msgspec.to_builtins(settings, builtin_types=(date, datetime, time))
    tables["store"]["url"] = without_password(tables["store"]["url"])
    tables["server"].update(others)
    return harmless_toml(tomli_w.dumps(tables))


def read_api_key(server: ServerSettings) -> str | None:
    """Return the bearer key from the file or the environment variable that ``[server]`` names.

    Raises:
        ConfigError: the file cannot be read, or others than its owner can read or change it, or
            a header cannot carry the key. The key itself is never part of the text.
    """
    if server.api_key_file:
        return read_key_file(Path(server.api_key_file), "server.api_key_file")
    key = os.environ.get(server.api_key_env, "").strip() if server.api_key_env else ""
    return _checked_key(key, f"environment variable {server.api_key_env}") or None


def read_key_file(file: Path, named_by: str) -> str:
    """Return the key in a file; ``named_by`` is the setting or option that names it.

    Raises:
        ConfigError: as ``read_api_key``.
    """
    source = f"{named_by}: {file}"
    key, wrong = "", "is empty"
    try:
        key = _read_private(file, source).strip()
    except (OSError, ValueError) as error:
        wrong = f"cannot be read: {_reason(error)}"
    if not key:
        # Outside, so that it has no context: a decoding error holds the file's bytes.
        raise ConfigError(f"{source}: {wrong}")
    return _checked_key(key, source)


def _checked_key(key: str, source: str) -> str:
    if not (key.isascii() and (key.isprintable() or not key)):
        raise ConfigError(f"{source}: holds a key with characters that no header can carry")
    return key


def _read_private(file: Path, source: str) -> str:
    with file.open(encoding="utf-8") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        # Outside of POSIX, the mode does not tell who can read it.
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(
                f"{source}: others than its owner can read or change it (mode {mode & 0o777:03o}): "
                f"chmod 600 {shlex.quote(str(file))}"
            )
        return opened.read()


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ValueError(f"it is over {MAX_FILE_BYTES >> 20} MiB, which no configuration is")
        # Some editors begin a file with a byte order mark.
        text = raw.decode("utf-8-sig")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {_reason(error)}") from None
    try:
        return _parse(text)
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {_short(error)}") from None


def _parse(text: str) -> dict[str, Any]:
    """Return ``text`` as TOML in which no number and no nesting can fail later.

    Raises:
        ValueError: says why it is refused.
    """
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(tables)
    return tables


def _check(value: Any, name: str = "", level: int = 0) -> None:
    if level > MAX_LEVELS:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}: an integer outside 64 bits")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(inner, f"{name}.{key}".lstrip("."), level + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, name, level + 1)


def _short(error: Exception) -> str:
    return shortened(str(error), _ERROR_CHARACTERS, tail=_ERROR_CHARACTERS // 3)


def _reason(error: OSError | RuntimeError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _assigned(assignment: str) -> dict[str, Any]:
    """Return the tables that ``a.b=value`` sets; the value is TOML if that fits, else text."""
    key, sign, text = assignment.partition("=")
    path = _key_path(key.strip())
    # Errors name the key alone: the value may be a secret that went to the wrong place.
    shown = shortened(key.strip(), _KEY_CHARACTERS)
    if not sign or not path:
        raise ConfigError(f"--set {shown}: expected KEY=VALUE, such as memory.interval_s=0")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"--set {shown}: the value is not UTF-8")
    try:
        parsed = _parse(f"value = {text}")
    except ValueError:
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
    raise ConfigError(f"--set {shown}: {_short(errors[0])}")


def _key_path(key: str) -> list[str]:
    """Return the parts of a dotted TOML key, or an empty list if it is not one."""
    if key.startswith("[") or not key.isprintable():
        return []
    try:
        rest: Any = _parse(f"{key} = 0")
    except ValueError:
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
    """Return the tables ``under`` with the values of ``over`` put in, table by table."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged
