"""Cursor: transcripts of its agent in the shape that is publicly described."""

from mindscore.integrations.cursor import NOT_RECORDED

from .conftest import said

USER = b'{"role": "user", "message": {"content": [{"type": "text", "text": "a"}]}}\n'


def test_a_transcript_is_read_line_by_line(read):
    conversations = read("cursor.jsonl")
    assert conversations.format == "cursor"
    [conversation] = conversations.found
    assert conversation.id == conversation.name == "cursor"
    assert said(conversation) == [
        ("user", "<user_query>\nWhich glue?\n</user_query>"),
        ("assistant", "I look."),
        ("assistant", "Oak glue."),
        ("user", "<user_query>\nAnd screws?\n</user_query>"),
        ("assistant", "Brass."),
    ]
    [call] = conversation.messages[1].tool_calls
    assert (call.name, call.arguments) == ("Read", '{"path": "/home/ines/boats/glue.txt"}')


def test_what_is_not_recorded_or_left_out_is_said(read):
    [conversation] = read("cursor.jsonl").found
    assert conversation.remarks == (NOT_RECORDED, "left out: novel (1)")


def test_a_line_that_is_not_valid_is_left_out_with_its_place(read):
    lines = b'{"type": "new"}\n{"role": "x", "message": {"content": "y"}}\n{"role": "assis'
    [conversation] = read(USER + lines).found
    assert said(conversation) == [("user", "a")]
    remarks = "\n".join(conversation.remarks)
    for it in ("line 2: expected a message, got a line of type new", "line 3: 'role'", "line 4: "):
        assert it in remarks


def test_a_transcript_without_messages_is_refused(refused):
    assert "line 1: 'role': expected" in refused(USER.replace(b'"user"', b"3"), "cursor")
