"""Letta's agent files."""

import json

from tests.mindscore.readers.written import FIXTURES

from mindscore.readers.conversations import Conversations


def transcript(file):
    conversations = Conversations(file)
    return conversations.transcript(conversations.chosen(None))


def test_memory_blocks_are_memories_under_their_labels():
    read = transcript(FIXTURES / "letta.json")
    assert read.keys() == ["letta:human"]
    system = read.system[0]
    assert system.text_without(frozenset(["letta:human"])) == "You help.\n\n"


def test_blocks_of_old_files_are_found_by_their_text():
    read = transcript(FIXTURES / "letta_old.json")
    assert read.keys() == ["letta:human"]
    assert "She uses oak glue." not in read.system[0].text_without(frozenset(["letta:human"]))
    assert any(it.endswith("nowhere in the conversation: letta:persona") for it in read.remarks)


def test_only_the_blocks_of_the_agent_itself_are_its_memories(tmp_path):
    given = json.loads((FIXTURES / "letta.json").read_text())
    given["blocks"].append({"id": "block-9", "label": "other", "value": "Which glue?"})
    file = tmp_path / "agent.af"
    file.write_text(json.dumps(given))
    assert transcript(file).keys() == ["letta:human"]
    assert transcript(file).remarks == transcript(FIXTURES / "letta.json").remarks


def test_a_damaged_message_is_left_out_with_its_place(tmp_path):
    given = json.loads((FIXTURES / "letta.json").read_text())
    given["agents"][0]["messages"][2]["role"] = "nobody"
    file = tmp_path / "agent.af"
    file.write_text(json.dumps(given))
    read = transcript(file)
    assert [it.text for it in read.conversation] == ["", "Glue holds.", "Oak glue."]
    assert any("agent 1, message 3: 'role': expected one of" in it for it in read.remarks)
