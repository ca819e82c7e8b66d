"""Messages in the attributes and events of spans, in the conventions of each instrumentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mindscore.readers.requests import parsed, parsed_list, read_answers, read_prompt
from mindscore.readers.source import first_text

Attributes = dict[str, Any]
Found = tuple[list[Any], list[Any], Any]
"""Messages, answers, definitions of tools."""


def nested(given: Any) -> Attributes:
    """Return attributes by the parts of their dotted names, each in those of the part before it.

    ``given`` is an object, or OTLP's list of keys and typed values.
    """
    if isinstance(given, list):
        pairs = [it for it in given if isinstance(it, dict)]
        given = {str(it.get("key")): any_value(it.get("value")) for it in pairs}
    found: Attributes = {}
    for key, value in given.items() if isinstance(given, dict) else ():
        node = found
        *path, last = str(key).split(".")
        for part in path:
            inner = node.get(part)
            if not isinstance(inner, dict):
                inner = node[part] = {}
            node = inner
        if not isinstance(node.get(last), dict) or isinstance(value, dict):
            node[last] = value
    return found


def any_value(value: Any) -> Any:
    """Return the value that OTLP writes with its type."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    [(kind, inner)] = value.items()
    if kind == "arrayValue" and isinstance(inner, dict):
        return [any_value(it) for it in inner.get("values") or ()]
    if kind == "kvlistValue" and isinstance(inner, dict):
        pairs = [it for it in inner.get("values") or () if isinstance(it, dict)]
        return {str(it.get("key")): any_value(it.get("value")) for it in pairs}
    known = ("stringValue", "intValue", "doubleValue", "boolValue", "bytesValue")
    return inner if kind in known else value


def read_span(attributes: Attributes, events: Any) -> Found:
    """Return what a span records of a request to a model, by the first convention that it keeps."""
    for read in (_genai, _openinference, _traceloop, _vercel, _langfuse):
        if any((found := read(attributes))[:2]):
            return found
    return _events(events if isinstance(events, list) else [])


def require_whole(attributes: Attributes, span: Mapping[str, Any]) -> None:
    """Refuse a span of which its SDK has dropped what may be messages.

    Raises:
        ValueError: the text has the setting that lets the SDK keep more.
    """
    kind, holders = "ATTRIBUTE", [span]
    if not any(read_span(attributes, [])[:2]):
        events = span.get("events")
        holders += events if isinstance(events, list) else []
        if _count(span, "droppedEventsCount"):
            kind = "EVENT"
    if kind == "EVENT" or any(_count(it, "droppedAttributesCount") for it in holders):
        raise ValueError(
            "its SDK has dropped a part of it, which may be messages: set "
            f"OTEL_SPAN_{kind}_COUNT_LIMIT to more where it runs"
        )


def _count(given: Any, name: str) -> int:
    count = given.get(name) if isinstance(given, Mapping) else 0
    return count if isinstance(count, int) else 0


def _part(attributes: Any, *path: str) -> Any:
    for part in path:
        attributes = attributes.get(part) if isinstance(attributes, dict) else None
    return attributes


def _genai(attributes: Attributes) -> Found:
    """Read the GenAI conventions as of 1.37."""
    system = parsed(_part(attributes, "gen_ai", "system_instructions"))
    messages = parsed_list(_part(attributes, "gen_ai", "input", "messages"), "input.messages")
    if system:
        messages = [{"role": "system", "content": system}, *messages]
    answers = parsed_list(_part(attributes, "gen_ai", "output", "messages"), "output.messages")
    return messages, answers, _part(attributes, "gen_ai", "tool", "definitions")


def _numbered(node: Any) -> list[Any]:
    """Return the values of an array, or of numbered attributes in their order."""
    if isinstance(node, list):
        return node
    numbers = [it for it in node if it.isdecimal()] if isinstance(node, dict) else []
    return [node[it] for it in sorted(numbers, key=int)]


def _openinference(attributes: Attributes) -> Found:
    llm = attributes.get("llm")
    tools = [parsed(_part(it, "tool", "json_schema")) for it in _numbered(_part(llm, "tools"))]
    messages, answers = (
        [_openinference_message(_part(it, "message")) for it in _numbered(_part(llm, name))]
        for name in ("input_messages", "output_messages")
    )
    return messages, answers, tools


