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
        "left out: messages that Claude Code marks as its own (1), attachments of "
        "type todo_reminder (1), conversations of subagents that have no name (1)"
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
        ({"n1": {"attachment": 3}}, "line 14: 'attachment': expected an object"),
        ({"n1": {"attachment": {"type": "nested_memory"}}}, "line 14: 'attachment': nested_memory"),
        ({"i1": {"attachment": {"type": "instructions", "files": [3]}}}, "line 3: 'attachment'"),
    ],
)
def test_a_line_that_is_not_valid_is_left_out_with_its_number_and_field(read, changes, reason):
    (whole,), (damaged,) = read("claude_code.jsonl").found, read(edited(**changes)).found
    assert len(damaged.messages) < len(whole.messages)
    assert f"left out: 1 record that is not valid: {reason}" in damaged.remarks[-1]


def test_a_circle_of_events_is_refused(refused):
    assert "'parentUuid' leads in a circle" in refused(edited(u1={"parentUuid": "u3"}))


def test_a_session_without_messages_is_refused(refused):
    title = b'{"type":"summary","summary":"x","leafUuid":"a"}\n'
    event = json.loads(claude_code([("user", "a")]))
    event = json.dumps({**event, "type": "system", "message": None}).encode()
    assert refused(title + event) == ": holds no messages"
    assert refused(event + b"\n3") == "line 2: expected an object, got a number"


# -- what the user wrote while the model worked ---------------------------------------------------

CALL = {"type": "tool_use", "id": "c1", "name": "paint", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "done"}
WAIT = "Wait, make it green!"


def event(kind, uuid, parent, content=None, **more):
    message = {"role": kind, "content": content, "id": f"m-{uuid}"}
    return {
        "parentUuid": parent, "isSidechain": False, "sessionId": "s", "type": kind, "uuid": uuid,
        **({"message": message} if content is not None else {}), **more,
    }  # fmt: skip


def queue(operation, content=WAIT, **more):
    return {"type": "queue-operation", "operation": operation, "content": content, **more}


def queued(uuid, parent, prompt=WAIT):
    attachment = {"type": "queued_command", "prompt": prompt, "commandMode": "prompt"}
    held = event("attachment", uuid, parent, attachment=attachment)
    return held if uuid else {"type": "attachment", "attachment": attachment}


def painted(*between, after="u2"):
    """A session in which a tool is called; ``between`` are lines before the next response."""
    return lines(
        event("user", "u1", None, "Paint the hull."),
        event("assistant", "a1", "u1", [CALL]),
        event("user", "u2", "a1", [RESULT]),
        *between,
        event("assistant", "a2", after, [{"type": "text", "text": "Green."}]),
    )


def lines(*events):
    return "".join(f"{json.dumps(it)}\n" for it in events).encode()


ABSORBED = queue("remove", reason="absorbed_mid_turn")


@pytest.mark.parametrize(
    "content",
    [
        painted(queue("enqueue"), ABSORBED),
        painted(queued("q1", "u2"), after="q1"),
        painted(queued("q1", "u2", [{"type": "text", "text": WAIT}]), after="q1"),
        painted(queued("", None)),
        painted(queue("enqueue"), queued("q1", "u2"), ABSORBED, after="q1"),
        painted(ABSORBED, queued("", None)),
    ],
    ids=["removed", "attached", "parts", "attached aside", "both", "both aside"],
)
def test_what_the_user_wrote_meanwhile_is_said_once_where_the_model_saw_it(read, content):
    (conversation,) = read(content).found
    assert said(conversation) == [
        ("user", "Paint the hull."),
        ("assistant", ""),
        ("tool", "done"),
        ("user", WAIT),
        ("assistant", "Green."),
    ]


def test_it_does_not_stand_between_the_results_of_parallel_calls(read):
    second, other = {**CALL, "id": "c2"}, {**RESULT, "tool_use_id": "c2"}
    (conversation,) = read(
        lines(
            event("user", "u1", None, "Paint."),
            event("assistant", "a1", "u1", [CALL], message={"id": "m", "content": [CALL]}),
            event("assistant", "a2", "a1", [CALL], message={"id": "m", "content": [second]}),
            event("user", "u2", "a1", [RESULT]),
            ABSORBED,
            event("user", "u3", "a2", [other]),
            event("assistant", "a3", "u3", [{"type": "text", "text": "Green."}]),
        )
    ).found
    assert [role for role, _ in said(conversation)] == [
        "user", "assistant", "tool", "tool", "user", "assistant",
    ]  # fmt: skip


