"""Claude Code: sessions as trees of events."""

import json

import pytest

from mindhooks import Image
from mindscore.conversation.message import ToolCall

from ..readers.written import FIXTURES, claude_code


def edited(**changes):
    """The lines of the session, some of them changed by their uuid; ``None`` drops one."""
    lines = []
    for raw in (FIXTURES / "claude_code.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(raw)
        change = changes.get(event.get("uuid", ""), {})
        if change is not None:
            lines.append(json.dumps({**event, **change}) + "\n")
    return "".join(lines).encode()


def said(conversation):
    return [(it.role, it.text) for it in conversation.messages if it.role != "memory"]


def test_the_conversation_leads_to_the_last_message(read):
    conversations = read("claude_code.jsonl")
    assert conversations.format == "claude-code"
    (conversation,) = conversations.found
    assert (conversation.name, conversation.title) == ("5e55", "Tea and a dog")
    assert said(conversation) == [
        ("user", "What do I drink?"),
        ("assistant", "Let me look."),
        ("tool", "a tin of sencha"),
        ("tool", "nothing else"),
        ("assistant", "You drink green tea."),
        ("user", "And my dog?"),
        ("assistant", "Your dog is called Rex."),
    ]


def test_the_lines_of_one_response_are_one_message(read):
    (conversation,) = read("claude_code.jsonl").found
    looked = next(it for it in conversation.messages if it.text == "Let me look.")
    assert looked.id == "a1"
    assert looked.tool_calls == (
        ToolCall("Read", '{"file_path": "/p/kitchen"}'),
        ToolCall("Read", '{"file_path": "/p/küche"}'),
    )


def test_memories_are_messages_of_their_own_at_their_place(read):
    conversations = read("claude_code.jsonl")
    (conversation,) = conversations.found
    memories = [(it.memory_key, it.text) for it in conversation.messages if it.role == "memory"]
    assert memories == [
        ("/p/CLAUDE.md", "# Rules\nThe user drinks green tea."),
        ("/home/u/.claude/memory/MEMORY.md", "- The user has a dog called Rex.\n"),
        ("/p/memory/tea.md", "Sencha, in the kitchen."),
        ("/p/kitchen/CLAUDE.md", "Tins hold tea."),
    ]
    transcript = conversations.transcript(conversation)
    assert [it.memory_key for it in transcript.identity] == [key for key, _ in memories[:2]]
    assert [it.memory_key for it in transcript.conversation] == [
        None, "/p/memory/tea.md", None, None, None, "/p/kitchen/CLAUDE.md", None, None, None,
    ]  # fmt: skip


def test_times_and_images_are_kept(read):
    (conversation,) = read("claude_code.jsonl").found
    asked = conversation.messages[-2]
    assert asked.images == (Image("image/png", b"\x89PNG\r\n\x1a\n"),)
    assert asked.timestamp_ns is not None
    assert asked.timestamp_ns % 10**9 == 123_000_000


def test_what_is_not_recorded_or_left_out_is_said(read):
    (conversation,) = read("claude_code.jsonl").found
    assert "neither its system prompt nor its tools" in conversation.remarks[0]
    assert conversation.remarks[1] == (
        "left out: messages that Claude Code marks as its own (1), reasoning (1), attachments of "
        "type todo_reminder (1)"
    )
    (bare,) = read(claude_code([("user", "a"), ("assistant", "b")])).found
    assert "does not record which memories (CLAUDE.md)" in bare.remarks[1]


def test_what_was_before_a_compaction_is_no_longer_said(read):
    (conversation,) = read("claude_code_compacted.jsonl").found
    assert [text for _, text in said(conversation)] == [
        "This session is continued. Summary: the user drinks tea.",
        "What do I drink?",
        "Tea.",
    ]


def test_an_error_that_stands_in_the_models_place_is_no_response(read):
    (conversation,) = read(edited(a5={"parentUuid": "e1"})).found
    assert ("assistant", "API Error: 529") not in said(conversation)
    assert "messages of Claude Code's in the model's place (1)" in conversation.remarks[-1]


def test_a_response_that_only_thinks_is_left_out(read):
    only = {"id": "m", "content": [{"type": "thinking", "thinking": "x"}]}
    (conversation,) = read(edited(a5={"message": only})).found
    assert len([it for it in conversation.messages if it.role == "assistant"]) == 2
    assert "responses that say nothing (1)" in conversation.remarks[-1]


def test_a_beginning_that_is_not_in_the_file_is_said(read):
    (conversation,) = read(edited(i1=None, m1=None)).found
    assert "what was before line 3 is not in the file" in conversation.remarks


def test_a_result_of_an_abandoned_branch_stays_out(read):
    other = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "again"}]
    again = {
        "parentUuid": "a3", "sessionId": "5e55", "type": "user", "uuid": "t9",
        "message": {"role": "user", "content": other},
    }  # fmt: skip
    lines = edited().splitlines(keepends=True)
    content = b"".join([*lines[:13], json.dumps(again).encode() + b"\n", *lines[13:]])
    (conversation,) = read(content).found
    results = [text for role, text in said(conversation) if role == "tool"]
    assert results == ["a tin of sencha", "nothing else"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"a5": {"message": 3}}, "line 17: 'message': expected an object, got a number"),
        ({"a5": {"message": {"content": 3}}}, "line 17: 'message.content': expected text"),
        ({"a5": {"message": {"content": [3]}}}, "line 17: 'message.content': expected text"),
        ({"a5": {"uuid": 3}}, "line 17: 'uuid': expected text"),
        ({"a5": {"parentUuid": 3}}, "line 17: 'parentUuid': expected text"),
        ({"a5": {"timestamp": "x"}}, "line 17: 'x' is not an ISO 8601 timestamp"),
        ({"u1": {"parentUuid": "u3"}}, "'parentUuid' leads in a circle"),
        ({"n1": {"attachment": 3}}, "line 14: 'attachment': expected an object"),
        ({"n1": {"attachment": {"type": "nested_memory"}}}, "line 14: 'attachment': nested_memory"),
        ({"i1": {"attachment": {"type": "instructions", "files": [3]}}}, "line 3: 'attachment'"),
    ],
)
def test_errors_name_line_and_field(refused, changes, reason):
    assert reason in refused(edited(**changes))


def test_a_session_without_messages_is_refused(refused):
    title = b'{"type":"summary","summary":"x","leafUuid":"a"}\n'
    aside = json.loads(claude_code([("user", "a")]))
    event = json.dumps({**aside, "isSidechain": True}).encode()
    assert refused(title + event).endswith(": holds no messages")
    assert refused(event + b"\n3") == "line 2: expected an object, got a number"
