"""Conversations of traces: each request to a model holds its whole prompt, the last one all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import ROLES
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, kind_of

T = TypeVar("T")

OTHER_PROMPTS = "requests with another prompt, such as a subagent's"
OTHER_ANSWERS = "further answers to the same prompt"
RESPONSES_ITEMS = {
    "function_call": "assistant", "custom_tool_call": "assistant", "reasoning": "assistant",
    "function_call_output": "tool", "custom_tool_call_output": "tool",
}  # fmt: skip
"""Roles of what OpenAI's Responses API has between messages."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model: its messages and answers in the shape of any chat API.

    ``conversation`` is what its conversation, or else its trace, is called; ``started`` sorts by
    time.
    """

    conversation: str
    started: str
    messages: list[Any]
    answers: list[Any]
    tools: Any = None


def read_requests(
    source: Source, records: Iterable[tuple[str, T]], read: Callable[[str, T], ModelRequest | None]
) -> Iterator[Conversation]:
    """Yield a conversation for each name: its longest request, the last of those, with the answer.

    ``read(place, record)`` returns a request, or ``None`` for a record that is none.

    Raises:
        TranscriptError: no record is a request that is understood.
    """
    found: dict[str, list[ModelRequest]] = {}
    for where, record in records:
        request = None
        with source.leaving_out(), source.placed(where):
            request = read(where, record)
        if request is not None and (request.messages or request.answers):
            found.setdefault(request.conversation, []).append(request)
    if not found:
        source.refuse_empty("holds no requests to a model with their messages")
    for name, requests in found.items():
        yield _conversation(source, name, requests)


def _conversation(source: Source, name: str, requests: list[ModelRequest]) -> Conversation:
    last = max(requests, key=lambda it: (len(it.messages), it.started))
    reading = Reading(source)
    for number, fields in enumerate((*last.messages, *last.answers[:1]), start=1):
        where = f"conversation {name}, message {number}"
        with source.leaving_out(), source.placed(where):
            reading.add(where, _with_role(fields))
    for _ in last.answers[1:]:
        reading.leave_out(OTHER_ANSWERS)
    for it in requests:
        if it.messages != last.messages[: len(it.messages)]:
            reading.leave_out(OTHER_PROMPTS)
    return reading.conversation(name, tools=last.tools, id_=name)


def _with_role(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ValueError(f"expected a message, got {kind_of(fields)}")
    kind = fields.get("type")
    if "role" in fields or not isinstance(kind, str):
        return fields
    if kind in RESPONSES_ITEMS:
        return {"role": RESPONSES_ITEMS[kind], "content": [fields]}
    # LangChain's own messages.
    return {**fields, "role": kind} if kind in ROLES else fields


def parsed(value: Any) -> Any:
    """Return the JSON value that a text holds, or the text, or what is no text."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{", '"'):
        return value
    try:
        return json.loads(value)
    except (RecursionError, ValueError):
        return value


def parsed_list(value: Any, what: str) -> list[Any]:
    """Return the array that ``value`` is, or that its text holds; empty for nothing.

    Raises:
        ValueError: it is none, as where a text was cut off.
    """
    found = parsed(value)
    if found is None or found == "":
        return []
    if not isinstance(found, list):
        raise ValueError(f"'{what}': expected an array, got {kind_of(found)}: is it cut off?")
    return found


def read_prompt(value: Any) -> tuple[list[Any], Any]:
    """Return the messages that a request holds, in the shape of any chat API, and its tools."""
    given = parsed(value)
    if isinstance(given, str):
        return ([{"role": "user", "content": given}] if given else []), None
    if isinstance(given, list):
        if len(given) == 1 and isinstance(given[0], list):
            # LangChain's: a list of prompts.
            given = given[0]
        defined = [it["content"] for it in given if _is_tool(it)]
        return [_said_by_user(it) for it in given if not _is_tool(it)], defined
    if not isinstance(given, dict):
        return [], None
    if "role" in given:
        return [given], None
    messages = next(
        (given[key] for key in ("messages", "input", "contents", "prompt") if given.get(key)), None
    )
    found, tools = read_prompt(messages)
    system = given.get("system") or given.get("instructions") or given.get("systemInstruction")
    if system:
        is_message = isinstance(system, dict) and "parts" in system
        spoken = system if is_message else {"content": system}
        found = [{**spoken, "role": "system"}, *found]
    return found, given.get("tools") or tools


def _is_tool(message: Any) -> bool:
    """Return true of a definition of a tool that stands among the messages."""
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, dict) and content.get("type") == "function"


def _said_by_user(message: Any) -> Any:
    return {"role": "user", "content": message} if isinstance(message, str) else message


def read_answers(value: Any) -> list[Any]:
    """Return the responses that an answer holds, in any of the shapes of chat APIs."""
    given = parsed(value)
    if isinstance(given, str):
        return [{"role": "assistant", "content": given}] if given else []
    if isinstance(given, list):
        if given and all(isinstance(it, dict) and "role" in it for it in given):
            return [it for it in given if it["role"] in ROLES]
        return [{"role": "assistant", "content": given}] if given else []
    if not isinstance(given, dict):
        return []
    if isinstance(given.get("choices"), list):
        choices = [it.get("message") or it for it in given["choices"] if isinstance(it, dict)]
        return [{"role": "assistant", **it} for it in choices if isinstance(it, dict)]
    if isinstance(given.get("generations"), list):
        first = given["generations"][:1]
        batch = first[0] if first and isinstance(first[0], list) else given["generations"]
        return [answer for it in batch for answer in read_answers(it)]
    if isinstance(given.get("output"), list):
        return [{"role": "assistant", "content": _flat(given["output"])}]
    for key in ("message", "output", "completion", "response"):
        if given.get(key):
            return read_answers(given[key])
    if any(key in given for key in ("content", "parts", "tool_calls")):
        return [{**given, "role": "assistant"}]
    text = given.get("text")
    return [{"role": "assistant", "content": text}] if isinstance(text, str) and text else []


def _flat(items: list[Any]) -> list[Any]:
    """Return the items of OpenAI's Responses API as blocks, those within messages too."""
    found: list[Any] = []
    for it in items:
        is_message = isinstance(it, dict) and it.get("type") == "message"
        content = it.get("content") if is_message else None
        found += content if isinstance(content, list) else [it]
    return found
