"""The ``jsonl`` sink: files that trainers load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindhooks import NotAccepted, TrainingSample, in_thread
from mindscore.config import TrainSettings, parse_table
from mindscore.private_files import make_folder
from mindscore.sinks.files import write_samples
from mindscore.sinks.formats import FORMATS


class JsonlSink:
    """Each hand-off is one file in ``train.folder``, named by its key, and one of its provenance.

    So what comes again under the same key is there once.

    Raises:
        ConfigError: ``[train]`` is wrong.
    """

    def __init__(self, train: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        del server
        settings = parse_table(train, TrainSettings, "train")
        self._format = settings.format
        self._folder = Path(settings.folder).expanduser() if settings.folder else _users_own()
        self.wants_text = FORMATS[self._format].wants_text
        self.wants_rejected = FORMATS[self._format].wants_rejected
        self.destination = f"{self._folder} ({self._format})"

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        """Write the file of ``key``, unless it is there; its name.

        Raises:
            NotAccepted: it cannot be written.
            OSError: it is written, but may not outlast a loss of power.
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
        """Nothing to let go of."""


def _users_own() -> Path:
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "training"
