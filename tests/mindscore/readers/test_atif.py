"""ATIF: trajectories of steps."""

import json

from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_TOOLS

COPIED = (
    "steps copied from an earlier trajectory (1) are scored like any other, but are not meant for "
    "training"
)


def trajectory(*steps, **more):
    return json.dumps({"schema_version": "ATIF-v1.8", "steps": steps, **more}).encode()


def test_steps_are_messages_and_observations_those_of_tools(read):
    conversations = read("atif.json")
    assert conversations.format == "atif"
    (conversation,) = conversations.found
    assert conversation.name == "t-1"
    assert [(it.role, it.text) for it in conversation.messages[1:]] == [
        ("user", "What do I drink?"),
        ("assistant", "Let me look."),
        ("tool", "a tin of sencha"),
        ("assistant", "You drink green tea."),
        ("user", "And who is this?"),
        ("assistant", "Your dog, Rex."),
    ]
    assert conversation.messages[2].tool_calls == (ToolCall("look", '{"where": "küche"}'),)
    assert conversation.messages[2].id == "step-3"
    assert conversation.messages[2].timestamp_ns == 1772532002 * 10**9


def test_what_is_not_used_is_said(read):
    assert read("atif.json").found[0].remarks == (
        "recorded token ids are not used: the texts are tokenised anew",
        COPIED,
        "trajectories of subagents (1) are not read",
        "left out: images that the file only names (1)",
    )
    step = {"source": "agent", "message": "x", "tool_calls": [{"function_name": "f"}]}
    assert NO_TOOLS in read(trajectory(step)).found[0].remarks


def test_a_trajectory_is_called_by_its_session_or_its_number(read):
    step = {"source": "user", "message": "x"}
    assert read(trajectory(step, session_id="s")).found[0].name == "s"
    assert [it.name for it in read(trajectory(step) + b"\n" + trajectory(step)).found] == ["1", "2"]


def test_errors_name_step_and_field(refused):
    good = {"source": "user", "message": "x"}
    for step, said in [
        ({"source": "bot", "message": "x"}, "line 1, step 2: 'source': expected one of system"),
        ({"source": "user"}, "line 1, step 2: 'message': expected text or parts, got null"),
        ({**good, "timestamp": "now"}, "line 1, step 2: 'now' is not an ISO 8601 timestamp"),
        ({**good, "timestamp": 3}, "line 1, step 2: 'timestamp': expected text, got a number"),
        ({**good, "tool_calls": 3}, "line 1, step 2: 'tool_calls': expected an array"),
        ({**good, "observation": 3}, "line 1, step 2: 'observation': expected results"),
        (3, "line 1, step 2: expected an object, got a number"),
    ]:
        assert refused(trajectory(good, step)).startswith(said)
    broken = {**good, "observation": {"results": [{"content": 3}]}}
    assert refused(trajectory(broken)).startswith("line 1, step 1, result 1: 'content'")
    assert "'steps': expected an array" in refused(trajectory())
