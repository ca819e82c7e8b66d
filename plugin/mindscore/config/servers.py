"""Another model beside the one of ``[server]``: a named table, an adapter, or a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import ScorerError
from mindscore._util.files import named_path
from mindscore.config.settings import ServerSettings, named_servers

ADAPTER_FILE = "adapter_config.json"
"""A folder with this file is an adapter, in PEFT's format."""


def other_server(server: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the table ``[server]`` of another model.

    ``name`` is tried as the name of a table ``[server.NAME]``, whose keys go over those of
    ``server``; as the folder of an adapter for the same model, written as a path; else it is a
    model, as ``server.model`` takes it. That one has no adapter, and a tokenizer of its own.
    """
    others = named_servers(server)
    table = {key: value for key, value in server.items() if key not in others}
    if name in others:
        return {**table, **others[name]}
    folder = named_path(name)
    if folder is not None and (folder / ADAPTER_FILE).is_file():
        return {**table, "adapter": str(folder)}
    return {**table, "model": name, "adapter": "", "tokenizer": ""}


def require_adapter(loaded: str | None, table: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Refuse another model that was loaded without its adapter: it is the first model again.

    ``loaded`` is the adapter that its scorer has; ``table`` and ``first`` are both ``[server]``.

    Raises:
        ScorerError: the scorer loads none.
    """
    adapter, name = table.get("adapter"), table.get("scorer", ServerSettings().scorer)
    if adapter and adapter != first.get("adapter") and loaded is None:
        raise ScorerError(
            f"server.scorer = {name!r} loads no adapter, and {adapter} would be left out: have its "
            "server serve it as a model, and name that"
        )
