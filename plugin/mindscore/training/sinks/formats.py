"""The formats in which trainers load samples: one JSON object a sample."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mindhooks import NotAccepted, TrainingSample

START, END = "<|im_start|>", "<|im_end|>"

_ROLES = {
    "system": "system",
    "memory": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""The roles of trainers' chat templates: none has memories."""

_MESSAGE = re.compile(rf"{re.escape(START)}(\w+)\n(.*?){re.escape(END)}\n", flags=re.DOTALL)
_ASKS = f"{START}assistant\n"
_SPECIAL = re.compile(r"<\|\w+\|>")


def messages_of(context: str, answer: str) -> list[dict[str, str]]:
    """Return the messages of the prompt ``context``, and ``answer`` as the last one.

    Raises:
        ValueError: the prompt is not plain ChatML; the text says what is there instead.
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
        # Such as an image's placeholder.
        raise ValueError(f"{special[0]} within a message")
    return content


IGNORED = -100
"""The label by which trainers leave a token out of the loss."""


@dataclass(frozen=True, slots=True)
class Format:
    """The function that makes a line, and whether it needs texts, or a second answer.

    ``line`` raises ``NotAccepted`` for a sample that does not fit the format.
    """

    line: Callable[[TrainingSample], dict[str, Any]]
    wants_text: bool = True
    wants_rejected: bool = False


def _input_ids(sample: TrainingSample) -> dict[str, Any]:
    ids = (*sample.context_ids, *sample.continuation_ids)
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [IGNORED] * len(sample.context_ids) + list(sample.continuation_ids),
    }


def _prompt_completion(sample: TrainingSample) -> dict[str, Any]:
    return {"prompt": sample.context_text, "completion": sample.continuation_text}


def _messages(sample: TrainingSample) -> dict[str, Any]:
    try:
        messages = messages_of(sample.context_text or "", sample.continuation_text or "")
    except ValueError as error:
        raise NotAccepted(
            f"response {sample.candidate.node_id!r} has {error}: it cannot be written as messages; "
            "use the format input_ids, prompt_completion or preference"
        ) from None
    return {"messages": messages}


def _preference(sample: TrainingSample) -> dict[str, Any]:
    if sample.rejected_text is None:
        raise NotAccepted(
            f"response {sample.candidate.node_id!r} has no second answer: it is no preference; "
            "use the format input_ids, prompt_completion or messages"
        )
    return {
        "prompt": sample.context_text,
        "chosen": sample.continuation_text,
        "rejected": sample.rejected_text,
    }


FORMATS = {
    "input_ids": Format(_input_ids, wants_text=False),
    "prompt_completion": Format(_prompt_completion),
    "messages": Format(_messages),
    "preference": Format(_preference, wants_rejected=True),
}
"""The formats, by their names in ``train.format``."""
