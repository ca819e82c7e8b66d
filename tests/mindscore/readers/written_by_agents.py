"""Conversations written as coding agents keep them, for tests that read them back."""

import json
from collections.abc import Callable, Iterable, Sequence

Said = Sequence[tuple[str, str]]
NO_SYSTEM = frozenset({"system"})
TIME = "2026-03-03T10:00:00.123Z"


def _lines(values: Iterable[object]) -> bytes:
    return "".join(json.dumps(it, ensure_ascii=False) + "\n" for it in values).encode()


def codex(said: Said) -> bytes:
    items: list[dict[str, object]] = []
    for role, text in said:
        if role == "tool":
            items.append({"type": "function_call_output", "call_id": "c", "output": text})
            continue
        kind = "output_text" if role == "assistant" else "input_text"
        speaker = "developer" if role == "system" else role
        content = [{"type": kind, "text": text}]
        items.append({"type": "message", "role": speaker, "content": content})
    session = {"timestamp": TIME, "type": "session_meta", "payload": {"id": "s"}}
    lines = [{"timestamp": TIME, "type": "response_item", "payload": it} for it in items]
    return _lines([session, *lines])


def gemini_cli(said: Said) -> bytes:
    messages = []
    for at, (role, text) in enumerate(said):
        part: dict[str, object] = {"text": text}
        if role == "tool":
            part = {"functionResponse": {"id": f"c{at}", "name": "look", "response": text}}
        kind = "gemini" if role == "assistant" else "user"
        messages.append({"id": f"m{at}", "timestamp": TIME, "type": kind, "content": [part]})
    return _lines([{"sessionId": "s", "projectHash": "h", "startTime": TIME}, *messages])


def copilot_cli(said: Said) -> bytes:
    events: list[tuple[str, dict[str, object]]] = [("session.start", {"sessionId": "s"})]
    for role, text in said:
        if role == "tool":
            result = {"toolCallId": "c", "success": True, "result": {"content": text}}
            events.append(("tool.execution_complete", result))
        else:
            events.append((f"{role}.message", {"role": role, "content": text}))
    return _lines(
        {"type": kind, "data": data, "id": f"e{at}", "timestamp": TIME}
        for at, (kind, data) in enumerate(events)
    )


def opencode(said: Said) -> bytes:
    messages = [
        {
            "info": {"id": f"m{at}", "role": role, "time": {"created": at}},
            "parts": [{"type": "text", "text": text}],
        }
        for at, (role, text) in enumerate(said)
    ]
    return json.dumps({"info": {"id": "s", "title": "t"}, "messages": messages}, indent=2).encode()


def pi(said: Said) -> bytes:
    entries: list[dict[str, object]] = [{"type": "session", "version": 3, "id": "s", "cwd": "/p"}]
    for at, (role, text) in enumerate(said):
        content = [{"type": "text", "text": text}]
        message: dict[str, object] = {"role": role, "content": content}
        if role == "tool":
            message = {"role": "toolResult", "toolCallId": "c", "content": content}
        parent = f"e{at - 1}" if at else None
        entry = {"type": "message", "id": f"e{at}", "parentId": parent, "timestamp": TIME}
        entries.append({**entry, "message": message})
    return _lines(entries)


def goose(said: Said) -> bytes:
    conversation = []
    for role, text in said:
        block: dict[str, object] = {"type": "text", "text": text}
        if role == "tool":
            value = {"content": [{"type": "text", "text": text}], "isError": False}
            result = {"status": "success", "value": value}
            block = {"type": "toolResponse", "id": "c", "toolResult": result}
        speaker = "user" if role == "tool" else role
        conversation.append({"role": speaker, "created": 1_772_532_000, "content": [block]})
    session = {"id": "s", "name": "t", "working_dir": "/p", "conversation": conversation}
    return json.dumps(session, indent=2).encode()


def cursor(said: Said) -> bytes:
    return _lines(
        {"role": role, "message": {"content": [{"type": "text", "text": text}]}}
        for role, text in said
    )


def qwen_code(said: Said) -> bytes:
    records = []
    for at, (role, text) in enumerate(said):
        part: dict[str, object] = {"text": text}
        if role == "tool":
            part = {"functionResponse": {"id": "c", "name": "look", "response": text}}
        speaker = "model" if role == "assistant" else "user"
        records.append(
            {
                "uuid": f"u{at}",
                "parentUuid": f"u{at - 1}" if at else None,
                "sessionId": "s",
                "type": "tool_result" if role == "tool" else role,
                "message": {"role": speaker, "parts": [part]},
            }
        )
    return _lines(records)


def cline(said: Said) -> bytes:
    messages = []
    for role, text in said:
        block = {"type": "text", "text": text}
        if role == "tool":
            block = {"type": "tool_result", "tool_use_id": "c", "content": text}
        speaker = "user" if role == "tool" else role
        messages.append({"role": speaker, "content": [block], "ts": 1_772_532_000_123})
    return json.dumps(messages).encode()


AGENTS: dict[str, tuple[str, Callable[[Said], bytes], frozenset[str]]] = {
    "codex": ("codex", codex, frozenset()),
    "gemini-cli": ("gemini-cli", gemini_cli, NO_SYSTEM),
    "copilot-cli": ("copilot-cli", copilot_cli, frozenset()),
    # A result is part of the call there.
    "opencode": ("opencode", opencode, frozenset({"system", "tool"})),
    "pi": ("pi", pi, NO_SYSTEM),
    "goose": ("goose", goose, NO_SYSTEM),
    "cursor": ("cursor", cursor, frozenset({"system", "tool"})),
    "qwen-code": ("qwen-code", qwen_code, NO_SYSTEM),
    "cline": ("cline", cline, NO_SYSTEM),
}
"""Each with the name of its format, and the roles that it does not record."""
