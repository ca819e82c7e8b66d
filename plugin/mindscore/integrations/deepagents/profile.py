"""deepagents' harness profile: gives every deep agent a ``MindMiddleware``, if it is switched on.

An installed package must not spend anybody's time or tokens by itself: it does nothing without
``[plugins.settings.deepagents] enabled = true`` in the user's configuration.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from mindscore._util.errors import format_error

if TYPE_CHECKING:
    from mindscore.integrations.langchain.handler import MindMiddleware
    from mindscore.session.attach import Attached


_log = logging.getLogger("mindscore")

NAME = "deepagents"

# What models call their providers; a profile is for one, there is none for all.
PROVIDERS = (
    "amazon_bedrock", "anthropic", "anthropic_bedrock", "azure", "azure_ai", "azure_openai",
    "baseten", "bedrock", "bedrock_converse", "cohere", "deepseek", "fireworks", "google_genai",
    "google_vertexai", "groq", "huggingface", "ibm", "litellm", "llamacpp", "meta", "mistral",
    "mistralai", "nvidia", "ollama", "openai", "openrouter", "perplexity", "together", "upstage",
    "vllm", "xai",
)  # fmt: skip


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[plugins.settings.deepagents]``.

    ``enabled``: whether agents are scored at all; ``providers``: more of them, as models of your
    own call theirs; ``every_turns`` and ``idle_s`` as ``mindscore.attach`` has them.
    """

    enabled: bool = False
    providers: list[str] = msgspec.field(default_factory=list)
    every_turns: int = 1
    idle_s: float = 60.0


class _Shared:
    """The one middleware of this process: an agent and its subagents share a scorer."""

    def __init__(self, tables: Mapping[str, Any], options: Options) -> None:
        self._tables = tables
        self._options = options
        self._making = threading.Lock()
        self._failed = False
        self.middleware: MindMiddleware | None = None

    def __call__(self) -> list[MindMiddleware]:
        """The middleware for one more agent; none where it cannot be made."""
        with self._making:
            if self.middleware is None and not self._failed:
                try:
                    self._make()
                # The agent is to be built, whatever is wrong here.
                except Exception as error:
                    self._failed = True
                    _log.warning("deep agents are not scored: %s", format_error(error))
            return [] if self.middleware is None else [self.middleware]

    def _make(self) -> None:
        from mindscore.integrations.langchain.handler import MindMiddleware

        self.middleware = MindMiddleware(
            settings=self._tables,
            every_turns=self._options.every_turns,
            idle_s=self._options.idle_s,
        )


_shared: _Shared | None = None


def mind() -> Attached | None:
    """What scores this process's deep agents; ``None`` before the first, or switched off."""
    middleware = _shared.middleware if _shared is not None else None
    return middleware.mind if middleware is not None else None


def register() -> None:
    """Register the profile; called by deepagents when the first agent is built."""
    global _shared
    from mindscore.config.file import load_configuration
    from mindscore.config.settings import parse_table

    try:
        configuration = load_configuration(None)
        table = configuration.settings.plugins.settings.get(NAME, {})
        options = parse_table(table, Options, f"plugins.settings.{NAME}")
    except Exception as error:
        _log.warning("deep agents are not scored: %s", format_error(error))
        return
    if not options.enabled:
        return
    from deepagents import (  # type: ignore[import-not-found, unused-ignore]
        HarnessProfile,
        register_harness_profile,
    )

    _shared = _Shared(configuration.tables, options)
    profile = HarnessProfile(extra_middleware=_shared)
    for provider in dict.fromkeys((*PROVIDERS, *options.providers)):
        register_harness_profile(provider, profile)
