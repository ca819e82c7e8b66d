"""The ``http`` sink: a trainer behind ``POST /train``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from mindhooks import NotAccepted, ScorerError, TrainingSample
from mindscore._util.errors import ConfigError
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.http.client import StatusError, UnavailableError, UntrustedError, WireClient
from mindscore.measure.retry import GivenUpError, with_retries
from mindscore.training.jobs import JOB_HEADER, MODEL_HEADER

PATH = "/train"
SEE_OTHER, NOT_IMPLEMENTED = 303, 501


class _Accepted(Struct):
    job_id: str | int


class HttpSink:
    """``POST {server.base_url}/train``, with the key as ``Idempotency-Key``.

    A request is not repeated once its body may have arrived. ``tells_jobs``: the trainer is
    mindscore, which can be asked how the last job goes.

    Raises:
        ConfigError: ``[server]`` is wrong, or its API key cannot be read.
    """

    wants_text = False
    wants_rejected = False
    tells_jobs = False

    def __init__(self, train: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        del train
        settings = parse_table(server, ServerSettings, "server")
        if not settings.base_url:
            raise ConfigError(
                'train.sink = "http" sends to server.base_url, which is not set: set it to the '
                'address that mindscore serve --train prints; or set train.sink = "jsonl"'
            )
        self._settings = settings
        self._is_named = "model" in server
        self._client = WireClient(settings)
        self.destination = self._client.base_url + PATH

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        """Post the samples, and return the trainer's job id.

        Raises:
            NotAccepted: the trainer refused them, or they cannot have arrived.
            ScorerError: what became of them is not known.
        """
        body = {
            "training_data": {
                "samples": [
                    {"context_ids": it.context_ids, "continuation_ids": it.continuation_ids}
                    for it in samples
                ]
            }
        }
        headers = {"Idempotency-Key": key}
        [model, *others] = {it.model for it in samples}
        # The default is no name of anybody's: send_to_train gives it to what it is handed.
        if not others and (self._is_named or model != self._settings.model):
            headers[MODEL_HEADER] = quote(model, errors="replace")
        try:
            answer = await with_retries(
                lambda: self._client.post(PATH, body, _Accepted, headers=headers),
                self._settings,
                may_repeat=lambda error: isinstance(error, UnavailableError) and not error.arrived,
            )
        except ScorerError as error:
            if _has_not_arrived(error):
                raise NotAccepted(str(error)) from error
            raise
        job_id = str(answer.job_id)
        self.tells_jobs = self._client.headers.get(JOB_HEADER) == job_id
        return job_id

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _has_not_arrived(error: ScorerError) -> bool:
    """Return whether it is certain that the trainer has not accepted the samples."""
    last = error.last if isinstance(error, GivenUpError) else error
    if isinstance(last, UnavailableError):
        return (
            not last.arrived
            if last.status is None
            else last.status < 500 or last.status == NOT_IMPLEMENTED
        )
    if isinstance(last, StatusError):
        # A redirect to what came of the request, which was carried out.
        return last.status != SEE_OTHER
    return isinstance(last, UntrustedError)
