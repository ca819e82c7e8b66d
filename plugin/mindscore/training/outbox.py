"""Send candidates to a trainer, each response once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mindhooks import (
    FinetuneCandidate,
    NotAccepted,
    TrainingSample,
    TrainingSink,
    UnknownSink,
    load_sink,
)
from mindscore._util.errors import ConfigError, StoreError, TrainError, format_error
from mindscore.config.settings import Settings, parse_settings
from mindscore.store import Reviewed, Send, Sends, Store
from mindscore.training.jobs import TrainingJob
from mindscore.training.texts import Texts


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples to train on, and how many candidates are left out.

    ``waiting``: not reviewed yet; ``rejected``: rejected in review.
    """

    samples: tuple[TrainingSample, ...]
    waiting: int
    rejected: int


def select(queue: Sequence[Reviewed], settings: Settings, *, unreviewed: bool) -> Selection:
    """Select the accepted candidates of ``queue``; with ``unreviewed``, the undecided ones too."""
    decisions = [it.review.decision if it.review else None for it in queue]
    wanted = ("accepted", None) if unreviewed else ("accepted",)
    chosen = [it for it, decision in zip(queue, decisions, strict=True) if decision in wanted]
    waiting = [] if unreviewed else [it for it in queue if it.review is None and not it.sinks]
    train, namespace = settings.train, settings.store.namespace
    samples = (sample_of(it, train.context, namespace) for it in chosen)
    return Selection(tuple(samples), len(waiting), decisions.count("rejected"))


def sample_of(
    reviewed: Reviewed, context: Literal["bare", "full"], namespace: str
) -> TrainingSample:
    """Make the sample of a candidate, with the answer that was chosen in review."""
    found, review = reviewed.candidate, reviewed.review
    answer = review.answer if review else "response"
    other = found.alternate_ids if answer == "response" else found.continuation_ids
    return TrainingSample(
        context_ids=found.bare_context_ids if context == "bare" else found.context_ids,
        continuation_ids=reviewed.answer_ids,
        rejected_ids=None if other == reviewed.answer_ids else other,
        context=context,
        candidate=found,
        model=reviewed.model,
        namespace=namespace,
        decision="accepted" if review else None,
        answer=answer,
    )


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
    def ended_job(self) -> TrainingJob | None:
        """The job that the sink itself has carried out last, if it does."""
        return getattr(self._sink, "job", None)

    @property
    def tells_jobs(self) -> bool:
        """True if the sink's trainer can be asked how its jobs go, as mindscore's."""
        return bool(getattr(self._sink, "tells_jobs", False))

    @property
    def trained_model(self) -> str | None:
        """The model that the sink trains, where it is ``server.model``."""
        return getattr(self._sink, "trained_model", None)

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


async def send_to_train(
    candidates: Sequence[FinetuneCandidate],
    settings: Mapping[str, Any],
    *,
    resend_unknown: bool = False,
) -> str:
    """Send candidates to ``{base_url}/train``, mark them as trained, and return the job id.

    ``settings`` is the whole parsed TOML, as a registry has it: ``[server]`` has the address and
    the key, ``[store]`` the marks, ``[train]`` the sink, if it is another one. The prompt is the
    candidate's ``context_ids``, memories included, unless ``[train] context`` is set. Candidates
    that the sink has already are left out. The others are marked once it has accepted them; a
    request is not repeated once its body may have arrived.

    Each hand-off has its own ``Idempotency-Key``. If it is unknown whether the trainer accepted
    one, as after a time-out, its candidates are left out until ``mindscore store settle`` says what
    became of it. With ``resend_unknown``, such hand-offs that hold any of ``candidates`` are first
    repeated under their old keys, for a trainer that honours them. The job id is the last one's.

    Raises:
        TrainError: there is nothing to send, the trainer did not accept it, or it is unknown
            whether it did; the text says which. What was accepted before is marked.
        ConfigError: the settings are wrong.
        StoreError: the marks cannot be read, or written; then the text has the job id.
    """
    if not candidates:
        raise TrainError("nothing to send: there are no candidates")
    parsed = parse_settings(settings)
    context = parsed.train.context if "context" in settings.get("train", {}) else "full"
    samples = [
        sample_of(Reviewed(it, parsed.server.model, 0.0, None, ()), context, parsed.store.namespace)
        for it in candidates
    ]
    async with open_outbox(settings) as outbox:
        taken: list[Sent | None] = []
        if resend_unknown:
            taken += [await outbox.resend(it) for it in await outbox.unknown(samples)]
        taken.append(await outbox.send(samples))
        jobs = [sent.job_id for sent in taken if sent is not None]
        left_out = await outbox.unknown(samples)
        if left_out and jobs:
            logger.warning("left out: %s", _unknown(left_out))
        if not jobs:
            division = await outbox.divide(samples)
            raise TrainError(f"nothing to send: {_why_nothing(left_out, division)}")
        return jobs[-1]


def _why_nothing(left_out: Sequence[Send], division: Division) -> str:
    if left_out:
        return _unknown(left_out)
    if division.without_other:
        return f"{division.without_other} of the candidates have no second answer"
    return "all candidates are trained already"


def _unknown(sends: Sequence[Send]) -> str:
    responses = sum(send.responses for send in sends)
    since = datetime.fromtimestamp(sends[0].since).astimezone().isoformat(" ", "seconds")
    return (
        f"{responses} responses, sent since {since}: whether the trainer accepted them is not "
        "known; see mindscore store sent, and say what became of them with mindscore store settle, "
        "or send them again under their old Idempotency-Key with resend_unknown=True"
    )
