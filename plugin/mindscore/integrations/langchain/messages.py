"""LangChain's messages as chat messages."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore.conversation.message import ROLES, Message, ToolCall


def chat_message(message: Any) -> Message:
    """A ``BaseMessage``; of its content, text and images with their bytes.

    Raises:
        TranscriptError: its type is not known.
    """
    role = ROLES.get(message.type)
    if role is None:
        raise TranscriptError(f"a message of type {message.type!r} is not known")
    content = message.content
    return Message(
        role=role,
        text=content if isinstance(content, str) else str(message.text),
        tool_calls=tuple(
            ToolCall(it["name"], json.dumps(it["args"], ensure_ascii=False))
            for it in getattr(message, "tool_calls", ())
        ),
        id=message.id or "",
        images=() if isinstance(content, str) else _images(message.content_blocks),
    )


def _images(blocks: list[Any]) -> tuple[Image, ...]:
    found: list[Image] = []
    for block in blocks:
        if block.get("type") == "image" and block.get("base64"):
            try:
                data = base64.b64decode(block["base64"], validate=True)
            except binascii.Error:
                raise TranscriptError("an image is not base64") from None
            found.append(Image(block.get("mime_type", "image/png"), data))
    return tuple(found)
