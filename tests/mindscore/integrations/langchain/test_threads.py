"""Threads of LangGraph."""

import json

import pytest

from mindscore.readers.conversations import Conversations

MESSAGES = [
    {"type": "human", "content": "Which glue?"},
    {"type": "ai", "content": "", "tool_calls": [{"name": "look", "args": {}, "id": "c1"}]},
    {"type": "tool", "content": "Glue holds.", "tool_call_id": "c1"},
    {"type": "AIMessageChunk", "content": [{"type": "text", "text": "Oak glue."}]},
]
SAID = [
    ("user", "Which glue?"), ("assistant", ""), ("tool", "Glue holds."), ("assistant", "Oak glue.")
]  # fmt: skip


def dumped(message):
    kinds = {"human": "HumanMessage", "ai": "AIMessage", "tool": "ToolMessage"}
    kind = kinds.get(message["type"], message["type"])
    path = ["langchain", "schema", "messages", kind]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": message}


@pytest.mark.parametrize(
    "record",
    [
        {"values": {"messages": MESSAGES}, "checkpoint": {"thread_id": "t"}},
        {"thread_id": "t", "status": "idle", "values": {"messages": MESSAGES}},
        {"v": 4, "channel_values": {"messages": MESSAGES}, "metadata": {"thread_id": "t"}},
        {
            "config": {"configurable": {"thread_id": "t"}},
            "checkpoint": {"channel_values": {"messages": [dumped(it) for it in MESSAGES]}},
        },
    ],
    ids=["state", "thread", "checkpoint", "tuple"],
)
def test_a_thread_is_read_in_every_shape(tmp_path, record):
    file = tmp_path / "thread.json"
    file.write_text(json.dumps(record))
    conversations = Conversations(file)
    assert conversations.format == "langgraph"
    [found] = conversations.found
    assert found.id == "t"
    assert [(it.role, it.text) for it in found.messages] == SAID


def test_states_of_several_threads_are_kept_apart(tmp_path):
    states = [
        {"values": {"messages": MESSAGES[:number]}, "metadata": {"thread_id": name}}
        for name, number in (("a", 4), ("b", 1), ("a", 2))
    ]
    file = tmp_path / "threads.jsonl"
    file.write_text("\n".join(map(json.dumps, states)))
    found = Conversations(file).found
    assert [(it.name, len(it.messages)) for it in found] == [("a", 4), ("b", 1)]
    assert any("earlier states of the same thread (1)" in it for it in found[0].remarks)


def test_a_damaged_message_is_left_out_with_its_place(tmp_path):
    file = tmp_path / "thread.json"
    broken = [*MESSAGES[:1], {"type": 3}, {"type": "remove", "content": "x"}, *MESSAGES[3:]]
    file.write_text(json.dumps({"values": {"messages": broken}}))
    [found] = Conversations(file).found
    assert [it.text for it in found.messages] == ["Which glue?", "Oak glue."]
    assert any("message 2: the message's type: expected text" in it for it in found.remarks)
    assert any("message 3: 'role': expected one of" in it for it in found.remarks)