def test_what_belongs_to_an_abandoned_branch_is_not_said(read):
    other = [event("user", "x1", "u1", "No."), ABSORBED]
    (conversation,) = read(painted(*other)).found
    assert WAIT not in [text for _, text in said(conversation)]


def test_what_was_asked_later_or_may_not_have_been_seen_is_not_said_twice(read):
    asked = event("user", "u3", "a2", WAIT)
    (conversation,) = read(painted(queue("enqueue"), queue("remove")) + lines(asked)).found
    assert [text for _, text in said(conversation)].count(WAIT) == 1
    assert "left out" not in " ".join(conversation.remarks)
    (conversation,) = read(painted(queue("enqueue"), queue("remove"))).found
    assert WAIT not in [text for _, text in said(conversation)]
    assert "queued messages that the model may not have seen (1)" in (conversation.remarks[-1])


# -- compaction, repeated lines, damage -----------------------------------------------------------


def compacted(**held):
    return lines(
        event("user", "u1", None, "Which glue?"),
        event("assistant", "a1", "u1", [{"type": "text", "text": "Oak glue."}]),
        event("user", "u2", "a1", "And the mast?"),
        event("attachment", "n1", "u2", attachment={"type": "date_change"}),
        event("assistant", "a2", "n1", [{"type": "text", "text": "Spruce."}]),
        event("system", "b", None, subtype="compact_boundary", compactMetadata=held),
        event("user", "s1", "b", "Summary.", isCompactSummary=True),
        event("user", "u3", "s1", "Which wood?"),
        event("assistant", "a3", "u3", [{"type": "text", "text": "Spruce, as I said."}]),
    )


SEGMENT = {"headUuid": "u2", "anchorUuid": "s1", "tailUuid": "a2"}
KEPT = [("user", "And the mast?"), ("assistant", "Spruce.")]


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        ({"preservedSegment": SEGMENT}, KEPT),
        ({"preservedMessages": {"anchorUuid": "s1", "uuids": ["u2", "a2"]}}, KEPT),
        ({}, []),
        ({"preservedSegment": {**SEGMENT, "headUuid": "nowhere"}}, []),
        ({"preservedSegment": {**SEGMENT, "anchorUuid": "u2"}}, []),
        ({"preservedMessages": {"anchorUuid": "s1", "uuids": ["u2", "nowhere"]}}, []),
        ({"preservedSegment": 3, "preservedMessages": 3}, []),
    ],
)
def test_what_a_compaction_kept_follows_its_summary(read, held, kept):
    (conversation,) = read(compacted(**held)).found
    assert said(conversation) == [
        ("user", "Summary."),
        *kept,
        ("user", "Which wood?"),
        ("assistant", "Spruce, as I said."),
    ]


def test_lines_of_a_response_that_repeat_it_are_said_once(read):
    text = [{"type": "text", "text": "Oak glue."}]
    message = {"role": "assistant", "id": "m", "content": text}
    more = {**message, "content": [*text, {"type": "text", "text": " Always."}]}
    (conversation,) = read(
        lines(
            event("user", "u1", None, "Which glue?"),
            event("assistant", "a1", "u1", message=message),
            event("assistant", "a2", "a1", message=message),
            event("assistant", "a3", "a2", message=more),
        )
    ).found
    assert said(conversation) == [("user", "Which glue?"), ("assistant", "Oak glue. Always.")]


@pytest.mark.parametrize("damage", [b"\0" * 40, b'{"parentUuid": "a1", "isSi', b'{"uuid": "\xff"}'])
def test_what_follows_a_damaged_line_follows_what_was_before_it(read, damage):
    content = painted().splitlines()
    content[2] = damage
    (conversation,) = read(b"\n".join(content)).found
    assert said(conversation) == [
        ("user", "Paint the hull."),
        ("assistant", ""),
        ("assistant", "Green."),
    ]
    assert "left out: 1 record that is not valid: line 3: " in conversation.remarks[-1]
    assert "is not in the file" not in " ".join(conversation.remarks)


def test_damage_at_the_beginning_does_not_hide_the_format(read):
    assert read(b"\0\0\0\n{\n" + painted()).format == "claude-code"


