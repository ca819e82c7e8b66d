"""OpenAI's Responses API: requests, responses, both of a call, or their items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.arrays import PEEKED
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, first_text, kind_of, listed, own_name

GOES_ON = (
    "the request goes on from a conversation that the server keeps: what was before is not in the "
    "file"
)
NO_INPUT = "the file records no input: the scores are of a reconstructed context"

ACTIONS = ("local_shell_call", "shell_call", "computer_call", "apply_patch_call")
"""Calls of tools whose input has a field of its own."""
OWN_TYPES = (
    "function_call", "custom_tool_call", "reasoning", "web_search_call", "file_search_call",
    "code_interpreter_call", "mcp_call", "image_generation_call", *ACTIONS,
)  # fmt: skip
"""Types of items that no other API has on the level of messages."""
OWN_PARTS = ("input_text", "output_text", "input_image", "input_file")


class ResponsesReader:
    """Reads each call as a conversation; bare items, in an array or one a line, are one."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a call, or with items of one."""
        first = source.sample
        if not isinstance(first, dict):
            return False
        return _is_call(_merged(first)) or holds_items(source)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's conversations, named by the responses' ids or by numbers.

        Raises:
            TranscriptError: nothing in the file is valid; the text names the first place.
        """

        def conversation(number: str, where: str, record: dict[str, Any]) -> Conversation:
            return _conversation(source, number, where, _merged(record))

        if holds_items(source):
            reading = Reading(source)
            add_items(reading, source, source.objects())
            if not reading.messages:
                source.refuse_empty("holds no messages")
            return iter([reading.conversation("1")])
        return source.read_each(source.objects(), conversation, name_of_call)


def holds_items(source: Source) -> bool:
    """Return true if the file is an array of items, or one a line, and not of chat messages."""
    items = source.first
    if not isinstance(items, list):
        items = [it for it in islice(source.peek_lines(), PEEKED) if it is not None]
    return all(map(_is_item, items)) and any(map(_is_own, items))


def asked_and_answered(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return request and response of a call; where they do not stand apart, the record itself.

    Logs of proxies have both, and the files of a batch one of them.
    """
    asked, answered = record.get("request", record.get("body")), record.get("response")
    if isinstance(answered, dict):
        answered = answered.get("body", answered)
    return (
        asked if isinstance(asked, dict) else record,
        answered if isinstance(answered, dict) else record,
    )


def name_of_call(record: Any) -> str:
    """Return the id of a call: the record's own, or that of its response."""
    if not isinstance(record, dict):
        return ""
    return own_name(record) or own_name(asked_and_answered(record)[1])


def _merged(record: dict[str, Any]) -> dict[str, Any]:
    asked, answered = asked_and_answered(record)
    if asked is record and answered is record:
        return record
    output = {"output": answered["output"]} if "output" in answered else {}
    return {**asked, **output, "id": name_of_call(record)}


def _is_call(record: dict[str, Any]) -> bool:
    if "messages" in record:
        return False
    asked, answered = record.get("input"), record.get("output")
    if record.get("object") == "response":
        return isinstance(answered, list)
    items = [*(asked if isinstance(asked, list) else []), *listed(answered)]
    if asked is None or "model" not in record or not all(map(_is_item, items)):
        return False
    told = isinstance(record.get("instructions"), str) or "previous_response_id" in record
    return told or any(map(_is_own, items))


def _is_item(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("type", "message") == "message":
        return "role" in value and "content" in value
    return _is_own(value)


def _is_own(item: dict[str, Any]) -> bool:
    kind, parts = str(item.get("type")), listed(item.get("content"))
    typed = any(isinstance(it, dict) and it.get("type") in OWN_PARTS for it in parts)
    # Only messages have roles; with one, it is a block of a task of Roo Code.
    own = (kind in OWN_TYPES or kind.endswith("_call_output")) and "role" not in item
    return typed or own


def _conversation(source: Source, number: str, where: str, record: dict[str, Any]) -> Conversation:
    reading = Reading(source)
    instructions, asked, answered = (record.get(it) for it in ("instructions", "input", "output"))
    if isinstance(instructions, str) and instructions:
        reading.add(where, {"role": "system", "content": instructions})
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    for field, value in (("input", asked), ("output", answered)):
        if value is not None and not isinstance(value, list):
            source.refuse(where, f"'{field}': expected text or an array, got {kind_of(value)}")
    items = [*listed(instructions), *listed(asked), *listed(answered)]
    if not items:
        source.refuse(where, "'input': expected text or items, got none")
    numbered = ((f"{where}, item {at}", it) for at, it in enumerate(items, start=1))
    add_items(reading, source, numbered)
    if asked is None:
        reading.remarks.append(NO_INPUT)
    if record.get("previous_response_id") or record.get("conversation"):
        reading.remarks.append(GOES_ON)
    id_ = first_text(record.get("id"))
    return reading.conversation(id_ or number, tools=record.get("tools"), id_=id_)


def add_items(reading: Reading, source: Source, items: Iterable[tuple[str, Any]]) -> None:
    """Add the items; those of the model that follow each other are one response."""
    said: list[tuple[str, dict[str, Any]]] = []

    def respond() -> None:
        if said:
            where, first = said[0]
            content = [block for _, it in said for block in _blocks(it)]
            with source.leaving_out():
                reading.add(where, {"role": "assistant", "content": content, "id": first.get("id")})
            said.clear()

    for where, item in items:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if isinstance(item, dict) and (
            item.get("role") == "assistant" if kind == "message" else not _is_output(item)
        ):
            said.append((where, item))
            continue
        respond()
        with source.leaving_out():
            if not isinstance(item, dict):
                source.refuse(where, f"expected an object, got {kind_of(item)}")
            result = {**item, "type": "tool_result"}
            asked = item if kind == "message" else {"role": "tool", "content": [result]}
            reading.add(where, asked)
    respond()


def _is_output(item: dict[str, Any]) -> bool:
    return str(item.get("type")).endswith("_output")


def _blocks(item: dict[str, Any]) -> Iterator[Any]:
    """Yield the content of an item of the model's, as blocks of a message."""
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        yield from content if isinstance(content, list) else [content]
    elif kind in ACTIONS:
        given = item.get("action", item.get("operation"))
        yield {**item, "type": "tool_use", "name": kind.removesuffix("_call"), "input": given}
    elif kind == "mcp_call":
        yield {**item, "type": "mcp_tool_use"}
        if "output" in item or "error" in item:
            yield {"type": "tool_result", "id": item.get("id"), "output": item.get("output"),
                   "error": item.get("error")}  # fmt: skip
    else:
        yield item
