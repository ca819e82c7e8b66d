"""Conversations of traces: each request to a model holds its whole prompt, the last one all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import ROLES
from mindscore.readers.reading import Reading
from mindscore.readers.responses import OWN_TYPES, add_items
from mindscore.readers.source import Source, kind_of

T = TypeVar("T")

OTHER_PROMPTS = "requests with another prompt, such as a subagent's"
OTHER_ANSWERS = "further answers to the same prompt"


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
        yield conversation_of(source, name, requests)


def conversation_of(
    source: Source,
    name: str,
    requests: Sequence[ModelRequest],
    remarks: Sequence[str] | None = None,
) -> Conversation:
    """Return the longest of the requests, the last of those, with its answer.

    A message that is not valid is left out, and counted in the source's damage. ``remarks`` are in
    the place of the usual ones on what a file does not record.
    """
    last = max(requests, key=lambda it: (len(it.messages), it.started))
    reading = Reading(source)
    messages = [
        (f"conversation {name}, message {at}", it) for at, it in enumerate(last.messages, 1)
    ]
    if any(map(_is_responses_item, last.messages)):
        add_items(reading, source, messages)
        messages = []
    messages += [(f"conversation {name}, answer", it) for it in last.answers[:1]]
    for where, fields in messages:
        with source.leaving_out(), source.placed(where):
            reading.add(where, _with_role(fields))
    for _ in last.answers[1:]:
        reading.leave_out(OTHER_ANSWERS)
    for it in requests:
        if it.messages != last.messages[: len(it.messages)]:
            reading.leave_out(OTHER_PROMPTS)
    return reading.conversation(name, remarks, tools=last.tools, id_=name)


def _is_responses_item(message: Any) -> bool:
    """Return true of what OpenAI's Responses API has between messages."""
    kind = message.get("type") if isinstance(message, dict) and "role" not in message else None
    return isinstance(kind, str) and (kind in OWN_TYPES or kind.endswith("_call_output"))


def _with_role(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ValueError(f"expected a message, got {kind_of(fields)}")
    kind = fields.get("type")
    # LangChain's own messages.
    is_own = "role" not in fields and isinstance(kind, str) and kind in ROLES
    return {**fields, "role": kind} if is_own else fields


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
    """Return the messages that a request holds, in the shape of any chat API, and its tools.

    Raises:
        ValueError: it holds none that is understood.
    """
    if not isinstance(value, str):
        return _prompt(value)
    inner = parsed(value)
    # What the user says may be JSON.
    said = ([_said_by_user(value)] if value else []), None
    if isinstance(inner, list) and not all(isinstance(it, dict | list) for it in inner):
        return said
    try:
        return _prompt(inner) if isinstance(inner, list | dict) else said
    except ValueError:
        return said


def _prompt(given: Any) -> tuple[list[Any], Any]:
    if given is None:
        return [], None
    if isinstance(given, list):
        if len(given) == 1 and isinstance(given[0], list):
            # LangChain's: a list of prompts.
            given = given[0]
        if not all(isinstance(it, dict | str) for it in given):
            raise ValueError("the request: expected messages")
        defined = [it["content"] for it in given if _is_tool(it)]
        return [_said_by_user(it) for it in given if not _is_tool(it)], defined
    if not isinstance(given, dict):
        raise ValueError(f"the request: expected messages, got {kind_of(given)}")
    if "role" in given:
        return [given], None
    messages = next(
        (given[key] for key in ("messages", "input", "contents", "prompt") if given.get(key)), None
    )
    if messages is None:
        keys = ", ".join(map(str, list(given)[:3]))
        raise ValueError(
            f"the request: holds no messages that are understood, but {keys or 'none'}"
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
    """Return the responses that an answer holds, in the shape of any chat API; none of nothing.

    Raises:
        ValueError: it holds none that is understood.
    """
    given = parsed(value)
    is_blocks = isinstance(given, list) and all(isinstance(it, dict) for it in given)
    if isinstance(value, str) and not is_blocks and not isinstance(given, dict):
        given = value
    if given is None or given == "":
        return []
    if isinstance(given, list) and all(isinstance(it, dict) and "role" in it for it in given):
        return [it for it in given if it["role"] in ROLES]
    if isinstance(given, str | list):
        return [{"role": "assistant", "content": given}]
    found = _answers(given) if isinstance(given, dict) else []
    if not found and isinstance(value, str):
        # What the model says may be JSON.
        return [{"role": "assistant", "content": value}]
    if not found and given != {"choices": []}:
        raise ValueError("the answer: is in no form that is understood")
    return found


def _answers(given: dict[str, Any]) -> list[Any]:
    if isinstance(given.get("choices"), list):
        choices = [it.get("message") or it for it in given["choices"] if isinstance(it, dict)]
        return [{"role": "assistant", **it} for it in choices if isinstance(it, dict)]
    if isinstance(given.get("generations"), list):
        first = given["generations"][:1]
        batch = first[0] if first and isinstance(first[0], list) else given["generations"]
        return [answer for it in batch for answer in read_answers(it)]
    if isinstance(given.get("output"), list):
        return [{"role": "assistant", "content": _flat(given["output"])}]
    for key in ("message", "output", "completion", "response", "kwargs"):
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
