"""The trainings of a server: a folder each, kept over its end."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from mindscore._util.errors import format_error
from mindscore._util.files import write_whole
from mindscore._util.text import printable
from mindscore.training.lora.job import ADAPTER, JOB, Job

log = logging.getLogger("mindscore.serve")

STATE = "state.json"
ACTIVE = "active"
"""Beside the trainings' folders: the id of the one whose adapter the model has."""

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

    def begin_anew(self) -> None:
        """Have it wait for its turn, as it did at first."""
        self.status, self.error = "queued", None
        self.epoch, self.loss, self.seconds = 0, None, 0.0


class TrainingFolder:
    """Where trainings are kept; blocking, and private."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, training: Training, job: Job) -> None:
        """Keep a new training, whole or not at all, and even after a loss of power.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(self.of(training) / JOB, msgspec.json.encode(job))
        self.update(training)

    def update(self, training: Training) -> None:
        """Keep how it stands now, as durably.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(self.of(training) / STATE, msgspec.json.encode(training))

    def job(self, training: Training) -> Job:
        """What is to be trained.

        Raises:
            OSError, msgspec.DecodeError: it is no longer there.
        """
        return msgspec.json.decode((self.of(training) / JOB).read_bytes(), type=Job)

    def read(self) -> Sequence[Training]:
        """All trainings, oldest first; of one that cannot be read, the log says where it is."""
        read = []
        # One without was not kept whole: it was never answered either.
        for file in self.folder.glob(f"*/{STATE}"):
            try:
                read.append(msgspec.json.decode(file.read_bytes(), type=Training))
            except (OSError, msgspec.DecodeError) as error:
                where = printable(str(file.parent))
                log.error("%s cannot be read (%s): move it away", where, format_error(error))
        return sorted(read, key=lambda it: it.created)

    def clear(self, training: Training) -> None:
        """Remove what a training process has left that did not come to its end.

        Raises:
            OSError: it cannot be removed.
        """
        for each in self.of(training).glob(f"{ADAPTER}*"):
            shutil.rmtree(each)

    def remove(self, training: Training) -> None:
        """Remove a training and what came of it.

        Raises:
            OSError: some of it is still there, and it still counts.
        """
        folder = self.of(training)
        if not folder.exists():
            return
        self.clear(training)
        for each in folder.iterdir():
            if each.name != STATE:
                each.unlink()
        shutil.rmtree(folder)

    def active(self) -> str | None:
        """The id of the training whose adapter the model had last; ``None``: none.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return (self.folder / ACTIVE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def keep_active(self, job_id: str | None) -> None:
        """Keep whose adapter the model has, for the next start.

        Raises:
            OSError: it cannot be written.
        """
        if job_id is None:
            (self.folder / ACTIVE).unlink(missing_ok=True)
        else:
            write_whole(self.folder / ACTIVE, job_id.encode())

    def of(self, training: Training) -> Path:
        """Its own folder."""
        return self.folder / training.job_id

    def adapter(self, training: Training) -> Path:
        """The adapter that has come, or is to come, of it."""
        return self.of(training) / ADAPTER
