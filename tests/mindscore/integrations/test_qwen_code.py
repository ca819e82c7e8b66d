"""Qwen Code: sessions in the shape that 0.15.10 wrote."""

import json

from mindscore.integrations.qwen_code import NO_SETTING
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS

from .conftest import said

FORMAT = "qwen-code"


def record(uuid, parent, kind, *parts, **more):
    role = "model" if kind == "assistant" else "user"
    head = {"uuid": uuid, "parentUuid": parent, "sessionId": "s", "type": kind}
    return {**head, "message": {"role": role, "parts": list(parts)}, **more}


def lines(*records):
    return "".join(json.dumps(it) + "\n" for it in records).encode()


def test_the_conversation_leads_to_the_last_record(one):
    conversation = one("qwen_code.jsonl")
    assert conversation.id == "7deb-a"
    assert said(conversation) == [
        ("user", "Summary: she builds a boat of oak."),
        ("assistant", "Understood."),
        ("user", "Which glue?"),
        ("assistant", "I look."),
        ("tool", '{"output": "glue.txt"}'),
        ("assistant", "Oak glue."),
        ("user", "And screws?"),
        ("assistant", "Brass."),
    ]
    looked, result = conversation.messages[3:5]
    assert (looked.id, looked.reasoning) == ("u5", "I should look.")
    [call] = looked.tool_calls
    assert (call.name, call.arguments, call.id) == (
        "run_shell_command", '{"command": "ls"}', "call_1",
    )  # fmt: skip
    assert (result.tool_call_id, result.name) == ("call_1", "run_shell_command")
    assert looked.timestamp_ns is not None


def test_what_is_not_recorded_or_left_out_is_said(one):
    *not_recorded, left_out = one("qwen_code.jsonl").remarks
    assert not_recorded == [NO_SYSTEM, NO_TOOLS, NO_SETTING]
    assert "messages before a compression (2)" in left_out


def test_records_of_one_id_follow_each_other(one):
    first, more = {"text": "b"}, {"functionCall": {"id": "c", "name": "ls", "args": {}}}
    content = lines(
        record("1", None, "user", {"text": "a"}),
        record("2", "1", "assistant", first),
        record("2", "1", "assistant", more),
        record("3", "2", "user", {"text": "d"}),
    )
    messages = one(content).messages
    assert [it.text for it in messages] == ["a", "b", "", "d"]
    assert messages[2].tool_calls[0].id == "c"


def test_parents_in_a_circle_end(one):
    content = lines(
        record("1", "2", "user", {"text": "a"}), record("2", "1", "assistant", {"text": "b"})
    )
    assert [text for _, text in said(one(content))] == ["a", "b"]


def test_a_record_that_is_not_valid_is_left_out_with_its_place(one):
    content = lines(
        record("1", None, "user", {"text": "a"}),
        record("2", "1", "assistant", {"text": 3}),
        record("3", "2", "user", message=3),
        {"uuid": 4},
        record("5", "3", "assistant", {"text": "b"}),
    )
    conversation = one(content + b'{"uuid": "6')
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    remarks = "\n".join(conversation.remarks)
    for it in (
        "line 2: 'content.text': expected text",
        "line 3: 'message': expected an object",
        "line 4: 'uuid': expected text",
        "line 6: is not valid JSON",
    ):
        assert it in remarks


def test_a_session_without_messages_is_refused(refused):
    empty = {"uuid": "1", "parentUuid": None, "sessionId": "s", "type": "system"}
    assert refused(lines({**empty, "systemPayload": {}})).endswith("holds no messages")
