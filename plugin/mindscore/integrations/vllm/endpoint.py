"""The part in the API server: the route ``/v1/score``, or an error there that says why not."""

from __future__ import annotations

from typing import Any

from mindscore.integrations.vllm.protocol import error_body
from mindscore.integrations.vllm.versions import NAME, logger, unknown_version, vllm_version

PATH = "/v1/score"


class ScoreRoute:
    """The plugin, as ``vllm.endpoint_plugins`` expects it.

    A pooling model has a ``/v1/score`` of vLLM's own, and does not generate: it keeps its route.
    """

    name = NAME
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Add the routes to ``app``; on a vLLM that is not known, routes that refuse."""
        version = vllm_version()
        fault = unknown_version(version)
        if fault is None:
            try:
                from mindscore.integrations.vllm.scoring import add_routes

                add_routes(app, PATH, version)
            except Exception as error:
                fault = f"/v1/score does not work with vLLM {version}: {_words(error)}"
        if fault is not None:
            logger.error("%s", fault)
            _refuse(app, fault)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:  # noqa: ARG002
        """Make what the route needs, or keep why it cannot be made."""
        if unknown_version(vllm_version()) is not None:
            return
        try:
            from mindscore.integrations.vllm.scoring import ScoreService

            state.mindscore = ScoreService(engine_client, state.openai_serving_models)
        except Exception as error:
            logger.exception("/v1/score is refused")
            state.mindscore = f"/v1/score could not be set up: {_words(error)}"


def _refuse(app: Any, fault: str) -> None:
    from starlette.responses import JSONResponse

    async def refuse() -> Any:
        return JSONResponse(error_body(fault, "NotImplementedError", 501), 501)

    app.add_api_route(PATH, refuse, methods=["GET", "POST"], include_in_schema=False)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