def _openinference_message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    blocks = []
    for it in _numbered(message.get("contents")):
        block = _part(it, "message_content")
        url = _part(block, "image", "image", "url") or _part(block, "image", "url")
        blocks.append({"type": "image_url", "image_url": {"url": url}} if url else block)
    calls = [_part(it, "tool_call") for it in _numbered(message.get("tool_calls"))]
    return {**message, "content": blocks or message.get("content"), "tool_calls": calls}


def _traceloop(attributes: Attributes) -> Found:
    gen_ai = attributes.get("gen_ai")
    messages, answers = (
        [_traceloop_message(it) for it in _numbered(_part(gen_ai, name))]
        for name in ("prompt", "completion")
    )
    for it in answers:
        if isinstance(it, dict):
            it.setdefault("role", "assistant")
    tools = _numbered(_part(attributes, "llm", "request", "functions"))
    read = [
        {**it, "parameters": parsed(it.get("parameters"))} for it in tools if isinstance(it, dict)
    ]
    return messages, answers, read


def _traceloop_message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    content = parsed(message.get("content"))
    is_blocks = isinstance(content, list) and all(isinstance(it, dict) for it in content)
    calls = _numbered(message.get("tool_calls"))
    return {
        **message,
        "content": content if is_blocks else message.get("content"),
        "tool_calls": calls,
    }


def _vercel(attributes: Attributes) -> Found:
    prompt, response = (_part(attributes, "ai", name) for name in ("prompt", "response"))
    messages = parsed_list(_part(prompt, "messages"), "ai.prompt.messages")
    blocks: list[Any] = []
    if text := first_text(_part(response, "text")):
        blocks.append({"type": "text", "text": text})
    calls = parsed_list(_part(response, "toolCalls"), "ai.response.toolCalls")
    blocks += [{**it, "type": "tool-call"} for it in calls if isinstance(it, dict)]
    tools = [parsed(it) for it in _numbered(_part(prompt, "tools"))]
    return messages, [{"role": "assistant", "content": blocks}] if blocks else [], tools


def _langfuse(attributes: Attributes) -> Found:
    observed = _part(attributes, "langfuse", "observation")
    messages, tools = read_prompt(parsed(_part(observed, "input")))
    return messages, read_answers(_part(observed, "output")), tools


def is_request(attributes: Attributes) -> bool:
    """Return false of the spans of agents, tools and retrieval, which repeat what requests say."""
    operation = _part(attributes, "gen_ai", "operation", "name")
    kind = _part(attributes, "openinference", "span", "kind")
    observed = _part(attributes, "langfuse", "observation", "type")
    return (
        operation in (None, "chat", "text_completion", "generate_content")
        and kind in (None, "LLM")
        and observed in (None, "generation")
    )


def says_model(attributes: Attributes) -> str:
    """Return the name of the model that a span says was asked, empty for none."""
    gen_ai, llm = attributes.get("gen_ai"), attributes.get("llm")
    return first_text(
        _part(gen_ai, "response", "model"),
        _part(gen_ai, "request", "model"),
        _part(llm, "model_name"),
        _part(attributes, "ai", "model", "id"),
    )


_ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}


def _events(events: Iterable[Any]) -> Found:
    """Read the events of the GenAI conventions before 1.37, on the span or in logs."""
    messages: list[Any] = []
    answers: list[Any] = []
    for event in events:
        if not isinstance(event, dict):
            continue
        given = nested(event.get("attributes"))
        name = first_text(event.get("name"), event.get("eventName"), _part(given, "event", "name"))
        body = any_value(event.get("body"))
        fields = body if isinstance(body, dict) else given
        if name == "gen_ai.client.inference.operation.details":
            return _genai(given)
        if name in _ROLES:
            messages.append(_event_message(fields, _ROLES[name]))
        elif name == "gen_ai.choice":
            said = parsed(fields.get("message"))
            answers.append(_event_message(said if isinstance(said, dict) else fields, "assistant"))
        elif name == "gen_ai.content.prompt":
            messages += parsed_list(_part(given, "gen_ai", "prompt"), "gen_ai.prompt")
        elif name == "gen_ai.content.completion":
            answers += parsed_list(_part(given, "gen_ai", "completion"), "gen_ai.completion")
    return messages, answers, None


def _event_message(fields: Attributes, role: str) -> Attributes:
    calls = parsed_list(fields.get("tool_calls"), "tool_calls")
    content = fields.get("content")
    found = {"role": role, "content": content, "tool_calls": calls}
    return {**found, "tool_call_id": fields.get("id")} if role == "tool" else found
