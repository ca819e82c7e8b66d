"""Send candidates to a trainer, each response once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mindhooks import FinetuneCandidate
from mindscore._util.errors import TrainError
from mindscore.config.settings import parse_settings
from mindscore.store import Reviewed, Send
from mindscore.training.outbox import Division, Sent, open_outbox
from mindscore.training.selection import sample_of

logger = logging.getLogger(__name__)


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
    async with open_outbox(settings) as hand_off:
        taken: list[Sent | None] = []
        if resend_unknown:
            taken += [await hand_off.resend(it) for it in await hand_off.unknown(samples)]
        taken.append(await hand_off.send(samples))
        jobs = [sent.job_id for sent in taken if sent is not None]
        left_out = await hand_off.unknown(samples)
        if left_out and jobs:
            logger.warning("left out: %s", _unknown(left_out))
        if not jobs:
            division = await hand_off.divide(samples)
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
