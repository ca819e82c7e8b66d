"""A LoRA adapter, read from a folder in PEFT's format: to go on training, or merged to be used."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mindhooks import ScorerError
from mindscore.text import one_line

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def with_adapter(model: Any, folder: str) -> Any:
    """``model``, a transformers model, changed as the adapter in ``folder`` says: a plain model.

    Raises:
        ScorerError: there is none, it is another model's, or PEFT is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Of what peft itself asks of transformers.
            warnings.simplefilter("ignore", FutureWarning)
            return adapted(model, folder, trainable=False).merge_and_unload(safe_merge=True)
    except ImportError as error:
        raise ScorerError(
            f"server.adapter needs peft ({error}); install it with: pip install 'mindscore[train]'"
        ) from error
    # What is wrong in a folder shows itself in any way.
    except Exception as error:
        raise ScorerError(
            f"server.adapter: {folder!r} cannot be used with this model: "
            f"{one_line(str(error) or type(error).__name__, 300)}"
        ) from error


def adapted(model: Any, folder: str, *, trainable: bool) -> Any:
    """``model`` as a PEFT model with the adapter in ``folder``.

    Raises:
        ValueError: there is none, or it is another model's.
        Exception: whatever peft makes of what is wrong in the folder.
    """
    # Looked for here: PEFT would ask the Hugging Face hub, and take a pickle, which can run code.
    for name in (CONFIG, WEIGHTS):
        if not (Path(folder) / name).is_file():
            raise ValueError(f"it is no adapter: it has no {name}")
    import peft
    from safetensors.torch import load_file

    config = peft.PeftConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    found = peft.PeftModel(model, config)
    weights = load_file(Path(folder) / WEIGHTS)
    wanted = peft.get_peft_model_state_dict(found, save_embedding_layers=False)
    # PEFT itself loads what fits, and says nothing of the rest.
    loaded: Any = peft.set_peft_model_state_dict(found, weights)
    if loaded.unexpected_keys or wanted.keys() - weights.keys():
        raise ValueError("its layers are another model's")
    return found
