"""Handing samples to a sink, each response once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mindhooks import NotAccepted, TrainingSample, TrainingSink, UnknownSink, load_sink
from mindscore._util.errors import ConfigError, StoreError, TrainError, format_error
from mindscore.config.settings import Settings, parse_settings
from mindscore.store import Send, Sends, Store
from mindscore.training.texts import Texts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sink has accepted: under which key, as which job, how many responses and tokens."""

    key: str
    job_id: str
    responses: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Division:
    """Samples divided into those to be sent, and how many are not, by why.

    ``had``: the sink has them; ``unknown``: it may have them; ``without_other``: it wants another
    answer beside the one to train on, and there is none.
    """

    samples: tuple[TrainingSample, ...]
    had: int
    unknown: int
    without_other: int


@asynccontextmanager
async def open_outbox(tables: Mapping[str, Any]) -> AsyncIterator[Outbox]:
    """The hand-off to the sink that the settings name; ``tables`` is the whole parsed TOML.

    Raises:
        ConfigError: the settings are wrong, or name no sink that is installed.
        SinkError: the sink cannot be built.
    """
    settings = parse_settings(tables)
    train, server = tables.get("train", {}), tables.get("server", {})
    try:
        sink = await load_sink(settings.train.sink, train, server)
    except UnknownSink as error:
        raise ConfigError(str(error)) from None
    texts = Texts(tables)
    try:
        yield Outbox(sink, settings, texts)
    finally:
        await texts.aclose()
        try:
            await sink.aclose()
        # What it accepted is marked: that it does not close well changes nothing.
        except Exception as error:
            logger.warning("sink %s: aclose: %s", settings.train.sink, format_error(error))


class Outbox:
    """Hands samples over, and keeps what became of each.

    Every method may raise ``StoreError``: the marks cannot be read, or not written.
    """

    def __init__(self, sink: TrainingSink, settings: Settings, texts: Texts) -> None:
        self._sink = sink
        self._texts = texts
        self._store = Store(settings.store)
        self._sends = Sends(settings.store)
        self.name = settings.train.sink
        self.destination = sink.destination

    @property
    def inexact(self) -> int:
        """How many of the texts that were made do not give the very ids back."""
        return self._texts.inexact

    async def unknown(self, samples: Sequence[TrainingSample] | None = None) -> list[Send]:
        """What the sink may have accepted, or as much of it as holds any of ``samples``."""
        if samples is None:
            return await self._sends.unknown(self.name)
        return await self._sends.covering(samples, self.name)

    async def divide(self, samples: Sequence[TrainingSample]) -> Division:
        """Which of ``samples`` would be sent."""
        fit = [it for it in samples if it.rejected_ids is not None or not self._sink.wants_rejected]
        trained = await self._store.trained()
        free = await self._sends.free(fit, self.name)
        had = sum(
            trained.covers(it.candidate.timestamp_ns, it.candidate.continuation_ids, self.name)
            for it in fit
        )
        unknown = len(fit) - len(free) - had
        return Division(tuple(free), had, unknown, len(samples) - len(fit))

    async def send(self, samples: Sequence[TrainingSample]) -> Sent | None:
        """Send what is to be sent of ``samples``; ``None`` where nothing is.

        Raises:
            TrainError: the sink did not accept them, or it is not known whether it did.
            ConfigError: the sink wants texts, and nothing makes them.
            ScorerError: the texts cannot be made.
        """
        samples = (await self.divide(samples)).samples
        if self._sink.wants_text:
            samples = await self._texts.added(samples)
        key = uuid.uuid4().hex
        # Somebody else may have been quicker.
        samples = await self._sends.reserve(key, samples, self.name)
        if not samples:
            return None
        try:
            job_id = str(await self._sink.send(samples, key))
        except NotAccepted as error:
            await self._sends.release(key)
            raise TrainError(f"nothing was marked as trained: {error}") from error
        except Exception as error:
            raise TrainError(f"{format_error(error)}; {_still_unknown(key, samples)}") from error
        return await self._marked(key, samples, job_id)

    async def resend(self, send: Send) -> Sent | None:
        """Repeat ``send`` under its old key; ``None`` where it was settled meanwhile.

        Raises:
            TrainError: the sink did not accept it: what became of it is still unknown.
            ConfigError: the sink wants texts, and nothing makes them.
            ScorerError: the texts cannot be made.
        """
        key = send.key
        samples = await self._sends.samples(key)
        if not samples:
            return None
        if self._sink.wants_text:
            samples = await self._texts.added(samples)
        try:
            job_id = str(await self._sink.send(samples, key))
        except Exception as error:
            # Even a refusal of the second does not say what became of the first.
            raise TrainError(f"{format_error(error)}; {_still_unknown(key, samples)}") from error
        return await self._marked(key, samples, job_id)

    async def _marked(self, key: str, samples: Sequence[TrainingSample], job_id: str) -> Sent:
        responses = [it.candidate for it in samples]
        sent = [(it.timestamp_ns, it.continuation_ids) for it in responses]
        try:
            await self._store.mark_trained(sent, job_id, self.name)
        except StoreError as error:
            raise StoreError(
                f"the trainer accepted job {job_id}, but it could not be marked: {error}; then: "
                f"mindscore store settle {key} --trained"
            ) from error
        return Sent(key, job_id, len(samples), tokens_of(samples))


def tokens_of(samples: Sequence[TrainingSample]) -> int:
    """The tokens of the samples' prompts and answers."""
    return sum(len(it.context_ids) + len(it.continuation_ids) for it in samples)


def _still_unknown(key: str, samples: Sequence[TrainingSample]) -> str:
    return (
        f"whether the trainer accepted the {len(samples)} responses is not known: they are not "
        f"sent as new ones again; ask it about Idempotency-Key {key}, and see mindscore store sent"
    )
