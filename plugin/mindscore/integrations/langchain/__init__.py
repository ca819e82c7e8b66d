"""LangChain: its middleware, and the reader of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindscore.integrations.langchain.handler import MindMiddleware

__all__ = ["MindMiddleware"]


def __getattr__(name: str) -> Any:
    # LangChain is slow to import, and may not be installed.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mindscore.integrations.langchain.handler import MindMiddleware

    return MindMiddleware
