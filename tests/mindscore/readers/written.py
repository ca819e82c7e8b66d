"""Conversations written in each format, for tests that read them back."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .written_by_agents import AGENTS

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


def chatgpt(said: Said) -> bytes:
    mapping: dict[str, object] = {"root": {"id": "root", "message": None, "parent": None}}
    for at, (role, text) in enumerate(said):
        author = {"role": role, "name": "web" if role == "tool" else None}
        content = {"content_type": "text", "parts": [text]}
        message = {"id": f"n{at}", "author": author, "content": content, "create_time": 1.5e9 + at}
        parent = f"n{at - 1}" if at else "root"
        mapping[f"n{at}"] = {"id": f"n{at}", "message": message, "parent": parent}
    current = f"n{len(said) - 1}"
    return _line([{"title": "t", "mapping": mapping, "current_node": current, "id": "c"}])


def claude_ai(said: Said) -> bytes:
    messages: list[dict[str, object]] = []
    for at, (role, text) in enumerate(said):
        if role == "tool":
            content = messages[-1]["content"]
            assert isinstance(content, list)
            content.append({"type": "tool_result", "name": "look", "content": text})
            continue
        sender = "human" if role == "user" else role
        content = [{"type": "text", "text": text}]
        messages.append({"uuid": f"m{at}", "sender": sender, "text": text, "content": content})
    return _pretty([{"uuid": "c", "name": "t", "chat_messages": messages}])


def open_webui(said: Said) -> bytes:
    spoken = [it for it in said if it[0] != "system"]
    nodes = {
        f"m{at}": {
            "id": f"m{at}", "parentId": f"m{at - 1}" if at else None, "role": role, "content": text
        }
        for at, (role, text) in enumerate(spoken)
    }  # fmt: skip
    history = {"messages": nodes, "currentId": f"m{len(spoken) - 1}"}
    return _line([{"id": "c", "title": "t", "chat": {"history": history, "params": {}}}])


def opentelemetry(said: Said) -> bytes:
    messages: list[dict[str, object]] = []
    for role, text in said:
        part = {"type": "text", "content": text}
        if role == "tool":
            part = {"type": "tool_call_response", "id": "c", "response": text}
        messages.append({"role": role, "parts": [part]})
    given = {"gen_ai.input.messages": messages}
    if said[-1][0] == "assistant":
        given = {"gen_ai.input.messages": messages[:-1], "gen_ai.output.messages": messages[-1:]}
    attributes = [
        {"key": key, "value": {"stringValue": json.dumps(value)}} for key, value in given.items()
    ]
    span = {"traceId": "t", "spanId": "s", "name": "chat", "attributes": attributes}
    return _line({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


def langfuse(said: Said) -> bytes:
    messages = _messages(said)
    is_answered = said[-1][0] == "assistant"
    generation = {
        "id": "o",
        "traceId": "t",
        "type": "GENERATION",
        "input": {"messages": messages[:-1] if is_answered else messages},
        "output": messages[-1] if is_answered else None,
    }
    return _pretty({"id": "t", "name": "n", "observations": [generation]})


def mlflow(said: Said) -> bytes:
    messages = _messages(said)
    is_answered = said[-1][0] == "assistant"
    inputs = {"messages": messages[:-1] if is_answered else messages, "model": "m"}
    outputs = {"choices": [{"index": 0, "message": messages[-1]}] if is_answered else []}
    attributes = {
        "mlflow.spanType": '"CHAT_MODEL"',
        "mlflow.spanInputs": json.dumps(inputs),
        "mlflow.spanOutputs": json.dumps(outputs),
    }
    span = {"trace_id": "t", "span_id": "s", "name": "chat", "attributes": attributes}
    return _line({"info": {"trace_id": "tr-1"}, "data": {"spans": [span]}})


def inspect(said: Said) -> bytes:
    sample = {"id": "s", "epoch": 1, "messages": _messages(said)}
    return _pretty({"version": 2, "status": "success", "eval": {}, "samples": [sample]})


def langgraph(said: Said) -> bytes:
    messages = [{"type": LANGCHAIN[role][0], "content": text} for role, text in said]
    return _line({"values": {"messages": messages}, "next": [], "metadata": {"thread_id": "t"}})


def letta(said: Said) -> bytes:
    messages = [
        {"id": f"message-{at}", "role": role, "content": [{"type": "text", "text": text}]}
        for at, (role, text) in enumerate(said)
    ]
    agent = {
        "id": "agent-0", "name": "a", "messages": messages, "block_ids": [],
        "in_context_message_ids": [it["id"] for it in messages],
    }  # fmt: skip
    return _pretty({"agents": [agent], "blocks": [], "tools": []})


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
    "chatgpt": ("chatgpt", chatgpt, frozenset({"system"})),
    "claude-ai": ("claude-ai", claude_ai, frozenset({"system"})),
    "open-webui": ("open-webui", open_webui, frozenset({"system", "tool"})),
    "opentelemetry": ("opentelemetry", opentelemetry, frozenset()),
    "langfuse": ("langfuse", langfuse, frozenset()),
    "mlflow": ("mlflow", mlflow, frozenset()),
    "inspect": ("inspect", inspect, frozenset()),
    "langgraph": ("langgraph", langgraph, frozenset()),
    "letta": ("letta", letta, frozenset()),
    **AGENTS,
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
