"""The ``peft`` sink: an adapter that is trained here, for vLLM, or whatever loads PEFT's format."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from mindhooks import NotAccepted, TrainingSample, in_thread
from mindscore._util.errors import ConfigError, TrainError, format_error
from mindscore._util.files import make_folder, write_whole
from mindscore.config.settings import ServerSettings, TrainSettings, parse_table
from mindscore.http.client import SMALL_ANSWER_BYTES, StatusError, WireClient
from mindscore.measure.retry import with_retries
from mindscore.scorers.remote.base import address
from mindscore.training.guard import Guard
from mindscore.training.jobs import TrainingJob
from mindscore.training.lora.job import (
    ADAPTER,
    Job,
    Measures,
    Progress,
    Recipe,
    Sample,
    train_adapter,
)
from mindscore.training.sinks.adapter_folders import STATE, name_of, remove_superseded

LAST = "last"
"""Beside those folders: the name of the one whose adapter was made last."""

NICENESS = 5

log = logging.getLogger("mindscore")


class PeftOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``[train.options]`` of the sink.

    ``model``: the weights to train, as ``server.model`` of the ``local`` scorer; empty: that one.
    ``url``: a vLLM that serves them with ``--enable-lora``, and is to load the adapter; empty: none
    is asked.
    """

    model: str = ""
    url: str = ""


class _VLLMClient(WireClient):
    """Asks a vLLM that may change its adapters while it runs."""

    async def load(self, name: str, folder: Path) -> None:
        """Have the server load an adapter under a name, unless it has it.

        Raises:
            ScorerError: it does not; says why.
        """
        body = msgspec.json.encode({"lora_name": name, "lora_path": str(folder)})
        headers = {"Content-Type": "application/json"}
        path = "/v1/load_lora_adapter"
        try:
            # Its answer is plain text.
            await self._fetch("POST", path, body, headers, SMALL_ANSWER_BYTES)
        except StatusError as error:
            if "already" not in error.said:
                raise TrainError(
                    f"{error}; vLLM needs --enable-lora, a --max-lora-rank of {Recipe().rank} or "
                    "more, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
                ) from None


