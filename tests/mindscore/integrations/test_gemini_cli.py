"""Gemini CLI: sessions in the shape that 0.61 wrote and in the older one, and saved chats."""

import json

import pytest

from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS
from mindscore.recognisers import MemoryFinder

from .conftest import said

FORMAT = "gemini-cli"

HEAD = {"sessionId": "s", "projectHash": "h", "startTime": "2026-05-01T10:00:00.000Z"}


def lines(*records):
    return "".join(json.dumps(it) + "\n" for it in (HEAD, *records)).encode()


def message(id_, kind, content, **more):
    return {
        "id": id_,
        "timestamp": "2026-05-01T10:00:00Z",
        "type": kind,
        "content": content,
        **more,
    }


def test_a_session_of_lines_is_read_as_it_stands_at_its_end(one):
    conversation = one("gemini_cli.jsonl")
    assert (conversation.id, conversation.title) == ("6e1f-a", "Glue for a boat")
    (role, first), *rest = said(conversation)
    assert (role, first[:17], first[-11:]) == ("user", "<session_context>", "Which glue?")
    assert rest == [
        ("assistant", "I look."),
        ("tool", '{"output": "glue.txt"}'),
        ("assistant", "Oak glue."),
        ("user", "And screws?"),
        ("assistant", "Brass."),
    ]
    looked = conversation.messages[1]
    assert (looked.id, looked.reasoning) == ("m2", "Plan: Look first")
    [call] = looked.tool_calls
    assert (call.name, call.arguments, call.id) == ("list_directory", '{"dir_path": "."}', "list_1")
    result = conversation.messages[2]
    assert (result.tool_call_id, result.name) == ("list_1", "list_directory")


def test_what_is_left_out_is_counted(one):
    no_system, no_tools, left_out = one("gemini_cli.jsonl").remarks
    assert (no_system, no_tools) == (NO_SYSTEM, NO_TOOLS)
    for it in ("messages that were taken back (2)", "messages of type info (1)"):
        assert it in left_out
    assert "parts of no type (fileData) (1)" in left_out


def test_a_session_of_the_older_form_has_results_beside_their_calls(one):
    conversation = one("gemini_cli.json")
    assert conversation.id == "6e1f-b"
    assert said(conversation) == [
        ("user", "Which glue?"),
        ("assistant", ""),
        ("tool", '{"output": "glue.txt"}'),
        ("assistant", "Oak glue."),
    ]
    assert conversation.messages[1].tool_calls[0].id == "list_1"
    assert conversation.messages[2].tool_call_id == "list_1"


def test_a_call_that_stands_in_the_content_too_is_one(one):
    call = {"id": "c1", "name": "ls", "args": {}}
    content = lines(
        message("1", "user", "a"),
        message("2", "gemini", [{"text": "b"}, {"functionCall": call}], toolCalls=[call]),
        message("3", "user", [{"functionResponse": {"id": "c1", "response": {"output": "c"}}}]),
    )
    assert [len(it.tool_calls) for it in one(content).messages] == [0, 1, 0]


def test_a_checkpoint_replaces_what_was_before(one):
    content = lines(
        message("1", "user", "a"), message("2", "gemini", "b"),
        {"$set": {"messages": [message("9", "user", "Summary.")]}},
        message("3", "user", "c"), message("4", "gemini", "d"),
    )  # fmt: skip
    assert [text for _, text in said(one(content))] == ["Summary.", "c", "d"]


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"history": it, "authType": "x"}])
def test_a_saved_chat_is_read(one, wrap):
    history = [
        {"role": "user", "parts": [{"text": "Which glue?"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "ls", "args": {}}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "ls", "response": {"output": "x"}}}],
        },
        {"role": "model", "parts": [{"text": "Oak glue."}]},
    ]
    long = [{"role": "user", "parts": [{"text": str(at)}]} for at in range(50)]
    assert len(one(json.dumps(wrap([*history, *long])).encode()).messages) == 54
    conversation = one(json.dumps(wrap(history)).encode())
    assert [role for role, _ in said(conversation)] == ["user", "assistant", "tool", "assistant"]
    assert said(conversation)[-1] == ("assistant", "Oak glue.")
    assert conversation.id == ""


def test_a_line_that_is_not_whole_is_left_out_with_its_place(one):
    content = lines(
        message("1", "user", "a"), message("2", "gemini", 3), message("3", "gemini", "b")
    )
    conversation = one(content + b'{"id": "4", "ty')
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    remarks = "\n".join(conversation.remarks)
    assert "line 3: 'content': expected text or parts" in remarks
    assert "line 5: is not valid JSON" in remarks


def test_a_session_without_messages_is_refused(refused):
    assert refused(lines()).endswith(": holds no messages")


def test_files_of_memories_are_marked_by_their_paths(read):
    conversations = read("gemini_cli.jsonl")
    transcript = conversations.transcript(conversations.found[0])
    sail, boats, hull = (
        "/ext/sail/GEMINI.md",
        "/home/ines/boats/GEMINI.md",
        "/home/ines/boats/hull/GEMINI.md",
    )
    assert transcript.keys() == [sail, boats, hull]
    told = transcript.conversation[0]
    without = told.text_without(frozenset({sail, boats}))
    assert "Nine planks." in without
    assert "extension_context" not in without
    assert "Glue is" not in without
    nothing = told.text_without(frozenset({sail, boats, hull}))
    setting = "<session_context>\nToday's date is Friday.\n\n</session_context>"
    assert nothing == f"{setting}Which glue?"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<project_context>\nplain\n</project_context>",
        "<a>\n--- Context from: x ---\nb\n--- End of Context from: y ---\n</a>",
        "<a>\n--- Context from: x ---\nb\n--- End of Context from: x ---\nmore\n</a>",
    ],
)
def test_text_that_does_not_parse_is_no_memory(body):
    found = MemoryFinder().find("user", f"\n<loaded_context>\n{body}\n</loaded_context>")
    assert (found.blocks, found.remarks) == ((), ())
