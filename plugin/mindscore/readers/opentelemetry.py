"""OpenTelemetry traces of requests to models: OTLP's JSON, or a span a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.genai import nested, read_span, require_whole
from mindscore.readers.requests import ModelRequest, read_requests
from mindscore.readers.source import Source, first_text

SPANS = ("resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "spans")
LOGS = ("resourceLogs", "resource_logs", "scopeLogs", "scope_logs", "logRecords", "log_records")
NAMES = (
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "ai.telemetry.metadata.conversationId",
    "ai.telemetry.metadata.sessionId",
    "ai.telemetry.metadata.threadId",
    "ai.telemetry.metadata.chatId",
    "traceloop.association.properties.session_id",
)
"""Attributes that name the conversation."""


class OpenTelemetryReader:
    """Reads what the GenAI conventions record, new or old, and OpenInference, Traceloop, Vercel.

    A conversation is the longest request of its name, or of its trace, with the answer.
    """

    def detects(self, source: Source) -> bool:
        """Return true if it begins with an export of spans or logs, or with a span."""
        first = source.sample
        if not isinstance(first, dict):
            return False
        if any(isinstance(first.get(key), list) for key in (*SPANS[:2], *LOGS[:2])):
            return True
        return isinstance(first.get("attributes"), dict | list) and bool(_trace_id(first))

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the conversations, named by their ids or their traces'."""
        logs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        spans: list[tuple[str, dict[str, Any]]] = []
        for where, record in source.objects():
            for number, (span, is_log) in enumerate(_within(record), start=1):
                if is_log:
                    logs.setdefault((_trace_id(span), _span_id(span)), []).append(span)
                else:
                    spans.append((f"{where}, span {number}", span))
        for _, span in spans:
            own = logs.pop((_trace_id(span), _span_id(span)), [])
            events = span.get("events")
            span["events"] = [*(events if isinstance(events, list) else []), *own]
        # Logs may be kept without the spans that they belong to.
        spans += [
            (f"the logs of span {span_id}", {"traceId": trace, "spanId": span_id, "events": it})
            for (trace, span_id), it in logs.items()
        ]
        return read_requests(source, spans, _request)


def _within(
    record: dict[str, Any], *, is_log: bool = False
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the spans and log records of an export, each with whether it is of a log."""
    inner = next((it for it in (*SPANS, *LOGS) if isinstance(record.get(it), list)), None)
    if inner is None:
        yield record, is_log
        return
    for it in record[inner]:
        if isinstance(it, dict):
            yield from _within(it, is_log=inner in LOGS)


def _trace_id(span: dict[str, Any]) -> str:
    context = span.get("context")
    inner = context.get("trace_id") if isinstance(context, dict) else None
    return first_text(span.get("traceId"), span.get("trace_id"), inner)


def _span_id(span: dict[str, Any]) -> str:
    context = span.get("context")
    inner = context.get("span_id") if isinstance(context, dict) else None
    return first_text(span.get("spanId"), span.get("span_id"), inner)


def _request(where: str, span: dict[str, Any]) -> ModelRequest | None:
    del where
    attributes = nested(span.get("attributes"))
    messages, answers, tools = read_span(attributes, span.get("events"))
    if not messages and not answers:
        return None
    require_whole(attributes, span)
    started = span.get("startTimeUnixNano", span.get("start_time", ""))
    name = first_text(named_conversation(attributes), _trace_id(span)) or _span_id(span)
    return ModelRequest(name, str(started), messages, answers, tools)


def named_conversation(attributes: dict[str, Any]) -> str:
    """Return what a span calls its conversation, empty for nothing; ``attributes`` are nested."""
    return first_text(*(_at(attributes, name) for name in NAMES))


def _at(attributes: dict[str, Any], name: str) -> Any:
    found: Any = attributes
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
