"""The content of a message, block by block, in the words of any chat API.

OpenAI's chat and Responses, Anthropic's, Gemini's, Bedrock's, the Vercel AI SDK's, LangChain's and
OpenTelemetry's say the same things in other words: text, reasoning, a tool call, a tool's result,
an image. Whatever is none of these is named by an ``Omitted``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore.conversation.message import ToolCall

NAMED_IMAGES = "images that the file only names"


class Text(NamedTuple):
    """Text that a human reads."""

    text: str


class Reasoning(NamedTuple):
    """Text that the model wrote before its answer."""

    text: str


class ToolResult(NamedTuple):
    """The answer of a tool to a call."""

    call_id: str
    name: str
    text: str
    images: tuple[Image, ...]


class Omitted(NamedTuple):
    """The name of one thing that is not understood, or cannot be scored."""

    what: str


class Step(NamedTuple):
    """The mark of one more request to the model within a message."""


Piece = Text | Reasoning | ToolCall | ToolResult | Image | Omitted | Step


def said(pieces: Iterable[Piece]) -> tuple[str, tuple[Image, ...]]:
    """Return the text and the images among ``pieces``."""
    pieces = list(pieces)
    text = "".join(it.text for it in pieces if isinstance(it, Text))
    return text, tuple(it for it in pieces if isinstance(it, Image))


def read_call(call: Any) -> ToolCall:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = call.get("id") if isinstance(call, Mapping) else None
    if isinstance(call, Mapping) and isinstance(custom := call.get("custom"), Mapping):
        # A custom tool's input is text of any form.
        return _call(custom.get("name"), json.dumps(custom.get("input")), name)
    if not isinstance(function, Mapping):
        raise TranscriptError("'tool_calls': expected objects with a function")
    given = function.get("arguments", function.get("args", function.get("input", "{}")))
    return _call(function.get("name"), given, name)


def _call(name: Any, arguments: Any, id_: Any) -> ToolCall:
    if not isinstance(name, str):
        kind = type(name).__name__
        raise TranscriptError(f"a tool call's 'name': expected text, got {kind}")
    if not isinstance(arguments, str):
        arguments = _json({} if arguments is None else arguments, "a tool call's arguments")
    return ToolCall(name, arguments, id_ if isinstance(id_, str) else "")


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):
        raise TranscriptError(f"{what}: are no JSON") from None


def read_blocks(content: Any) -> Iterator[Piece]:
    if content is None:
        return
    if isinstance(content, str):
        yield Text(content)
        return
    if isinstance(content, Mapping) and content:
        content = [content]
    if not isinstance(content, Sequence):
        kind = type(content).__name__
        raise TranscriptError(f"'content': expected text or parts, got {kind}")
    for block in content:
        if isinstance(block, str):
            yield Text(block)
        elif isinstance(block, Mapping):
            yield from _block(block)
        else:
            raise TranscriptError(f"'content': expected parts, got {type(block).__name__}")


def _block(block: Mapping[str, Any]) -> Iterator[Piece]:
    kind = block.get("type")
    if kind is None:
        yield from _untyped(block)
        return
    read = _KINDS.get(kind) if isinstance(kind, str) else None
    if read is not None:
        yield from read(block)
    elif isinstance(kind, str) and "toolCallId" in block:
        # Vercel names a part after its tool.
        yield from invocation(block)
    elif isinstance(kind, str) and kind.endswith("_tool_result"):
        yield _result(block)
    else:
        yield Omitted(str(kind))


def _untyped(block: Mapping[str, Any]) -> Iterator[Piece]:
    """Read a block of Gemini's or Bedrock's, whose only key says what it is."""
    for key, read in _KEYS.items():
        if key in block:
            yield from read(block[key], block)
            return
    keys = ", ".join(sorted(map(str, block))[:3])
    yield Omitted(f"parts of no type ({keys})" if keys else "parts of no type")


def _text(block: Mapping[str, Any]) -> Iterator[Piece]:
    text = block.get("text", block.get("content"))
    if isinstance(text, Mapping):
        # The Assistants API has annotations beside it.
        text = text.get("value")
    if not isinstance(text, str):
        raise TranscriptError(f"'content.text': expected text, got {type(text).__name__}")
    yield Text(text)


def _refusal(block: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _text({"text": block.get("refusal")})


def _reasoning(block: Mapping[str, Any]) -> Iterator[Piece]:
    for key in ("thinking", "reasoning", "text", "content", "summary"):
        if text := reasoning_text(block.get(key)):
            yield Reasoning(text)
            return
    if block.get("encrypted_content") or block.get("data"):
        yield Omitted("reasoning that is encrypted")


def reasoning_text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(filter(None, map(reasoning_text, value)))
    if isinstance(value, Mapping):
        value = value.get("text", value.get("thinking"))
    return value if isinstance(value, str) else ""


def _tool_use(block: Mapping[str, Any]) -> Iterator[Piece]:
    """Read a call, under any of the names of its fields."""
    inner = block.get("toolCall")
    if isinstance(inner, Mapping):
        # Goose keeps the call with its status.
        inner = inner.get("value", inner)
        block = {**block, **(inner if isinstance(inner, Mapping) else {})}
    arguments = next(
        (block[key] for key in ("input", "arguments", "args") if block.get(key) is not None), None
    )
    name = first_field(block, "name", "toolName", "tool_name") or block.get("name")
    if block.get("type") == "custom_tool_call":
        arguments = json.dumps(arguments, ensure_ascii=False)
    yield _call(name, arguments, first_field(block, *_CALL_IDS))


_CALL_IDS = ("call_id", "tool_use_id", "tool_call_id", "toolCallId", "toolUseId", "id")


def _tool_result(block: Mapping[str, Any]) -> Iterator[Piece]:
    yield _result(block)


def _result(block: Mapping[str, Any]) -> ToolResult:
    keys = ("content", "output", "result", "response", "toolResult", "errorText", "error")
    value = next((block[key] for key in keys if block.get(key) is not None), None)
    text, images = _result_text(value)
    name = first_field(block, "name", "toolName", "tool_name")
    return ToolResult(first_field(block, *_CALL_IDS), name, text, images)


def _result_text(value: Any) -> tuple[str, tuple[Image, ...]]:
    """Return a tool's result as the model reads it: text, or JSON of what is none."""
    if value is None:
        return "", ()
    if isinstance(value, str):
        return value, ()
    if isinstance(value, Mapping):
        if {"type", "value"} <= value.keys() or value.get("status") in ("success", "error"):
            return _result_text(value.get("value", value.get("error")))
        if isinstance(value.get("content"), list) and "type" not in value:
            return _result_text(value["content"])
    blocks = value if isinstance(value, list) else [value]
    if all(isinstance(it, str) or _is_block(it) for it in blocks):
        pieces = list(read_blocks(blocks))
        if all(isinstance(it, Text | Image) for it in pieces):
            return said(pieces)
    return _json(value, "a tool's result"), ()


