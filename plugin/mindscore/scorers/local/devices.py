"""Devices and number formats that the local scorer can compute with, and their free memory.

Torch is imported only where the machine may have an accelerator: it takes seconds.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mindhooks import ScorerError
from mindscore.scorers.local.model_files import ModelFiles

CPU = "cpu"

_RESERVE_BYTES = 2**30
"""Memory beside the weights that a device must have for a chunk of tokens."""

_DRIVERS = ("/dev/nvidia*", "/dev/dxg", "/dev/kfd", "/dev/dri")
"""Device files of accelerators on Linux: NVIDIA's, the same under WSL, AMD's and Intel's."""

_CHUNK_TOKENS = {"cuda": 4096}
"""Where more tokens at once are faster."""

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Compute:
    """The device, by torch's name for it, and the number format of the weights on it.

    ``device`` without a number is any of its kind, or several. ``hardware`` is the product's name.
    ``dtype`` is ``"auto"`` as long as it is not known.
    """

    device: str
    dtype: str
    hardware: str = ""

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    @property
    def is_exact(self) -> bool:
        """True if rounding is far below what a response's words make of a difference."""
        return self.dtype == "float32"

    def chunk_tokens(self, default: int) -> int:
        """Return how many tokens keep the device busy at once."""
        return _CHUNK_TOKENS.get(self.kind, default)

    def __str__(self) -> str:
        return f"{self.kind}{f' ({self.hardware})' if self.hardware else ''}, {self.dtype}"


def choose(device: str, dtype: str, files: Callable[[], ModelFiles | None]) -> Compute:
    """Return what to compute with, for ``server.device`` and ``server.dtype``.

    The format ``"auto"`` is float32 on a CPU. On an accelerator it is the model's own, but
    float32 instead of float64, and of what the device is not made for; unknown if ``files()`` are.

    Raises:
        ScorerError: the device is not there.
    """
    name, hardware = _find(device)
    if dtype == "auto":
        dtype = "float32" if name == CPU else _own_format(name, files())
    return Compute(name, dtype, hardware)


@cache
def _find(device: str) -> tuple[str, str]:
    """Return torch's name of ``server.device``, and the hardware's name."""
    if device == CPU or (device == "auto" and not _may_accelerate()):
        return CPU, ""
    import torch

    names = _accelerators()
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in names))
    if device == "auto":
        device = next(iter(kinds), CPU)
    if device == CPU:
        return CPU, ""
    if device not in (*names, *kinds):
        raise ScorerError(
            f"server.device: there is no {device!r} here; torch {torch.__version__} finds "
            f"{', '.join([*names, CPU])}"
        )
    if device == "mps":
        return device, platform.processor()
    properties = _module(device).get_device_properties(device if ":" in device else f"{device}:0")
    return device, str(properties.name)


def _may_accelerate() -> bool:
    """Return whether torch might find an accelerator, without importing it."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    torch = importlib.util.find_spec("torch")
    version = Path(torch.origin).with_name("version.py") if torch and torch.origin else None
    spec = importlib.util.spec_from_file_location("torch_version", version) if version else None
    if spec is None or spec.loader is None:
        return False
    built = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(built)
    if all(getattr(built, name, None) is None for name in ("cuda", "hip", "xpu")):
        return False
    drivers = [Path(it) for it in _DRIVERS]
    return sys.platform != "linux" or any(any(it.parent.glob(it.name)) for it in drivers)


def _accelerators() -> list[str]:
    """Return the names of all that are there, the best first."""
    import torch

    names = [f"cuda:{it}" for it in range(torch.cuda.device_count())]
    names += ["mps"] * torch.backends.mps.is_available()
    return names + [f"xpu:{it}" for it in range(torch.xpu.device_count())]


def _own_format(device: str, files: ModelFiles | None) -> str:
    """Return the format of a model's weights, or float32 if ``device`` is not made for it."""
    if files is None:
        return "auto"
    if files.dtype == "bfloat16" and not _has_bfloat16(device):
        return "float32"
    return files.dtype if files.dtype in ("float16", "bfloat16") else "float32"


def _has_bfloat16(device: str) -> bool:
    import torch

    if device == "mps":
        return int(platform.mac_ver()[0].partition(".")[0] or 0) >= 14
    # Older cards convert each number, at a fraction of the speed.
    return device.startswith("xpu") or bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _module(device: str) -> Any:
    import torch

    return getattr(torch, device.partition(":")[0])


# -- memory ---------------------------------------------------------------------------------------


def placement(compute: Compute, nbytes: int) -> Mapping[str, Any]:
    """Return transformers' arguments that load ``nbytes`` of weights to the device.

    On one, if one of its kind holds them; else spread over all of its kind, by accelerate.

    Raises:
        ScorerError: they don't fit.
    """
    if compute.kind == CPU:
        return {}
    if compute.kind == "mps":
        return {"device_map": compute.device}
    names = [it for it in _accelerators() if it.startswith(compute.kind)]
    if ":" in compute.device:
        names = [compute.device]
    free = {name: max(0, free_bytes(name) - _RESERVE_BYTES) for name in names}
    fitting = [name for name, room in free.items() if room >= nbytes]
    if fitting:
        return {"device_map": fitting[0]}
    if sum(free.values()) < nbytes:
        raise ScorerError(
            f"server.device: the model's weights take {nbytes / _GIB:.1f} GiB in {compute.dtype}, "
            f"and {', '.join(names)} {'has' if len(names) == 1 else 'have'} "
            f"{sum(free.values()) / _GIB:.1f} GiB free for them: choose another server.device, "
            "such as 'cpu', a smaller server.model, or free its memory"
        )
    # Without an entry for the CPU or the disk, nothing is put there, which would take hours.
    memory = {int(name.partition(":")[2]): room for name, room in free.items()}
    return {"device_map": "auto", "max_memory": memory}


def free_bytes(device: str) -> int:
    """Return the free memory of an accelerator."""
    module = _module(device)
    if device.startswith("mps"):
        # Torch 2.4 does not tell.
        most = getattr(module, "recommended_max_memory", lambda: 4 * _GIB)()
        return max(0, int(most - module.driver_allocated_memory()))
    return int(module.mem_get_info(device)[0])


def cache_bytes(cache_mb: int | Literal["auto"], devices: Sequence[str]) -> int:
    """Return what KV caches may take, which lie on ``devices``, about the same share on each."""
    if cache_mb != "auto":
        return cache_mb * 2**20
    if devices == [CPU]:
        return 1024 * 2**20
    # The other half is for what is computed.
    return len(devices) * min(free_bytes(it) for it in devices) // 2


def release(device: str) -> None:
    """Give memory that torch keeps for itself back to the device."""
    if not device.startswith(CPU):
        _module(device).empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ``error``, of torch, says that memory ran out."""
    # Torch has a class of its own for accelerators alone, and not for each library that they use.
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(it in said for it in ("out of memory", "can't allocate memory", "alloc_failed"))
    )
