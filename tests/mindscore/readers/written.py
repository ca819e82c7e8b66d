"""Conversations written in each format, for tests that read them back."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"

Said = Sequence[tuple[str, str]]
"""Roles and texts; the formats' own names for the roles are theirs."""


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()


def _messages(said: Said) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in said]


def openai(said: Said) -> bytes:
    return _line({"messages": _messages(said)})


def openai_array(said: Said) -> bytes:
    return _pretty(_messages(said))


def sharegpt(said: Said) -> bytes:
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names.get(role, role), "value": text} for role, text in said]
    return _line({"conversations": turns})


LANGCHAIN = {
    "system": ("system", "SystemMessage"),
    "user": ("human", "HumanMessage"),
    "assistant": ("ai", "AIMessage"),
    "tool": ("tool", "ToolMessage"),
}


def langchain(said: Said) -> bytes:
    return _pretty([{"type": LANGCHAIN[role][0], "data": {"content": text}} for role, text in said])


def langchain_dumpd(said: Said) -> bytes:
    return b"".join(
        _line(
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "schema", "messages", LANGCHAIN[role][1]],
                "kwargs": {"content": text, "type": LANGCHAIN[role][0]},
            }
        )
        for role, text in said
    )


def claude_code(said: Said) -> bytes:
    lines = []
    for at, (role, text) in enumerate(said):
        content: object = text if role == "user" else [{"type": "text", "text": text}]
        if role == "tool":
            content = [{"type": "tool_result", "tool_use_id": f"c{at}", "content": text}]
        speaker = "assistant" if role == "assistant" else "user"
        lines.append(
            {
                "parentUuid": f"u{at - 1}" if at else None,
                "isSidechain": False,
                "sessionId": "s",
                "type": speaker,
                "uuid": f"u{at}",
                "timestamp": "2026-03-03T10:00:00.123Z",
                "message": {"role": speaker, "content": content, "id": f"m{at}"},
            }
        )
    return b"".join(map(_line, lines))


def claude_stream(said: Said) -> bytes:
    lines = []
    for at, (role, text) in enumerate(said):
        content: object = [{"type": "text", "text": text}]
        if role == "tool":
            content = [{"type": "tool_result", "tool_use_id": f"c{at}", "content": text}]
        speaker = "assistant" if role == "assistant" else "user"
        message = {"role": speaker, "content": content, "id": f"m{at}"}
        lines.append({"type": speaker, "session_id": "s", "message": message})
    return b"".join(map(_line, lines))


def responses(said: Said) -> bytes:
    items: list[object] = []
    for role, text in said:
        if role == "tool":
            items.append({"type": "function_call_output", "call_id": "c", "output": text})
        else:
            kind = "output_text" if role == "assistant" else "input_text"
            items.append(
                {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
            )
    return _line({"model": "m", "input": items})


def hermes(said: Said) -> bytes:
    prompt = "\n\n".join(text for role, text in said if role == "system")
    rows = [
        {"id": at, "role": role, "content": text, "active": 1}
        for at, (role, text) in enumerate(said, start=1)
        if role != "system"
    ]
    return _line({"id": "s", "source": "cli", "system_prompt": prompt, "messages": rows})


def atif(said: Said) -> bytes:
    steps: list[dict[str, object]] = []
    for role, text in said:
        if role == "tool":
            steps[-1]["observation"] = {"results": [{"content": text}]}
            continue
        source = "agent" if role == "assistant" else role
        steps.append({"step_id": len(steps) + 1, "source": source, "message": text})
    return _pretty({"schema_version": "ATIF-v1.7", "agent": {"name": "a"}, "steps": steps})


WRITERS: dict[str, tuple[str, Callable[[Said], bytes], frozenset[str]]] = {
    "openai": ("openai", openai, frozenset()),
    "openai array": ("openai", openai_array, frozenset()),
    "sharegpt": ("sharegpt", sharegpt, frozenset()),
    "langchain": ("langchain", langchain, frozenset()),
    "langchain dumpd": ("langchain", langchain_dumpd, frozenset()),
    "claude-code": ("claude-code", claude_code, frozenset({"system"})),
    "claude-code-stream": ("claude-code-stream", claude_stream, frozenset({"system"})),
    "openai-responses": ("openai-responses", responses, frozenset()),
    "atif": ("atif", atif, frozenset()),
    "hermes": ("hermes", hermes, frozenset({"system"})),
}
"""Each with the name of its format, and the roles that it does not record."""


def long_talk(turns: int, roles: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """As many turns, of which each fifth has a tool called; without some ``roles``."""
    said = [("system", "You help.\n" + "Be kind. " * 100)]
    for turn in range(turns):
        said.append(("user", f"Question {turn}? " + "And so on. " * 20))
        if turn % 5 == 0:
            said += [("assistant", "Let me look."), ("tool", f"result {turn}\n" * 50)]
        said.append(("assistant", f"Answer {turn}. " + "It is so. " * 40))
    return [it for it in said if it[0] not in roles]
