"""Hand samples to a sink, each response once."""

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
    """A hand-off that a sink accepted: its key, its job, the number of responses and tokens."""

    key: str
    job_id: str
    responses: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Division:
    """The samples to send, and how many are left out, by reason.

    ``had``: the sink has them; ``unknown``: it may have them; ``without_other``: it wants a second
    answer to compare with, and there is none.
    """

    samples: tuple[TrainingSample, ...]
    had: int
    unknown: int
    without_other: int


@asynccontextmanager
async def open_outbox(tables: Mapping[str, Any]) -> AsyncIterator[Outbox]:
    """Open the outbox of the sink that the settings name; ``tables`` is the whole parsed TOML.

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
        # What it accepted is marked already, so an error here changes nothing.
        except Exception as error:
            logger.warning("sink %s: aclose: %s", settings.train.sink, format_error(error))


class Outbox:
    """Sends samples to a sink, and keeps the outcome of each hand-off in the store.

    ``destination`` says where they go. Every method may raise ``StoreError``: the marks cannot be
    read or written.
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
        """The number of texts that tokenise to other ids than they were made of."""
        return self._texts.inexact

    async def unknown(self, samples: Sequence[TrainingSample] | None = None) -> list[Send]:
        """List the hand-offs with an unknown outcome, with ``samples`` only those that hold any."""
        if samples is None:
            return await self._sends.unknown(self.name)
        return await self._sends.covering(samples, self.name)

    async def divide(self, samples: Sequence[TrainingSample]) -> Division:
        """Divide ``samples`` into those that would be sent and the others."""
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
        """Send those of ``samples`` that are to be sent; return ``None`` if there are none.

        Raises:
            TrainError: the sink did not accept them, or it is unknown whether it did.
            ConfigError: the sink wants texts, and there is nothing to make them with.
            ScorerError: the texts cannot be made.
        """
        samples = (await self.divide(samples)).samples
        if self._sink.wants_text:
            samples = await self._texts.added(samples)
        key = uuid.uuid4().hex
        # Another process may have sent some of them meanwhile.
        samples = await self._sends.reserve(key, samples, self.name)
        if not samples:
            return None
        return await self._hand_over(key, samples, is_repeated=False)

    async def resend(self, send: Send) -> Sent | None:
        """Repeat ``send`` under its old key; return ``None`` if it was settled meanwhile.

        Raises:
            TrainError: the sink did not accept it, so its outcome is still unknown.
            ConfigError: the sink wants texts, and there is nothing to make them with.
            ScorerError: the texts cannot be made.
        """
        samples = await self._sends.samples(send.key)
        if not samples:
            return None
        if self._sink.wants_text:
            samples = await self._texts.added(samples)
        return await self._hand_over(send.key, samples, is_repeated=True)

    async def _hand_over(
        self, key: str, samples: Sequence[TrainingSample], *, is_repeated: bool
    ) -> Sent:
        try:
            job_id = str(await self._sink.send(samples, key))
        except Exception as error:
            # The refusal of a repeated request does not say what became of the first one.
            if isinstance(error, NotAccepted) and not is_repeated:
                await self._sends.release(key)
                raise TrainError(f"nothing was marked as trained: {error}") from error
            raise TrainError(
                f"{format_error(error)}; whether the trainer accepted the {len(samples)} responses "
                "is not known: they are not sent as new ones again; ask it about Idempotency-Key "
                f"{key}, and see mindscore store sent"
            ) from error
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
    """Count the tokens of the samples' prompts and answers."""
    return sum(len(it.context_ids) + len(it.continuation_ids) for it in samples)
