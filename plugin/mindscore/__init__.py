"""Leave-one-out divergence of an agent's memories: the default plugins of ``mindhooks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindscore.measure.leave_one_out import score_memory
    from mindscore.session.attach import attach
    from mindscore.session.notebook import score
    from mindscore.training.outbox import send_to_train

__all__ = ["attach", "score", "score_memory", "send_to_train"]

_HOMES = {
    "attach": "mindscore.session.attach",
    "score": "mindscore.session.notebook",
    "score_memory": "mindscore.measure.leave_one_out",
    "send_to_train": "mindscore.training.outbox",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mindscore")
    # On first use: sending needs aiohttp and the store, which are slow to import.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