def test_a_lone_surrogate_is_replaced_and_said(read):
    (conversation,) = read(painted().replace(b'"done"', b'"\\ud83d done"')).found
    assert ("tool", "\ufffd done") in said(conversation)
    assert conversation.remarks[-1].startswith("replaced by U+FFFD: 1 lone surrogate")


# -- subagents, and what claude -p prints ---------------------------------------------------------


def aside(agent, *events):
    named = {"agentId": agent} if agent else {}
    return lines(*({**it, "isSidechain": True, **named} for it in events))


ASKED = event("user", "x1", None, "Count the planks.")
ANSWERED = event("assistant", "x2", "x1", [{"type": "text", "text": "Seven."}])


def test_each_subagent_is_a_conversation_of_its_own(read):
    main, first, second = read(
        painted() + aside("b7", ASKED, ANSWERED) + aside("c8", {**ASKED, "uuid": "y1"})
    ).found
    assert (main.name, first.name, second.name) == ("s", "b7", "c8")
    assert (main.id, first.id) == ("s", "s/b7")
    assert said(main)[-1] == ("assistant", "Green.")
    assert said(first) == [("user", "Count the planks."), ("assistant", "Seven.")]


def test_a_file_of_a_subagent_is_its_conversation(read):
    (conversation,) = read(aside("b7", ASKED, ANSWERED)).found
    assert conversation.name == "b7"
    (conversation,) = read(aside("", ASKED, ANSWERED)).found
    assert (conversation.name, len(conversation.messages)) == ("x1", 2)


def test_of_subagents_without_a_name_the_session_alone_is_read(read):
    (conversation,) = read(painted() + aside("", ASKED, ANSWERED)).found
    assert "conversations of subagents that have no name (1)" in conversation.remarks[-1]


def printed(kind, content=None, **more):
    message = {} if content is None else {"message": {"role": kind, "content": content}}
    return {"type": kind, "session_id": "s", "parent_tool_use_id": None, **message, **more}


INIT = printed("system", subtype="init", tools=["Bash"], model="m")


def text(said):
    return [{"type": "text", "text": said}]


def test_what_claude_prints_is_a_conversation(read):
    conversations = read("claude_stream.jsonl")
    assert conversations.format == "claude-code-stream"
    main, subagent = conversations.found
    assert (main.name, main.id, subagent.name, subagent.id) == (
        "5e55",
        "5e55",
        "toolu_2",
        "5e55/toolu_2",
    )
    assert said(main) == [
        ("assistant", "I look."),
        ("tool", "seven planks"),
        ("assistant", "Seven."),
    ]
    assert [it.name for it in main.messages[0].tool_calls] == ["Bash", "Task"]
    assert said(subagent) == [("user", "Which glue?"), ("assistant", "Oak glue.")]
    assert "prints neither the system prompt" in main.remarks[0]
    assert "does not print the prompt" in main.remarks[1]
    assert "does not print the prompt" not in " ".join(subagent.remarks)


def test_an_array_of_what_claude_prints_is_read_too(read):
    events = [INIT, printed("user", "Hi"), printed("assistant", text("Hello."))]
    for indent in (None, 1):
        conversations = read(json.dumps(events, indent=indent).encode())
        assert conversations.format == "claude-code-stream"
        assert said(conversations.found[0]) == [("user", "Hi"), ("assistant", "Hello.")]


def test_of_what_claude_prints_damage_and_unknown_events_are_said(read, refused):
    noise = [
        printed("hologram"),
        printed("assistant", message=3),
        printed("stream_event", event={}),
    ]
    (conversation,) = read(lines(INIT, *noise, printed("assistant", text("Hello."))) + b"{").found
    assert "left out: events of type hologram (1)" in conversation.remarks
    assert "line 3: 'message': expected an object; line 6: is not valid" in conversation.remarks[-1]
    assert refused(lines(INIT)) == ": holds no messages"


def test_of_what_claude_prints_only_what_follows_a_compaction_is_context(read):
    boundary = printed("system", subtype="compact_boundary", compact_metadata={"trigger": "auto"})
    events = (
        INIT,
        printed("assistant", text("Oak.")),
        boundary,
        printed("assistant", text("Blue.")),
    )
    (conversation,) = read(lines(*events)).found
    assert said(conversation) == [("assistant", "Blue.")]
    assert "the conversation was compacted" in conversation.remarks[1]
