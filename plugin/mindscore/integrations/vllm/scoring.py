"""Scores from vLLM's engine: imported in its API server alone, as all of it is vLLM's."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import (
    load_aware_call,
    validate_json_request,
    with_cancellation,
)
from vllm.exceptions import GenerationError, VLLMValidationError
from vllm.inputs import TokensPrompt
from vllm.renderers.chat_utils import AsyncMultiModalItemTracker
from vllm.renderers.params import TokenizeParams
from vllm.sampling_params import RequestOutputKind, SamplingParams

from mindscore.integrations.vllm.engine import REQUEST_PREFIX
from mindscore.integrations.vllm.images import move_ranges
from mindscore.integrations.vllm.pieces import block_of, score_prompt
from mindscore.integrations.vllm.protocol import (
    RangesRequest,
    RequestError,
    RowsError,
    error_body,
    read_request,
    write_answer,
)
from mindscore.integrations.vllm.refusals import fault_of
from mindscore.integrations.vllm.rows import Rows
from mindscore.integrations.vllm.versions import NAME, logger


def add_routes(app: Any, path: str, vllm_version: str) -> None:
    """Add ``GET`` and ``POST`` of ``path`` to ``app``."""
    about = {"server": NAME, "version": version(NAME), "vllm": vllm_version}

    async def describe() -> JSONResponse:
        return JSONResponse(about)

    app.add_api_route(path, describe, methods=["GET"])
    checks = [Depends(validate_json_request)]
    app.add_api_route(path, score, methods=["POST"], dependencies=checks)


async def score(raw_request: Request) -> Response:
    """Score ranges of a prompt of token ids; what fails is for vLLM's handlers of exceptions."""
    service = raw_request.app.state.mindscore
    if fault := service if isinstance(service, str) else service.fault:
        # No server error, after which clients ask again.
        return JSONResponse(error_body(fault, "BadRequestError", 400), 400)
    try:
        request = read_request(await raw_request.body())
        answer = await _answer(request, raw_request)
    except RequestError as error:
        raise VLLMValidationError(str(error), parameter=error.param) from None
    except RowsError as error:
        raise GenerationError(str(error)) from None
    # None where the client has gone.
    return answer if answer is not None else Response()


@with_cancellation  # type: ignore[untyped-decorator]
@load_aware_call  # type: ignore[untyped-decorator]
async def _answer(request: RangesRequest, raw_request: Request) -> Response:
    result = await raw_request.app.state.mindscore.score(request, raw_request)
    if isinstance(result, ErrorResponse):
        return JSONResponse(result.model_dump(), result.error.code)
    return Response(result, HTTPStatus.OK, media_type="application/json")


class ScoreService:
    """Scores prompts with the engine of this server, under the names of models that it serves."""

    def __init__(self, engine: Any, models: Any) -> None:
        self._engine = engine
        self._config = engine.vllm_config
        self._serving = GenerateBaseServing(engine, models, request_logger=None)
        model = self._config.model_config
        self._by_id = self._config.use_v2_model_runner and model.max_logprobs != 0
        self._block = block_of(self._config)
        self.fault = fault_of(self._config)
        if self.fault:
            logger.warning("/v1/score is refused: %s", self.fault)

    async def score(self, request: RangesRequest, raw_request: Request) -> Any:
        """Return the answer's body, or vLLM's error for a model that it does not serve."""
        if (refused := await self._serving._check_model(request)) is not None:
            return refused
        self._serving._preflight()
        adapter = self._serving._maybe_get_adapters(request)
        prompt, ranges = await self._render(request)
        ids = prompt["prompt_token_ids"]
        if not ranges:
            return write_answer([], len(ids), 0)
        rows = Rows(ids, ranges)
        self._require_vocabulary(rows)
        options = {
            "lora_request": adapter,
            "priority": request.priority or 0,
            "trace_headers": await self._serving._get_trace_headers(raw_request.headers),
            "data_parallel_rank": self._serving._get_data_parallel_rank(raw_request),
        }

        async def ask(tokens: Sequence[int], arguments: dict[str, Any]) -> Any:
            its_prompt = (
                {**prompt, "prompt_token_ids": tokens} if len(tokens) < len(ids) else prompt
            )
            return await self._generate(its_prompt, arguments, options)

        block = self._block if prompt["type"] == "token" else None
        values, computed = await score_prompt(ids, ranges, ask, by_id=self._by_id, block=block)
        return write_answer(rows.by_range(values), len(ids), max(0, len(ids) - computed))

    async def _render(self, request: RangesRequest) -> tuple[Any, list[tuple[int, int]]]:
        """Return the prompt for the engine, and the ranges in it."""
        model = self._config.model_config
        prompt = TokensPrompt(prompt_token_ids=request.prompt)
        if request.images:
            tracker = AsyncMultiModalItemTracker(model)
            parser = tracker.create_parser()
            for image in request.images:
                parser.parse_image(image)
            media, ids = await tracker.resolve_items()
            prompt["multi_modal_data"] = media
            if ids:
                prompt["multi_modal_uuids"] = ids
        limits = TokenizeParams(
            max_total_tokens=model.max_model_len, max_output_tokens=1, add_special_tokens=False
        )
        [rendered] = await self._engine.renderer.render_cmpl_async([prompt], limits)
        if not request.images:
            return rendered, request.score_ranges
        places = rendered.get("mm_placeholders") or {}
        spans = sorted(
            (it.offset, it.offset + it.length) for group in places.values() for it in group
        )
        ids = rendered["prompt_token_ids"]
        return rendered, move_ranges(request.score_ranges, request.prompt, ids, spans)

    def _require_vocabulary(self, rows: Rows) -> None:
        size = self._config.model_config.get_vocab_size()
        for at in rows.positions:
            if rows.prompt[at] >= size:
                raise RequestError(f"Token id {rows.prompt[at]} is out of vocabulary", "prompt")

    async def _generate(
        self, prompt: Any, arguments: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Return vLLM's last output for ``prompt``, which has its log-probabilities."""
        params = SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)
        request_id = f"{REQUEST_PREFIX}{uuid.uuid4().hex}"
        output: Any = None
        async for latest in self._engine.generate(prompt, params, request_id, **options):
            output = latest
        reason = output.outputs[0].finish_reason if output is not None else None
        if reason not in ("length", "stop"):
            raise GenerationError(f"vLLM ended the request early: {reason or 'no answer'}")
        return output
