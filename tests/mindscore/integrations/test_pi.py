"""pi and OpenClaw: sessions in the shape that pi 0.73 wrote."""

import json

from mindscore.integrations.pi import BARE_SUMMARIES
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS

from .conftest import said

FORMAT = "pi"

HEAD = {"type": "session", "version": 3, "id": "s", "cwd": "/p"}


def session(*entries, head=HEAD):
    return "".join(json.dumps(it) + "\n" for it in (head, *entries)).encode()


def entry(id_, parent, message, kind="message"):
    return {"type": kind, "id": id_, "parentId": parent, "message": message}


def user(text):
    return {"role": "user", "content": text}


def answer(text, *calls, stop="stop"):
    content = [{"type": "text", "text": text}, *calls]
    return {"role": "assistant", "content": content, "stopReason": stop}


def test_the_conversation_leads_to_the_last_entry(one):
    conversation = one("pi.jsonl")
    assert (conversation.id, conversation.title) == ("01a2-a", "Glue for a boat")
    assert said(conversation) == [
        ("user", "<summary>\nShe builds a boat of oak.\n</summary>"),
        ("user", "Which glue?"),
        ("assistant", "I look."),
        ("tool", "glue.txt"),
        ("assistant", "Oak glue."),
        ("user", "<summary>\nPaint was blue.\n</summary>"),
        ("user", "It rains."),
        ("user", "Ran `cat planks`\n```\nnine\n```\n\nCommand exited with code 1"),
        ("user", "And screws?"),
        ("assistant", "Brass."),
    ]


def test_calls_have_their_ids_and_results(one):
    looked, result = one("pi.jsonl").messages[2:4]
    [call] = looked.tool_calls
    assert (call.name, call.arguments, call.id) == ("bash", '{"command": "ls"}', "call_1")
    assert (looked.id, looked.reasoning) == ("a5", "I should look.")
    assert (result.tool_call_id, result.name) == ("call_1", "bash")
    assert looked.timestamp_ns is not None


def test_what_is_not_recorded_or_left_out_is_said(one):
    assert one("pi.jsonl").remarks == (
        NO_SYSTEM,
        NO_TOOLS,
        BARE_SUMMARIES,
        ("left out: messages before a compaction (2), responses that failed or were stopped (1)"),
    )


def test_a_call_without_a_result_is_answered_as_pi_does(one):
    call = {"type": "toolCall", "id": "c1", "name": "ls", "arguments": {}}
    content = session(
        entry("1", None, user("a")), entry("2", "1", answer("b", call)),
        entry("3", "2", user("c")), entry("4", "3", answer("d")),
    )  # fmt: skip
    messages = one(content).messages
    assert [it.text for it in messages] == ["a", "b", "No result provided", "c", "d"]
    assert (messages[2].tool_call_id, messages[2].name) == ("c1", "ls")


def test_the_first_version_has_neither_ids_nor_a_tree(one):
    lines = [
        {"type": "message", "message": user("a")},
        {"type": "message", "message": answer("b")},
        {"type": "message", "message": user("c")},
        {"type": "compaction", "summary": "S", "firstKeptEntryIndex": 3},
        {"type": "message", "message": answer("d")},
    ]
    texts = [text for _, text in said(one(session(*lines[:3])))]
    assert texts == ["a", "b", "c"]
    texts = [text for _, text in said(one(session(*lines)))]
    assert texts == ["<summary>\nS\n</summary>", "c", "d"]


def test_entries_of_unknown_types_are_counted(one):
    new = {"type": "new", "id": "3", "parentId": "2"}
    content = session(entry("1", None, user("a")), entry("2", "1", answer("b")), new)
    assert one(content).remarks[-1] == "left out: entries of type new (1)"


def test_parents_in_a_circle_end(one):
    content = session(entry("1", "2", user("a")), entry("2", "1", answer("b")))
    assert [text for _, text in said(one(content))] == ["a", "b"]


def test_an_entry_that_is_not_valid_is_left_out_with_its_place(one):
    content = session(
        entry("1", None, user("a")), entry("2", "1", 3), entry("3", "2", {"content": "x"}),
        entry("4", "3", {"role": "assistant", "content": []}), entry("5", "4", answer("b")),
    )  # fmt: skip
    conversation = one(content + b'{"type": "mess')
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    remarks = "\n".join(conversation.remarks)
    for it in ("line 3: expected a message", "line 4: 'role': expected", "line 7: is not valid"):
        assert it in remarks
    assert "responses that say nothing (1)" in remarks


def test_a_session_without_messages_is_refused(refused):
    assert refused(session()).endswith(": holds no messages")
