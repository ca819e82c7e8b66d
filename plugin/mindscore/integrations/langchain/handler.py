"""LangChain's middleware, which scores memories beside an agent of ``create_agent``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain.agents.middleware.types import (  # type: ignore[import-not-found, unused-ignore]
    AgentMiddleware,
    ModelRequest,
)
from langchain_core.callbacks import (  # type: ignore[import-not-found, unused-ignore]
    BaseCallbackHandler,
)
from langchain_core.tracers.context import (  # type: ignore[import-not-found, unused-ignore]
    register_configure_hook,
)

from mindscore._util.errors import format_error
from mindscore.conversation.message import Message
from mindscore.integrations.langchain.reader import chat_messages
from mindscore.session.attach import IDLE_S, Attached, attach
from mindscore.session.snapshot import Memories

_log = logging.getLogger("mindscore")
_listening: ContextVar[Any] = ContextVar("mindscore_listening", default=None)
register_configure_hook(_listening, inheritable=True)


class MindMiddleware(AgentMiddleware):  # type: ignore[misc, unused-ignore]
    """Middleware for ``create_agent(…, middleware=[MindMiddleware(memories={…})])``.

    ``memories`` are ``{key: text}``, or a function that returns them; with deepagents, the files
    that its ``MemoryMiddleware`` loaded are added. The other arguments are those of
    ``mindscore.attach``, whose errors are raised here; later errors are logged, and the agent goes
    on. A turn has ended when the model answers and calls no tool.

    ``mind`` does the scoring: ``mind.score()``, ``mind.state``. One middleware may serve several
    agents and threads; the last conversation is scored.
    """

    def __init__(
        self,
        memories: Memories = None,
        *,
        settings: Mapping[str, Any] | None = None,
        every_turns: int = 1,
        idle_s: float = IDLE_S,
        memories_anywhere: bool = False,
    ) -> None:
        super().__init__()
        self._memories = memories
        # One value, so that no lock is held while the host's functions are called.
        self._latest: tuple[Sequence[Any], Mapping[str, str]] = ((), {})
        self._asked = threading.local()
        self.mind: Attached = attach(
            self._conversation,
            self._known,
            settings=settings,
            every_turns=every_turns,
            idle_s=idle_s,
            memories_anywhere=memories_anywhere,
        )

    def close(self) -> None:
        """Do as ``Attached.close``."""
        self.mind.close()

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[Any], Any]) -> Any:
        """Call the model unchanged, and take note of its messages."""
        heard = _Listener()
        before = _listening.set(heard)
        try:
            response = handler(request)
        finally:
            _listening.reset(before)
        self._hand_over(request, heard, response)
        return response

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Do as ``wrap_model_call``, for agents that run on an event loop."""
        heard = _Listener()
        before = _listening.set(heard)
        try:
            response = await handler(request)
        finally:
            _listening.reset(before)
        self._hand_over(request, heard, response)
        return response

    def _conversation(self) -> list[Message]:
        # The files are those of the same turn, whatever ends in other threads meanwhile.
        messages, self._asked.files = self._latest
        return [said for it in messages for said in chat_messages(it)]

    def _known(self) -> Mapping[str, str]:
        given = self._memories() if callable(self._memories) else self._memories
        return {**self._asked.files, **(given or {})}

    def _hand_over(self, request: ModelRequest, heard: _Listener, response: Any) -> None:
        try:
            result = list(getattr(response, "model_response", response).result)
            sent = heard.sent(result[0])
            if sent is None:
                system = request.system_message
                sent = [*([system] if system is not None else ()), *request.messages]
            files = dict(request.state.get("memory_contents") or {})
            self._latest = (*sent, *result), files
            if not getattr(result[-1], "tool_calls", None):
                self.mind.turn_ended()
        except Exception as error:
            _log.warning("this turn is not scored: %s", format_error(error))


class _Listener(BaseCallbackHandler):  # type: ignore[misc, unused-ignore]
    """Keeps the exact messages of each model call: other middleware may add to a request."""

    run_inline = True

    def __init__(self) -> None:
        self._calls: dict[UUID, list[Any]] = {}
        self._answers: dict[str, UUID] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """Keep the messages as the model gets them."""
        del serialized, kwargs
        self._calls[run_id] = list(messages[0])

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Keep which call each response came from."""
        del kwargs
        for generation in response.generations[0]:
            if run_id in self._calls and generation.message.id is not None:
                self._answers[generation.message.id] = run_id

    def sent(self, reply: Any) -> list[Any] | None:
        """Return the messages that ``reply`` answers; ``None`` if its call is unknown."""
        run = self._answers.get(reply.id)
        return None if run is None else self._calls[run]
