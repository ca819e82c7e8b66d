"""The deepagents recogniser, on what deepagents 0.7.32 printed itself (deepagents.json)."""

import json
from pathlib import Path

import pytest

from mindscore.recognisers import MemoryFinder

CASES = json.loads(Path(__file__).with_name("deepagents.json").read_text(encoding="utf-8"))
BEFORE, AFTER = "You are an agent.\n\n", "\n\nThe end."


def without(text, found, skipped):
    """The message as its blocks render it without some memories."""
    for block in reversed(found.blocks):
        text = text[: block.start] + block.render(frozenset(skipped)) + text[block.end :]
    return text


def printed(*files):
    """A section by deepagents' rules."""
    body = "\n\n".join(f"{path}\n\n{text}" for path, text in files) or "(No memory loaded)"
    return f"<agent_memory>\n{body}\n\n</agent_memory>\n\n<memory_guidelines>"


@pytest.mark.parametrize("case", CASES)
def test_the_message_without_files_is_what_deepagents_prints_without_them(case):
    text = BEFORE + case["printed"][0][1] + AFTER
    found = MemoryFinder(case["files"]).find("system", text)
    for skipped, expected in case["printed"]:
        assert without(text, found, skipped) == BEFORE + expected + AFTER
    keys = {entry.key for block in found.blocks for entry in block.entries}
    assert keys <= case["files"].keys()
    assert found.remarks == ()


@pytest.mark.parametrize("case", CASES)
def test_without_the_files_a_section_is_read_exactly_or_stays_plain(case):
    text = BEFORE + case["printed"][0][1] + AFTER
    found = MemoryFinder().find("system", text)
    expected = {frozenset(skipped): said for skipped, said in case["printed"]}
    for block in found.blocks:
        [entry] = block.entries
        # The others are empty: deepagents does not print them.
        assert (
            without(text, found, [entry.key]) == BEFORE + expected[frozenset(case["files"])] + AFTER
        )
        assert case["files"][entry.key]
    nothing = expected[frozenset()] == expected[frozenset(case["files"])]
    assert len(found.blocks) + len(found.remarks) == (0 if nothing else 1)


def test_one_file_is_found_without_being_named():
    found = MemoryFinder().find("system", printed(("/a/AGENTS.md", "# A\n\nSpeak.")))
    [block] = found.blocks
    assert [entry.key for entry in block.entries] == ["/a/AGENTS.md"]
    assert without(printed(("/a/AGENTS.md", "# A\n\nSpeak.")), found, ["/a/AGENTS.md"]) == printed()


def test_a_second_line_that_may_be_a_path_is_not_guessed_at():
    text = printed(("/a/AGENTS.md", "Speak."), ("AGENTS.md", "Shout."))
    found = MemoryFinder().find("system", text)
    assert found.blocks == ()
    assert "cannot be told" in found.remarks[0]


def test_files_that_say_something_else_now_are_not_guessed_at():
    text = printed(("/a.md", "Speak."), ("/b.md", "Shout."))
    found = MemoryFinder({"/a.md": "Whisper.", "/b.md": "Shout."}).find("system", text)
    assert [e.key for b in found.blocks for e in b.entries] in ([], ["/b.md"])
    assert found.remarks


def test_a_file_that_quotes_the_end_of_the_section_is_read_by_its_text():
    files = {"/a.md": "Ends with\n\n</agent_memory>\n\nthat."}
    text = printed(*files.items())
    assert MemoryFinder().find("system", text).remarks
    found = MemoryFinder(files).find("system", text)
    assert without(text, found, ["/a.md"]) == printed()


@pytest.mark.parametrize("role", ["user", "tool", "assistant"])
def test_only_a_system_prompt_holds_a_section(role):
    found = MemoryFinder().find(role, printed(("/a.md", "Speak.")))
    assert (found.blocks, found.remarks) == ((), ())


def test_a_section_of_nothing_is_nothing():
    found = MemoryFinder().find("system", printed())
    assert (found.blocks, found.remarks) == ((), ())


@pytest.mark.parametrize("damaged", ["<agent_memory>\n/a.md\n\nSpeak.", "<agent_memory>\nSpeak."])
def test_a_damaged_section_stays_plain_and_is_said_to(damaged):
    found = MemoryFinder().find("system", damaged)
    assert found.blocks == ()
    assert len(found.remarks) == 1
