"""The checks that this vLLM asked for the plugin, and is one that the plugin knows."""

from __future__ import annotations

import logging
import os
import re

NAME = "mindscore"
"""What VLLM_PLUGINS names, and both entry points."""

KNOWN = ("0.32", "0.33")

# Below vLLM's own logger, whose handler prints it with the server's lines.
logger = logging.getLogger("vllm.mindscore")


def is_named() -> bool:
    """Return whether VLLM_PLUGINS names this plugin; where it is unset, vLLM loads all."""
    return NAME in os.environ.get("VLLM_PLUGINS", "").split(",")


def vllm_version() -> str:
    """Return the version of the vLLM of this process, ``unknown`` where it does not say."""
    import vllm

    return str(getattr(vllm, "__version__", "unknown"))


def unknown_version(version: str) -> str | None:
    """Return why a vLLM of this version is refused; ``None`` for a known one."""
    release = re.match(r"(\d+\.\d+)(?!\d)", version)
    if release is not None and release[1] in KNOWN:
        return None
    return (
        f"mindscore's plugin works with vLLM {' and '.join(KNOWN)}, and this is vLLM {version}: "
        "/v1/score is refused, and nothing of vLLM is changed. Update mindscore, or score through "
        "vLLM's own endpoints (server.scorer = 'vllm')"
    )
