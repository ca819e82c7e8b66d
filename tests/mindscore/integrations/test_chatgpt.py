"""ChatGPT's data export."""

import json

import pytest
from tests.mindscore.readers.written import FIXTURES

from mindscore.readers.conversations import Conversations

EXPORT = FIXTURES / "chatgpt.json"


@pytest.fixture
def chat(tmp_path):
    """Read one conversation of these nodes, each after the one before."""

    def read(*messages, **record):
        nodes, parent = {}, None
        for at, message in enumerate(messages):
            nodes[f"n{at}"] = {"id": f"n{at}", "message": message, "parent": parent}
            parent = f"n{at}"
        file = tmp_path / "conversations-003.json"
        file.write_text(json.dumps([{"mapping": nodes, "current_node": parent, **record}]))
        return Conversations(file)

    return read


def message(role, *parts, **more):
    content = {"content_type": "text", "parts": list(parts)}
    return {"author": {"role": role, "name": None}, "content": content, "recipient": "all", **more}


def transcript(at=0):
    conversations = Conversations(EXPORT)
    return conversations.transcript(conversations.found[at])


def test_the_current_branch_is_read_with_what_is_hidden_on_the_screen():
    said = [(it.role, it.text, it.memory_key) for it in Conversations(EXPORT).found[0].messages]
    profile, instructions, saved = said[:3]
    assert profile[0] == "memory"
    assert profile[2] == "about_user_message"
    assert "Ines builds boats." in profile[1]
    assert instructions[2] == "about_model_message"
    assert saved[0] == "system"
    assert [it[:2] for it in said[3:]] == [
        ("user", "Which glue for this mast?"),
        ("assistant", ""),
        ("tool", "Glue holds."),
        ("assistant", "Oak glue, on every mast."),
        ("user", "Remember that my mast is of ash."),
        ("assistant", ""),
        ("tool", "Model set context updated."),
        ("assistant", "I will remember it."),
    ]


def test_what_is_said_to_a_tool_is_a_call_of_it():
    found = Conversations(EXPORT).found[0].messages
    [search], [saved] = (it.tool_calls for it in found if it.tool_calls)
    assert (search.name, json.loads(search.arguments)) == ("web.run", {"query": "glue mast"})
    assert (saved.name, json.loads(saved.arguments)) == ("bio", "Ines's mast is of ash.")
    assert found[4].reasoning == "She uses oak glue."
    assert found[4].timestamp_ns == 1_767_225_600_250_000_000


def test_saved_memories_are_memories_and_are_numbered_anew_without_one():
    [saved] = [it for it in transcript().messages if it.blocks]
    assert saved.memory_keys() == ["ines-uses-oak-glue", "her-dog-is-max"]
    assert saved.text_without(frozenset(["ines-uses-oak-glue"])) == (
        "1. [2025-04-02]. Her dog is Max."
    )
    assert saved.text_without(frozenset()) == saved.text


def test_custom_instructions_of_older_exports_stand_in_a_system_message():
    older = transcript(1)
    assert older.keys() == ["about_user_message", "about_model_message"]
    assert older.system[0].text_without(frozenset(["about_user_message"])) == (
        "The user provided the following information about themselves:\nHow to respond:\nBe brief."
    )


def test_what_is_not_read_is_counted_and_nothing_is_said_that_is_not_so():
    first, left_out = Conversations(EXPORT).found[0].remarks
    assert first.startswith("ChatGPT's own system prompt")
    for what in ("messages on other branches", "images that the file only names", "recaps"):
        assert f"{what} (1)" in left_out or f"{what} of reasoning (1)" in left_out


def test_saved_memories_that_the_file_does_not_hold_are_said(chat):
    empty = {
        "author": {"role": "assistant"},
        "content": {"content_type": "model_editable_context", "model_set_context": ""},
    }
    found = chat(message("user", "Hello"), empty, message("assistant", "Hi")).found[0]
    assert len(found.messages) == 2
    assert "saved memories that the file does not hold (1)" in found.remarks[-1]


@pytest.mark.parametrize("parts", [None, 3, {}])
def test_a_text_without_parts_is_left_out_and_said(chat, parts):
    odd = message("assistant")
    odd["content"]["parts"] = parts
    found = chat(message("user", "Hello"), odd, message("assistant", "Hi")).found[0]
    assert [it.text for it in found.messages] == ["Hello", "Hi"]
    assert "content without text (1)" in found.remarks[-1]


@pytest.mark.parametrize("kind", ["super_widget", "app_pairing_content"])
def test_a_response_of_unknown_content_is_left_out_by_its_type(chat, kind):
    odd = {"author": {"role": "assistant"}, "content": {"content_type": kind}}
    found = chat(message("user", "Hello"), odd, message("assistant", "Hi")).found[0]
    assert [it.text for it in found.messages] == ["Hello", "Hi"]
    assert f"{kind} (1)" in found.remarks[-1]


def test_speech_is_text_and_sound_is_left_out(chat):
    spoken = message(
        "user",
        {"content_type": "audio_transcription", "text": "Which glue?", "direction": "in"},
        {"content_type": "audio_asset_pointer", "asset_pointer": "file-service://a"},
    )
    found = chat(spoken, message("assistant", "Oak.")).found[0]
    assert found.messages[0].text == "Which glue?"
    assert "audio_asset_pointer (1)" in found.remarks[-1]


def test_a_damaged_message_is_left_out_with_its_place(chat):
    found = chat(message("user", "Hello"), message("nobody", "x"), message("assistant", "Hi")).found
    assert [it.text for it in found[0].messages] == ["Hello", "Hi"]
    assert any("message n1: 'role': expected one of" in it for it in found[0].remarks)


def test_without_a_current_node_the_last_leaf_counts_and_a_circle_ends(chat):
    said = (message("user", "Hello"), message("assistant", "Hi"))
    assert len(chat(*said, current_node=None).found[0].messages) == 2
    assert len(chat(*said, current_node="gone").found[0].messages) == 2
    circle = {
        "a": {"message": message("user", "Hello"), "parent": "b"},
        "b": {"message": message("assistant", "Hi"), "parent": "a"},
    }
    found = chat(mapping=circle, current_node="b").found[0]
    assert [it.text for it in found.messages] == ["Hello", "Hi"]


def test_a_conversation_without_messages_is_passed_over(tmp_path):
    file = tmp_path / "conversations.json"
    record = json.loads(EXPORT.read_text())[1]
    empty = {"mapping": {"root": {"message": None, "parent": None}}, "current_node": "root"}
    file.write_text(json.dumps([empty, record]))
    assert [it.name for it in Conversations(file).found] == ["6a0c-2"]
