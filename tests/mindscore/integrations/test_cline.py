"""Cline and Roo Code: tasks after Roo Code's source."""

import json

from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS

from .conftest import said

FORMAT = "cline"

TS = 1_777_629_600_250


def task(value):
    return json.dumps(value).encode()


def message(role, content, **more):
    return {"role": role, "content": content, "ts": TS, **more}


def test_a_task_is_read_as_the_model_sees_it(one):
    conversation = one("cline.json")
    details = "<environment_details>\n# VSCode Visible Files\nglue.txt\n</environment_details>"
    assert said(conversation) == [
        ("user", "Summary: she builds a boat of oak."),
        ("user", f"<feedback>\nWhich glue?\n</feedback>{details}"),
        ("assistant", "I look."),
        ("tool", "oak glue"),
        ("user", details),
        ("assistant", "Oak glue."),
        ("tool", "done"),
        ("user", "And screws?"),
        ("assistant", "Brass."),
    ]
    looked, result = conversation.messages[2:4]
    assert looked.reasoning == "I should look."
    [call] = looked.tool_calls
    assert (call.name, call.arguments, call.id) == (
        "read_file", '{"path": "glue.txt"}', "toolu_1",
    )  # fmt: skip
    assert result.tool_call_id == "toolu_1"
    assert looked.timestamp_ns == (TS + 4000) * 10**6


def test_what_is_not_recorded_or_left_out_is_said(one):
    no_system, no_tools, left_out = one("cline.json").remarks
    assert (no_system, no_tools) == (NO_SYSTEM, NO_TOOLS)
    for it in (
        "messages that are hidden from the model (2)",
        "reasoning that is encrypted (1)",
    ):
        assert it in left_out


def test_what_a_truncation_hides_is_left_out_while_its_marker_is_there(one):
    hidden = message("assistant", "b", truncationParent="t")
    marker = message("user", "(cut)", isTruncationMarker=True, truncationId="t")
    rest = [message("user", "c"), message("assistant", "d")]
    with_marker = one(task([message("user", "a"), marker, hidden, *rest]))
    assert [text for _, text in said(with_marker)] == ["a", "(cut)", "c", "d"]
    without = one(task([message("user", "a"), hidden, *rest]))
    assert [text for _, text in said(without)] == ["a", "b", "c", "d"]


def test_a_summary_in_the_models_name_is_said_to_be_none_of_its_responses(one):
    summary = message("assistant", "S", isSummary=True, condenseId="c")
    talk = [message("user", "a", condenseParent="c"), summary, message("user", "b")]
    conversation = one(task([*talk, message("assistant", "d")]))
    assert "line 1, item 2: a summary stands where a response would" in conversation.remarks


def test_version_2_has_messages_of_the_ai_sdk(one):
    call = {
        "type": "tool-call",
        "toolCallId": "c1",
        "toolName": "read_file",
        "input": {"path": "x"},
    }
    output = {"type": "text", "value": "oak"}
    result = {"type": "tool-result", "toolCallId": "c1", "toolName": "read_file", "output": output}
    messages = [
        message("user", [{"type": "text", "text": "a"}]),
        message("assistant", [{"type": "text", "text": "b"}, call]),
        message("tool", [result]),
        message("assistant", [{"type": "text", "text": "d"}]),
    ]
    conversation = one(task({"version": 2, "messages": messages}))
    assert said(conversation) == [
        ("user", "a"), ("assistant", "b"), ("tool", "oak"), ("assistant", "d"),
    ]  # fmt: skip
    assert conversation.messages[2].tool_call_id == "c1"


def test_messages_without_times_are_read_as_others_are(read):
    assert read(b'[{"role": "user", "content": "a"}]').format == "openai"
    assert (
        read(b'{"version": 2, "messages": [{"role": "user", "content": "a"}]}').format == "openai"
    )


def test_a_message_that_is_not_valid_is_left_out_with_its_place(one):
    talk = [
        message("user", "a"),
        message("assistant", [3]),
        message("x", "c"),
        message("assistant", "d"),
    ]
    conversation = one(task(talk))
    assert said(conversation) == [("user", "a"), ("assistant", "d")]
    remarks = "\n".join(conversation.remarks)
    assert "item 2: 'content': expected parts" in remarks
    assert "item 3: 'role': expected" in remarks
