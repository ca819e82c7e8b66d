"""Handing candidates to a trainer, each response once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from mindhooks import FinetuneCandidate, ScorerError
from mindscore.config import parse_settings
from mindscore.errors import StoreError, TrainError
from mindscore.scorers.wire import WireClient
from mindscore.store import Store


class _Accepted(Struct):
    job_id: str | int


async def send_to_train(
    candidates: Sequence[FinetuneCandidate], settings: Mapping[str, Any]
) -> str:
    """Send candidates to ``{base_url}/train`` and mark them as trained; the trainer's job id.

    ``settings`` is the whole parsed TOML, as a registry has it: ``[server]`` says where to and with
    which key, ``[store]`` where the marks are. Candidates that are marked already are left out.
    They are marked once the server has accepted them, and the request is not repeated once its
    body may have arrived.

    Raises:
        TrainError: there is nothing to send, or the server did not accept it; nothing is marked.
        ConfigError: the settings are wrong.
        StoreError: the marks cannot be read, or not written: the text of the latter has the job id.
    """
    parsed = parse_settings(settings)
    store = Store(parsed.store)
    marks = await store.trained()
    untrained = (c for c in candidates if not marks.covers(c.timestamp_ns, c.continuation_ids))
    fresh = list({(c.timestamp_ns, c.continuation_ids): c for c in untrained}.values())
    if not fresh:
        raise TrainError(
            "nothing to send: all candidates are trained already"
            if candidates
            else "nothing to send: there are no candidates"
        )
    samples = [
        {"context_ids": it.context_ids, "continuation_ids": it.continuation_ids} for it in fresh
    ]
    client = WireClient(parsed.server)
    try:
        body = {"training_data": {"samples": samples}}
        accepted = await client.post("/train", body, _Accepted, repeat=False)
    except ScorerError as error:
        raise TrainError(f"nothing was marked as trained: {error}") from error
    finally:
        await client.aclose()
    job_id = str(accepted.job_id)
    sent = [(it.timestamp_ns, it.continuation_ids) for it in fresh]
    try:
        await store.mark_trained(sent, job_id)
    except StoreError as error:
        raise StoreError(
            f"the trainer accepted job {job_id}, but it could not be marked: {error}"
        ) from error
    return job_id
