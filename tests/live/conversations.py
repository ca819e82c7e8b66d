"""Conversations to score: one with calls and thoughts, one of plain lines, and a long one."""

from __future__ import annotations

import json
from pathlib import Path

# One that lacks what vLLM adds, and one whose keys it puts in another order.
TOOLS = [
    {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}},
    {
        "type": "function",
        "function": {"strict": True, "parameters": {}, "description": "Sell.", "name": "sell"},
    },
]
CALL = {"name": "stock", "arguments": '{"item": "oolong", "at": [1, 2]}'}
MESSAGES = [
    {
        "role": "system",
        "content": "You help in a tea shop.\n- Ines drinks oolong.\n- Her dog is called Max .",
    },
    {"role": "user", "content": "How much of my tea is left? "},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Oolong: I look.",
        "tool_calls": [{"id": "call_0001", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "call_0001", "content": "3 tins"},
    {"role": "assistant", "content": "Three tins of oolong.", "reasoning_content": "Three."},
    {"role": "user", "content": "And who barks? 世界"},
    {"role": "assistant", "content": "Max does.", "reasoning_content": "The dog."},
]
MEMORIES = {"tea": "Ines drinks oolong.", "dog": "Her dog is called Max ."}

Line = dict[str, str]


def _turn(user: str, assistant: str) -> list[Line]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _memory(key: str, text: str) -> Line:
    return {"role": "memory", "key": key, "content": text}


LINES = [
    {"role": "system", "content": "You help in a tea shop."},
    *(_memory(key, text) for key, text in MEMORIES.items()),
    *_turn("What is my tea?", "It is oolong."),
    *_turn("And who barks?", "Max does."),
]


def long_lines(*, before: int, memories: int, after: int = 0) -> list[Line]:
    """Return a conversation of turns before memories, one after each, and after them.

    A turn and a memory have about 25 tokens each.
    """
    lines = [{"role": "system", "content": "You help in a tea shop, and answer in one sentence."}]
    for number in range(before):
        lines += _turn(f"How many tins of tea {number} are left?", f"There are {number * 7 % 11}.")
    for number in range(memories):
        guest = f"Guest {number}"
        lines.append(_memory(f"guest-{number}", f"{guest} drinks tea {number * 5 % 13} at noon."))
        lines += _turn(f"What does {guest} like?", f"Tea {number * 5 % 13}, at noon.")
    for number in range(after):
        lines += _turn(f"And what is on shelf {number}?", f"Tea {number * 5 % 17}.")
    return lines


def write(folder: Path) -> dict[str, list[str]]:
    """Write them all to ``folder``; return the arguments of ``mindscore score`` for each."""
    chat, memories = folder / "chat.json", folder / "memories.json"
    chat.write_text(json.dumps({"messages": MESSAGES, "tools": TOOLS}), "utf-8")
    memories.write_text(json.dumps(MEMORIES), "utf-8")
    arguments = {"chat": [str(chat), "--memories", str(memories)]}
    for name, lines in {
        "lines": LINES,
        "late": long_lines(before=20, memories=6),
        "early": long_lines(before=0, memories=24, after=60),
    }.items():
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        arguments[name] = [str(file)]
    return arguments
