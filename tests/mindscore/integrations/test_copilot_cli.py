"""Copilot CLI: events in the shape that 1.0.102 wrote."""

import json

import pytest

from mindscore.readers.reading import NO_TOOLS
from mindscore.recognisers import MemoryFinder

from .conftest import said

FORMAT = "copilot-cli"


def event(kind, **data):
    return {"type": kind, "data": data}


def session(*events):
    start = event("session.start", sessionId="s")
    return "".join(json.dumps(it) + "\n" for it in (start, *events)).encode()


def asked(text):
    return event("user.message", content=text)


def answered(text):
    return event("assistant.message", content=text, toolRequests=[])


def test_the_prompt_is_read_as_the_model_saw_it(one):
    conversation = one("copilot_cli.jsonl")
    assert (conversation.id, conversation.title) == ("9005-a", "Glue for a boat")
    (system, prompt), (user, question), *rest = said(conversation)
    assert (system, user) == ("system", "user")
    assert prompt.startswith("You are the GitHub Copilot CLI.")
    assert question.startswith("<current_datetime>")
    assert question.endswith("\n\nWhich glue?")
    assert rest == [
        ("assistant", "I look."),
        ("tool", "glue.txt"),
        ("tool", "Path does not exist"),
        ("assistant", "Oak glue."),
        ("user", "And screws?"),
        ("assistant", "Brass."),
    ]


def test_calls_have_their_ids_and_results(one):
    looked, *results = one("copilot_cli.jsonl").messages[2:5]
    assert (looked.id, looked.reasoning) == ("m2", "I should look.")
    assert [(it.name, it.arguments, it.id) for it in looked.tool_calls] == [
        ("bash", '{"command": "ls"}', "call_1"),
        ("view", '{"path": "x"}', "call_2"),
    ]
    assert [it.tool_call_id for it in results] == ["call_1", "call_2"]
    assert looked.timestamp_ns is not None


def test_what_is_left_out_is_counted(one):
    no_tools, left_out = one("copilot_cli.jsonl").remarks
    assert no_tools == NO_TOOLS
    for it in (
        "messages of subagents (1)",
        "messages that were taken back (2)",
        "attachments of type file (1)",
        "reasoning that is encrypted (1)",
        "events of type system.notification (1)",
    ):
        assert it in left_out


def test_a_compaction_leaves_the_prompt_and_the_summary_and_is_said_to_be_rebuilt(one):
    content = session(
        asked("a"), event("system.message", role="system", content="Help."), answered("b"),
        event("session.compaction_start"), answered("meanwhile"),
        event("session.compaction_complete", success=True, summaryContent="Summary."),
        asked("c"), answered("d"),
    )  # fmt: skip
    conversation = one(content)
    texts = [text for _, text in said(conversation)]
    assert texts == ["Help.", "Summary.", "meanwhile", "c", "d"]
    remarks = "\n".join(conversation.remarks)
    assert "line 7: the prompt after this compaction is rebuilt from its summary" in remarks
    assert "messages before a compaction (2)" in remarks


def test_a_compaction_that_failed_changes_nothing(one):
    failed = event("session.compaction_complete", success=False, error="x")
    assert len(one(session(asked("a"), answered("b"), failed)).messages) == 2


def test_a_cleared_context_holds_what_came_after(one):
    cleared = event("session.context_cleared", messagesCleared=2)
    content = session(asked("a"), answered("b"), cleared, asked("c"), answered("d"))
    assert [text for _, text in said(one(content))] == ["c", "d"]


def test_messages_that_were_cut_off_are_named(one):
    content = session(asked("a"), event("session.truncation"), answered("b"))
    assert any(it.startswith("line 3: the oldest messages were cut") for it in one(content).remarks)


def test_other_things_that_are_not_read_are_counted(one):
    binary = event(
        "tool.execution_complete", toolCallId="c",
        result={"content": "x", "binaryResultsForLlm": [{"type": "image"}]},
    )  # fmt: skip
    ran = event("tool.execution_complete", toolCallId="d", isUserRequested=True)
    other = event("system.message", role="system", content="Other.")
    first = event("system.message", role="system", content="Help.")
    [_, left_out] = one(session(asked("a"), first, binary, ran, other, answered("b"))).remarks
    for it in ("images and files that tools", "commands that the user ran", "later system prompts"):
        assert it in left_out


def test_a_line_that_is_not_valid_is_left_out_with_its_place(one):
    bad = event("assistant.message", content="x", toolRequests=[{"name": 3, "toolCallId": "c"}])
    conversation = one(session(asked("a"), bad, {"type": "x"}, answered("b")) + b'{"type": "as')
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    remarks = "\n".join(conversation.remarks)
    for it in ("line 3: a tool call's 'name'", "line 4: expected an event", "line 6: is not valid"):
        assert it in remarks


def test_a_session_without_messages_is_refused(refused):
    assert refused(session()).endswith(": holds no messages")


def test_custom_instructions_are_memories_under_a_hash(read):
    conversations = read("copilot_cli.jsonl")
    transcript = conversations.transcript(conversations.found[0])
    oak, planks = transcript.keys()
    assert oak.startswith("custom_instruction:")
    [prompt] = transcript.system
    assert prompt.text_without(frozenset({oak, planks})) == (
        "You are the GitHub Copilot CLI.\n</tools>\n<system_notifications>\nNone.\n"
        "</system_notifications>"
    )
    assert "Nine planks." in prompt.text_without(frozenset({oak}))


@pytest.mark.parametrize("before", ["", "a\n", "a\n\n"])
def test_only_a_system_prompt_prints_them(before):
    text = f"{before}<custom_instruction>\nb\n</custom_instruction>\nc"
    [block] = MemoryFinder().find("system", text).blocks
    [entry] = block.entries
    without = text[: block.start] + block.render(frozenset({entry.key})) + text[block.end :]
    assert without == f"{before.rstrip()}\nc"
    assert block.render(frozenset({"another"})) == text[block.start : block.end]
    assert MemoryFinder().find("user", text).blocks == ()
