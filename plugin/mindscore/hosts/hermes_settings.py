"""What the plugin in Hermes goes by: mindscore's own configuration, read when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from mindscore.config import Settings, parse_table
from mindscore.config_file import load_configuration, merge

NAMESPACE = "hermes"
TABLE = "plugins.settings.hermes"


class HermesOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.hermes]``.

    ``idle_s``: after so many seconds without a turn, what waits is scored; 0: never by itself.
    """

    idle_s: Annotated[float, Meta(ge=0, le=1e9)] = 60.0


@dataclass(frozen=True, slots=True)
class HermesSettings:
    """The tables for a registry, the same checked, the plugin's own, and the file."""

    tables: Mapping[str, Any]
    settings: Settings
    options: HermesOptions
    file: Path | None


def load_settings() -> HermesSettings:
    """The user's configuration, with the namespace ``hermes`` unless it names one.

    Raises:
        ConfigError: it is wrong.
    """
    found = load_configuration(None)
    given = found.settings.plugins.settings.get("hermes", {})
    options = parse_table(given, HermesOptions, TABLE)
    if "namespace" in found.tables.get("store", {}):
        return HermesSettings(found.tables, found.settings, options, found.file)
    tables = merge(found.tables, {"store": {"namespace": NAMESPACE}})
    return HermesSettings(tables, parse_table(tables, Settings, ""), options, found.file)
