"""MLflow's traces, as ``Trace.to_json`` and the server write them. As of 3.17 and 2.14.

Each span of a chat model holds the whole prompt that the model got.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Source, first_text
from mindscore.readers.genai import nested, read_span
from mindscore.readers.requests import (
    ModelRequest,
    parsed,
    read_answers,
    read_prompt,
    read_requests,
)

MODELS = ("CHAT_MODEL", "LLM")
"""Types of spans that are requests to a model."""
SESSION = "mlflow.trace.session"


class MLflowReader:
    """Reads spans of models; a conversation is the longest of a session, or else of a trace."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a trace of MLflow's."""
        first = source.sample
        data = first.get("data") if isinstance(first, dict) else None
        return isinstance(data, dict) and isinstance(data.get("spans"), list) and "info" in first

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the conversations, named by their sessions or traces."""
        return read_requests(source, _spans(source), _request)


def _spans(source: Source) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    for where, trace in source.objects():
        info, data = trace.get("info"), trace.get("data")
        info = info if isinstance(info, dict) else {}
        metadata = info.get("trace_metadata", info.get("request_metadata"))
        session = metadata.get(SESSION) if isinstance(metadata, dict) else None
        name = first_text(session, info.get("trace_id"), info.get("request_id"))
        spans = data.get("spans") if isinstance(data, dict) else None
        for at, span in enumerate(spans if isinstance(spans, list) else (), start=1):
            if isinstance(span, dict):
                yield f"{where}, span {at}", (name, span)


def _request(where: str, named: tuple[str, dict[str, Any]]) -> ModelRequest | None:
    name, span = named
    given = span.get("attributes")
    # Each is the JSON of its value.
    attributes = {key: parsed(it) for key, it in given.items()} if isinstance(given, dict) else {}
    messages, answers, tools = read_span(nested(attributes), span.get("events"))
    if not messages and attributes.get("mlflow.spanType") in MODELS:
        messages, tools = read_prompt(attributes.get("mlflow.spanInputs"))
        answers = read_answers(attributes.get("mlflow.spanOutputs"))
        tools = tools or attributes.get("mlflow.chat.tools")
    started = span.get("start_time_unix_nano", span.get("start_time", ""))
    return ModelRequest(name or where, str(started), messages, answers, tools)
