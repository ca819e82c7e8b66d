"""A file of samples, and beside it one that says where each line comes from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from mindhooks import TrainingSample
from mindscore.fingerprint import response_hash
from mindscore.private_files import keep_names
from mindscore.sinks.formats import FORMATS
from mindscore.text import harmless_json


def write_samples(file: Path, samples: Sequence[TrainingSample], format_: str) -> None:
    """Write ``samples`` to ``file``, a line each, and their provenance beside it.

    Each of the two is written whole or not at all, for its owner alone; ``file`` comes last.

    Raises:
        NotAccepted: a sample cannot be written in this format; nothing is written.
        OSError: a file cannot be written.
    """
    line = FORMATS[format_].line
    lines = b"".join(_json(line(sample)) for sample in samples)
    provenance = {
        "mindscore": version("mindscore"),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "format": format_,
        "lines": [_origin(sample) for sample in samples],
    }
    _write({provenance_file(file): _json(provenance), file: lines})


def provenance_file(file: Path) -> Path:
    """Where the provenance of what is in ``file`` goes; no pattern ``*.jsonl`` matches it."""
    return file.with_name(f"{file.name.removesuffix('.jsonl')}.provenance.json")


def _origin(sample: TrainingSample) -> dict[str, Any]:
    response = sample.candidate
    return {
        "namespace": sample.namespace,
        "model": sample.model,
        "timestamp_ns": response.timestamp_ns,
        "hash": response_hash(response.continuation_ids),
        "node_id": response.node_id,
        "entry_idx": response.entry_idx,
        "divergence": response.divergence,
        "noise": response.noise,
        "decision": sample.decision,
        "answer": sample.answer,
        "context": sample.context,
    }


def _json(document: Any) -> bytes:
    return harmless_json(msgspec.json.encode(document)) + b"\n"


def _write(contents: Mapping[Path, bytes]) -> None:
    """Write files of one folder so that they are there, whole, even after a loss of power."""
    unfinished: dict[Path, Path] = {}
    try:
        for file, content in contents.items():
            opened, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
            unfinished[file] = Path(name)
            with os.fdopen(opened, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for file, there in unfinished.items():
            there.replace(file)
    finally:
        for there in unfinished.values():
            with suppress(OSError):
                there.unlink()
    keep_names(file.parent)
