"""A LoRA adapter, merged into the weights of the local model: what runs is a plain model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mindhooks import ScorerError
from mindscore.text import one_line

FILES = ("adapter_config.json", "adapter_model.safetensors")


def with_adapter(model: Any, folder: str) -> Any:
    """``model``, a transformers model, changed as the adapter in ``folder`` says.

    Raises:
        ScorerError: there is none, it is another model's, or PEFT is not installed.
    """
    # Looked for here: PEFT would ask the Hugging Face hub, and take a pickle, which can run code.
    for name in FILES:
        if not (Path(folder) / name).is_file():
            raise ScorerError(f"server.adapter: {folder!r} is no adapter: it has no {name}")
    try:
        import peft
    except ImportError as error:
        raise ScorerError(
            f"server.adapter needs peft ({error}); install it with: pip install 'mindscore[train]'"
        ) from error
    try:
        with warnings.catch_warnings():
            # Of what peft itself asks of transformers.
            warnings.simplefilter("ignore", FutureWarning)
            adapted: Any = peft.PeftModel.from_pretrained(model, folder)
            return adapted.merge_and_unload(safe_merge=True)
    # What is wrong in a folder shows itself in any way.
    except Exception as error:
        raise ScorerError(
            f"server.adapter: {folder!r} cannot be used with this model: "
            f"{one_line(str(error) or type(error).__name__, 300)}"
        ) from error
