"""Which model is meant, where the store has several."""

from __future__ import annotations

from collections.abc import Collection

from mindhooks import Registry
from mindhooks.testing import StubMind
from mindscore.cli.score import model_name
from mindscore.config_file import Configuration
from mindscore.errors import ConfigError, UsageError


async def configured_model(configuration: Configuration) -> str:
    """What the configured scorer calls its model, as the recorder keeps it."""
    try:
        async with Registry(StubMind(), configuration.tables) as registry:
            return await model_name(registry)
    except ConfigError:
        # A scorer that cannot be built, as one without an address, still has its model's name.
        return configuration.settings.server.model


async def one_model(
    models: Collection[str], asked: str | None, configuration: Configuration, what: str
) -> str | None:
    """The model asked for, the only one there is, or the configured one; ``None`` for none.

    ``what`` is kept of ``models``, for errors.

    Raises:
        UsageError: none of that name is there, or it has to be said which.
    """
    known = sorted(set(models))
    if asked is not None and asked not in known:
        raise UsageError(f"no {what} of model {asked!r} are kept")
    if asked is None and len(known) > 1:
        configured = await configured_model(configuration)
        if configured in known:
            return configured
        raise UsageError(
            f"{what} of several models are kept: choose one of {', '.join(known)} with --model"
        )
    return asked or (known[0] if known else None)
