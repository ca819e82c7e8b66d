"""Facts about a model that its files tell, without loading it and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Formats by their names in a safetensors header; those of quantised weights are not converted."""

_MOST_HEADER_BYTES = 100_000_000
"""As the safetensors library."""


class ModelFiles:
    """The files in a model's folder; what they do not tell is guessed, never an error."""

    def __init__(self, location: str) -> None:
        self._folder = Path(location)

    @cached_property
    def dtype(self) -> str:
        """The number format that the model is meant to run in."""
        declared = self._config.get("dtype") or self._config.get("torch_dtype")
        stored = [dtype for dtype, _ in self._tensors]
        found = declared if isinstance(declared, str) else max(stored, key=stored.count, default="")
        return found.removeprefix("torch.") or "float32"

    @property
    def keeps_prefixes(self) -> bool:
        """Return whether each layer looks at all tokens, so that any prefix of its state is one."""
        types = self._config.get("layer_types")
        if isinstance(types, list):
            return all(it == "full_attention" for it in types)
        return not (
            self._config.get("sliding_window") and self._config.get("use_sliding_window", True)
        )

    def nbytes(self, dtype: str) -> int:
        """Return the memory of the weights, once they are converted to ``dtype``."""
        return sum(
            size * _BYTES[dtype] // _BYTES[stored] if stored in _BYTES else size
            for stored, size in self._tensors
        )

    @cached_property
    def _config(self) -> dict[str, Any]:
        """The language model's part of the configuration, before what holds for all parts."""
        found: Any = {}
        with suppress(OSError, ValueError):
            found = json.loads((self._folder / "config.json").read_bytes())
        if not isinstance(found, dict):
            return {}
        part = found.get("text_config")
        return found | part if isinstance(part, dict) else found

    @cached_property
    def _tensors(self) -> list[tuple[str, int]]:
        """The format and the bytes of each tensor."""
        return [it for file in sorted(self._folder.glob("*.safetensors")) for it in _headed(file)]


def _headed(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the format and the bytes of each tensor, from the header of a safetensors file."""
    tensors: Any = {}
    with suppress(OSError, ValueError), file.open("rb") as opened:
        length = min(int.from_bytes(opened.read(8), "little"), _MOST_HEADER_BYTES)
        tensors = json.loads(opened.read(length))
    for name, tensor in tensors.items() if isinstance(tensors, dict) else ():
        with suppress(KeyError, TypeError, ValueError):
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                yield _STORED.get(tensor["dtype"], tensor["dtype"]), end - start