class PeftSink:
    """Trains each hand-off in a process of its own, from where the last one has ended.

    The adapter comes to a folder in ``train.folder`` that is named by the hand-off's key; a
    repeated hand-off is not trained again. Of each model, the adapter that was made last stays, and
    the one before; of those that have not passed their guard, the last one. ``job`` is the last
    that has ended; ``trained_model`` is ``server.model``, or ``None`` where the options name the
    weights.

    Raises:
        ConfigError: ``[train]`` or ``[server]`` is wrong.
    """

    wants_text = False
    wants_rejected = False
    job: TrainingJob | None = None

    def __init__(self, train: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        settings = parse_table(train, TrainSettings, "train")
        options = parse_table(settings.options, PeftOptions, "train.options")
        served = parse_table(server, ServerSettings, "server")
        self._configured = served.adapter
        self._recipe = Recipe()
        self._limit = settings.guard
        self._model = options.model or served.model
        self.trained_model = None if options.model else served.model
        try:
            self._folder = Path(settings.folder).expanduser() if settings.folder else _users_own()
        except RuntimeError as error:
            raise ConfigError(f"train.folder: {settings.folder!r}: {error}") from None
        self._settings = msgspec.structs.replace(
            served, base_url=address(options.url).root if options.url else ""
        )
        self._client = _VLLMClient(self._settings) if options.url else None
        loads = f", loaded by {self._settings.base_url}" if options.url else ""
        self.destination = f"{self._folder}{loads}"

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        """Train on ``samples``, have vLLM load the adapter, and return its folder.

        Raises:
            NotAccepted: there is no adapter, or it has not passed its guard.
            ScorerError: there is one, and vLLM does not load it: the same key tries again.
        """
        name = name_of(key)
        try:
            with self._lock():
                ended = await in_thread(self._ended_before, name)
                try:
                    self.job = ended or await self._train(samples, name)
                finally:
                    await in_thread(self._remove_superseded)
                adapter = self._folder / name / ADAPTER
                if not await in_thread(adapter.is_dir):
                    # It was removed: those that were made since have gone on from it.
                    return await in_thread(self._last) or str(adapter)
        except (TrainError, OSError) as error:
            raise NotAccepted(format_error(error)) from error
        if (client := self._client) is not None:
            await with_retries(lambda: client.load(name, adapter), self._settings)
        return str(adapter)

    async def _train(self, samples: Sequence[TrainingSample], name: str) -> TrainingJob:
        """Train, and return the job once it has passed its guard.

        Raises:
            TrainError: there is no adapter, or it has not passed.
            OSError: a file cannot be written.
        """
        folder = self._folder / name
        job = Job(
            self._model,
            [Sample(it.context_ids, it.continuation_ids) for it in samples],
            self._recipe,
            start=await in_thread(self._last),
            threads=os.cpu_count() or 1,
            niceness=NICENESS,
        )
        # Of a process that ended before it could say that it was done.
        await in_thread(shutil.rmtree, folder / ADAPTER, True)
        told: list[Progress] = []
        measured: list[Measures] = []
        adapter = await train_adapter(job, folder, told.append, measured.append)
        [losses], last = measured, told[-1]
        ended = TrainingJob(
            job_id=name,
            status="succeeded",
            model=job.model,
            epoch=last.epoch,
            epochs=last.epochs,
            loss=last.loss,
            seconds=last.seconds,
            error=None,
            adapter=str(adapter),
            start=job.start,
            sample_loss=losses.samples,
            guard=Guard.judge(losses.unrelated, losses.base, self._limit),
        )
        self.job = ended
        ended.require_guard()
        await in_thread(self._keep, ended)
        return ended

    def _keep(self, ended: TrainingJob) -> None:
        write_whole(self._folder / ended.job_id / STATE, msgspec.json.encode(ended))
        write_whole(self._folder / LAST, ended.job_id.encode())

    def _ended(self, name: str) -> TrainingJob | None:
        """Return the job of a folder, if it has passed its guard."""
        try:
            kept = (self._folder / name / STATE).read_bytes()
            return msgspec.json.decode(kept, type=TrainingJob)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _ended_before(self, name: str) -> TrainingJob | None:
        """Return what ``_ended`` does, and finish what a process that was killed has left to do."""
        ended = self._ended(name)
        is_there = (self._folder / name / ADAPTER).is_dir()
        if ended is not None and is_there and ended.start == self._last():
            write_whole(self._folder / LAST, name.encode())
        return ended

    def _last(self) -> str:
        """Return the folder of the adapter to go on from, or nothing."""
        ended = self._ended_last()
        is_mine = ended is not None and ended.model == self._model
        return str(ended.adapter) if ended is not None and is_mine else ""

    def _ended_last(self) -> TrainingJob | None:
        try:
            return self._ended((self._folder / LAST).read_text("utf-8", "replace"))
        except FileNotFoundError:
            return None

    def _remove_superseded(self) -> None:
        # The training has succeeded, or has failed for a better reason.
        try:
            last = self._ended_last()
            mine = (str(last.adapter), last.start) if last is not None else ()
            # The configuration may name it from elsewhere, or by a link.
            in_use = {Path(it).expanduser().resolve() for it in (self._configured, *mine) if it}
            remove_superseded(self._folder.resolve(), self._ended, in_use)
        except (OSError, RuntimeError) as error:
            log.warning("old adapters stay in %s: %s", self._folder, format_error(error))

    def _lock(self) -> AbstractContextManager[object]:
        from filelock import FileLock, Timeout

        try:
            make_folder(self._folder)
            return FileLock(self._folder / "lock", thread_local=False).acquire(blocking=False)
        except Timeout:
            raise TrainError(f"another process trains in {self._folder}: try again later") from None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def _users_own() -> Path:
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "peft"
