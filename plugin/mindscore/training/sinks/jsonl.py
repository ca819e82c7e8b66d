"""The ``jsonl`` sink: files for trainers to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from mindhooks import NotAccepted, TrainingSample, in_thread
from mindscore._util.errors import ConfigError
from mindscore._util.files import make_folder, write_files
from mindscore._util.text import harmless_json
from mindscore.config.settings import TrainSettings, parse_table
from mindscore.measure.prompts import response_hash
from mindscore.training.sinks.formats import FORMATS


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
    write_files({provenance_file(file): _json(provenance), file: lines})


def provenance_file(file: Path) -> Path:
    """Return the path of the provenance of ``file``, which no pattern ``*.jsonl`` matches."""
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


class JsonlSink:
    """A sink that writes each hand-off to a file in ``train.folder``, named by its key.

    A second file has the provenance. A hand-off that is repeated under its key is there once.

    Raises:
        ConfigError: ``[train]`` is wrong.
    """

    def __init__(self, train: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        del server
        settings = parse_table(train, TrainSettings, "train")
        self._format = settings.format
        try:
            self._folder = Path(settings.folder).expanduser() if settings.folder else _users_own()
        except RuntimeError as error:
            raise ConfigError(f"train.folder: {settings.folder!r}: {error}") from None
        self.wants_text = FORMATS[self._format].wants_text
        self.wants_rejected = FORMATS[self._format].wants_rejected
        self.destination = f"{self._folder} ({self._format})"

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        """Write the file of ``key``, unless it is there, and return its path.

        Raises:
            NotAccepted: it cannot be written.
            OSError: it is written, but may not survive a loss of power.
        """
        return await in_thread(self._write, samples, key)

    def _write(self, samples: Sequence[TrainingSample], key: str) -> str:
        file = self._folder / f"mindscore-{key}.jsonl"
        try:
            if not file.exists():
                make_folder(self._folder)
                write_samples(file, samples, self._format)
        except OSError as error:
            if file.exists():
                raise
            raise NotAccepted(f"{file}: cannot be written: {error.strerror or error}") from error
        return str(file)

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""


def _users_own() -> Path:
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "training"
