"""What a run was, and what it cost."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from statistics import median

from mindscore.cli.result import Result
from mindscore.config import ServerSettings, Settings


def facts(result: Result, settings: Settings) -> list[tuple[str, str]]:
    """Names and values, in the order in which they are shown."""
    found = [
        ("Command", result.command),
        ("Transcript", result.transcript.file.name),
        ("Model", result.model),
        ("Server", _server(settings.server)),
    ]
    if stats := result.stats:
        computed = stats.computed_tokens
        found += [
            ("Calls", f"{stats.calls:,}"),
            ("Tokens sent", f"{stats.prompt_tokens:,}"),
            ("Tokens computed", "the server does not say" if computed is None else f"{computed:,}"),
            ("Time", f"{stats.seconds:,.1f} s"),
        ]
    found += [
        ("Noise", _noise(result)),
        ("Date", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M UTC%z")),
        ("mindscore", version("mindscore")),
    ]
    return found


def _server(server: ServerSettings) -> str:
    if not server.base_url:
        return server.scorer
    # Ours take none with user, password or query; another's may.
    is_plain = not set("@?#") & set(server.base_url)
    return f"{server.scorer}, {server.base_url if is_plain else 'at an address with a secret'}"


def _noise(result: Result) -> str:
    spreads = {
        cell.node_id: cell.noise
        for score in result.scores.values()
        for cell in score.divergences
        if cell.noise is not None and cell.signed != 0
    }
    known = [*spreads.values(), *(it.noise for it in result.candidates if it.noise is not None)]
    if not known:
        return "not measured"
    return f"{median(known):.2f} nats (median of {len(known)} responses; largest {max(known):.2f})"
