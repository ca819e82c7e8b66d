"""The trainings of a server: a folder each, kept over its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from mindscore.errors import TrainError, reason
from mindscore.lora.job import ADAPTER, JOB, Job
from mindscore.private_files import make_file

STATE = "state.json"

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Training(Struct, kw_only=True):
    """One training, as it stands.

    ``key`` and ``digest`` are of the request that asked for it: its ``Idempotency-Key``, and a hash
    of its samples. ``tokens`` are those to be learnt; ``loss`` is their mean, in nats, in the last
    epoch; ``created`` is in seconds since 1970.
    """

    job_id: str
    status: Status = "queued"
    model: str
    samples: int
    tokens: int
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    seconds: float = 0.0
    error: str | None = None
    created: float
    key: str | None
    digest: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.status not in ("queued", "running")


class TrainingFolder:
    """Where trainings are kept; blocking, and private."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, training: Training, job: Job) -> None:
        """Keep a new training, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        make_file(self.of(training) / JOB)
        (self.of(training) / JOB).write_bytes(msgspec.json.encode(job))
        self.update(training)

    def update(self, training: Training) -> None:
        """Keep how it stands now.

        Raises:
            OSError: it cannot be written.
        """
        file = self.of(training) / STATE
        unfinished = file.with_suffix(".new")
        make_file(unfinished)
        unfinished.write_bytes(msgspec.json.encode(training))
        unfinished.replace(file)

    def job(self, training: Training) -> Job:
        """What is to be trained.

        Raises:
            OSError, msgspec.DecodeError: it is no longer there.
        """
        return msgspec.json.decode((self.of(training) / JOB).read_bytes(), type=Job)

    def read(self) -> Sequence[Training]:
        """All trainings, oldest first.

        Raises:
            TrainError: one of them is no longer what was written.
        """
        # One without was not kept whole: it was never answered either.
        read = [_read(it) for it in self.folder.glob(f"*/{STATE}")]
        return sorted(read, key=lambda it: it.created)

    def of(self, training: Training) -> Path:
        """Its own folder."""
        return self.folder / training.job_id

    def adapter(self, training: Training) -> Path:
        """The adapter that has come, or is to come, of it."""
        return self.of(training) / ADAPTER


def _read(file: Path) -> Training:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Training)
    except (OSError, msgspec.DecodeError) as error:
        raise TrainError(f"{file} cannot be read: {reason(error)}") from error
