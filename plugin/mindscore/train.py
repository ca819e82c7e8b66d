"""Handing candidates to a trainer, each response once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from mindhooks import FinetuneCandidate, ScorerError
from mindscore.config import parse_settings
from mindscore.errors import StoreError, TrainError
from mindscore.scorers.wire import RefusedError, RetriableError, WireClient
from mindscore.store import Sample, Send, Sends, Store

logger = logging.getLogger(__name__)


class _Accepted(Struct):
    job_id: str | int


async def send_to_train(
    candidates: Sequence[FinetuneCandidate],
    settings: Mapping[str, Any],
    *,
    resend_unknown: bool = False,
) -> str:
    """Send candidates to ``{base_url}/train`` and mark them as trained; the trainer's job id.

    ``settings`` is the whole parsed TOML, as a registry has it: ``[server]`` says where to and with
    which key, ``[store]`` where the marks are. Candidates that are marked already are left out.
    They are marked once the server has accepted them, and the request is not repeated once its
    body may have arrived.

    Each request has an ``Idempotency-Key`` of its own. Where it is not known whether the trainer
    accepted one, as after a time-out, its candidates are left out from then on, until ``mindscore
    store settle`` says what became of it. With ``resend_unknown`` such requests, where they hold
    any of ``candidates``, are made again first, the same and under the same key: for a trainer that
    honours it. The job id is the last request's.

    Raises:
        TrainError: there is nothing to send, or the server did not accept a request, or it is not
            known whether it did: the text says which. What was accepted before is marked.
        ConfigError: the settings are wrong.
        StoreError: the marks cannot be read, or not written: the text of the latter has the job id.
    """
    if not candidates:
        raise TrainError("nothing to send: there are no candidates")
    parsed = parse_settings(settings)
    store, sends = Store(parsed.store), Sends(parsed.store)
    samples = [Sample(c.timestamp_ns, c.context_ids, c.continuation_ids) for c in candidates]
    client = WireClient(parsed.server)
    try:
        hand_off = _HandOff(client, store, sends)
        job_id = None
        if resend_unknown:
            for send in await sends.covering(samples):
                job_id = await hand_off.again(send) or job_id
        key = uuid.uuid4().hex
        fresh = await sends.reserve(key, samples)
        left_out = [send for send in await sends.covering(samples) if send.key != key]
        if not fresh and job_id is None:
            why = _unknown(left_out) if left_out else "all candidates are trained already"
            raise TrainError(f"nothing to send: {why}")
        if left_out:
            logger.warning("left out: %s", _unknown(left_out))
        return await hand_off.first(key, fresh) if fresh else str(job_id)
    finally:
        await client.aclose()


class _HandOff:
    """Makes the requests, and keeps what became of each."""

    def __init__(self, client: WireClient, store: Store, sends: Sends) -> None:
        self._client = client
        self._store = store
        self._sends = sends

    async def first(self, key: str, samples: Sequence[Sample]) -> str:
        """Send what was reserved under ``key``; the job id."""
        try:
            job_id = await self._post(key, samples)
        except ScorerError as error:
            if not _has_not_arrived(error):
                raise TrainError(f"{error}; {_still_unknown(key, samples)}") from error
            await self._sends.release(key)
            raise TrainError(f"nothing was marked as trained: {error}") from error
        await self._mark(key, samples, job_id)
        return job_id

    async def again(self, send: Send) -> str | None:
        """Repeat a request; the job id, or ``None`` where it was settled meanwhile."""
        samples = await self._sends.samples(send.key)
        if not samples:
            return None
        try:
            job_id = await self._post(send.key, samples)
        except ScorerError as error:
            # Even a refusal of the second does not say what became of the first.
            raise TrainError(f"{error}; {_still_unknown(send.key, samples)}") from error
        await self._mark(send.key, samples, job_id)
        return job_id

    async def _post(self, key: str, samples: Sequence[Sample]) -> str:
        body = {
            "training_data": {
                "samples": [
                    {"context_ids": it.context_ids, "continuation_ids": it.continuation_ids}
                    for it in samples
                ]
            }
        }
        headers = {"Idempotency-Key": key}
        answer = await self._client.post("/train", body, _Accepted, repeat=False, headers=headers)
        return str(answer.job_id)

    async def _mark(self, key: str, samples: Sequence[Sample], job_id: str) -> None:
        sent = [(it.timestamp_ns, it.continuation_ids) for it in samples]
        try:
            await self._store.mark_trained(sent, job_id)
        except StoreError as error:
            raise StoreError(
                f"the trainer accepted job {job_id}, but it could not be marked: {error}; then: "
                f"mindscore store settle {key} --trained"
            ) from error


def _has_not_arrived(error: ScorerError) -> bool:
    """Whether it is certain that the trainer has not accepted what the request carried."""
    if isinstance(error, RetriableError) and error.status is not None:
        return error.status < 500
    return isinstance(error, RefusedError) or not getattr(error, "arrived", True)


def _unknown(sends: Sequence[Send]) -> str:
    responses = sum(send.responses for send in sends)
    since = datetime.fromtimestamp(sends[0].since).astimezone().isoformat(" ", "seconds")
    return (
        f"{responses} responses, sent since {since}: whether the trainer accepted them is not "
        "known; see mindscore store sent, and say what became of them with mindscore store settle, "
        "or send them again under their old Idempotency-Key with resend_unknown=True"
    )


def _still_unknown(key: str, samples: Sequence[Sample]) -> str:
    return (
        f"whether the trainer accepted the {len(samples)} responses is not known: they are not "
        f"sent as new ones again; ask it about Idempotency-Key {key}, and see mindscore store sent"
    )