def _is_block(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    kind = value.get("type")
    return (isinstance(kind, str) and kind in _KINDS) or value.keys() == {"text"}


def invocation(block: Mapping[str, Any]) -> Iterator[Piece]:
    """Read a part of Vercel's: a call, and its result once the tool has answered."""
    inner = block.get("toolInvocation")
    if isinstance(inner, Mapping):
        block = inner
    kind = str(block.get("type", ""))
    name = first_field(block, "toolName") or kind.removeprefix("tool-")
    given = block.get("input", block.get("args"))
    id_ = first_field(block, "toolCallId")
    yield _call(name, given, id_)
    answered = [block[key] for key in ("output", "result", "errorText") if key in block]
    if answered:
        text, images = _result_text(answered[0])
        yield ToolResult(id_, name, text, images)


def _image(block: Mapping[str, Any]) -> Iterator[Piece]:
    address = _data_address(block)
    yield Omitted(NAMED_IMAGES) if address is None else _decoded(*address)


def _file(block: Mapping[str, Any]) -> Iterator[Piece]:
    mime = first_field(block, "mediaType", "mimeType", "mime_type", "mime")
    if mime.startswith("image/"):
        url = first_field(block, "url", "data", "content")
        yield from _image(
            {"image_url": url} if url.startswith("data:") else {"mime_type": mime, "data": url}
        )
    else:
        yield Omitted(first_field(block, "type") or "files")


def _data_address(block: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return media type and base64 of an image that the block holds; ``None`` if it names one."""
    given = block.get("image_url", block.get("image"))
    url = given.get("url") if isinstance(given, Mapping) else given
    if isinstance(url, str):
        head, found, data = url.partition(";base64,")
        is_held = bool(found) and head.startswith("data:")
        return (head.removeprefix("data:"), data) if is_held else None
    source = block.get("source")
    held = source if isinstance(source, Mapping) else block
    mime = first_field(held, "media_type", "mime_type", "mimeType", "mediaType")
    data = first_field(held, "base64", "data", "content")
    return (mime, data) if mime and data else None


def _decoded(mime: str, data: str) -> Image:
    try:
        return Image(mime, base64.b64decode(data, validate=True))
    # Not only binascii.Error: of characters that are not ASCII.
    except ValueError:
        raise TranscriptError("an image: is not base64") from None


def _step(_: Mapping[str, Any]) -> Iterator[Piece]:
    yield Step()


def _nothing(_: Mapping[str, Any]) -> Iterator[Piece]:
    return iter(())


_KINDS: dict[str, Callable[[Mapping[str, Any]], Iterator[Piece]]] = {
    **dict.fromkeys(("text", "input_text", "output_text"), _text),
    "refusal": _refusal,
    **dict.fromkeys(("thinking", "reasoning", "redacted_thinking", "thought"), _reasoning),
    **dict.fromkeys(
        (
            "tool_use", "server_tool_use", "mcp_tool_use", "tool_call", "function_call",
            "custom_tool_call", "tool-call", "toolCall", "toolRequest",
        ),
        _tool_use,
    ),
    **dict.fromkeys(
        (
            "tool_result", "tool_call_response", "function_call_output", "custom_tool_call_output",
            "tool-result", "toolResult", "toolResponse",
        ),
        _tool_result,
    ),
    **dict.fromkeys(("tool-invocation", "dynamic-tool"), invocation),
    **dict.fromkeys(("image", "image_url", "input_image"), _image),
    **dict.fromkeys(("file", "blob"), _file),
    **dict.fromkeys(("step-start", "step_start"), _step),
    "cache_control": _nothing,
}  # fmt: skip
"""The readers of blocks by their ``type``."""


def _plain(value: Any, block: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _reasoning({"text": value}) if block.get("thought") else _text({"text": value})


def _keyed(
    read: Callable[[Mapping[str, Any]], Iterator[Piece]],
) -> Callable[[Any, Mapping[str, Any]], Iterator[Piece]]:
    def read_inner(value: Any, block: Mapping[str, Any]) -> Iterator[Piece]:
        del block
        return read(value) if isinstance(value, Mapping) else iter((Omitted("parts"),))

    return read_inner


def _bedrock_image(value: Mapping[str, Any]) -> Iterator[Piece]:
    source = value.get("source")
    data = first_field(source, "bytes") if isinstance(source, Mapping) else ""
    mime = f"image/{first_field(value, 'format')}"
    yield _decoded(mime, data) if data else Omitted(NAMED_IMAGES)


def _bedrock_reasoning(value: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _reasoning({"text": value.get("reasoningText")})


_KEYS: dict[str, Callable[[Any, Mapping[str, Any]], Iterator[Piece]]] = {
    "functionCall": _keyed(_tool_use),
    "function_call": _keyed(_tool_use),
    "functionResponse": _keyed(_tool_result),
    "function_response": _keyed(_tool_result),
    "toolUse": _keyed(_tool_use),
    "toolResult": _keyed(_tool_result),
    "reasoningContent": _keyed(_bedrock_reasoning),
    "inlineData": _keyed(_file),
    "inline_data": _keyed(_file),
    "image": _keyed(_bedrock_image),
    "cachePoint": _keyed(_nothing),
    # Last: others may have it beside them.
    "text": _plain,
}


def first_field(fields: Mapping[str, Any], *keys: str) -> str:
    """Return the first value that is text and not empty, or empty text."""
    found = (fields.get(key) for key in keys)
    return next((it for it in found if isinstance(it, str) and it), "")
