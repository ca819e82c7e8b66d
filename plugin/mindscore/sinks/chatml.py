"""A prompt in ChatML, taken apart into the messages that it was made from."""

from __future__ import annotations

import re

START, END = "<|im_start|>", "<|im_end|>"

_ROLES = {
    "system": "system",
    "memory": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""What trainers' chat templates call each: none knows of memories."""

_MESSAGE = re.compile(rf"{re.escape(START)}(\w+)\n(.*?){re.escape(END)}\n", flags=re.DOTALL)
_ASKS = f"{START}assistant\n"
_SPECIAL = re.compile(r"<\|\w+\|>")


def messages_of(context: str, answer: str) -> list[dict[str, str]]:
    """The messages of the prompt ``context``, and ``answer`` as the last.

    Raises:
        ValueError: they are no plain ChatML; the text says what is there instead.
    """
    messages, at = [], 0
    while found := _MESSAGE.match(context, at):
        role, content = found.groups()
        if role not in _ROLES:
            raise ValueError(f"a message of the role {role!r}")
        messages.append({"role": _ROLES[role], "content": _plain(content)})
        at = found.end()
    if context[at:] != _ASKS:
        raise ValueError("a prompt that is not ChatML")
    messages.append({"role": "assistant", "content": _plain(answer.removesuffix(END))})
    return messages


def _plain(content: str) -> str:
    if special := _SPECIAL.search(content):
        # Such as the place of an image.
        raise ValueError(f"{special[0]} within a message")
    return content
