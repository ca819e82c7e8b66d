"""What files of memories would be without those that are proposed to go."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindscore._util.errors import TranscriptError, UsageError
from mindscore.archive.memory_diff import memory_diff
from mindscore.measure.memories import text_hash
from mindscore.readers.memories import read_memories


def proposed(key, text):
    """As much of an ``Advice`` as a diff needs; ``None``: the judged text is not known."""
    hashed = "" if text is None else text_hash(text)
    return SimpleNamespace(
        key=key, evidence=SimpleNamespace(version=SimpleNamespace(text_hash=hashed))
    )


@pytest.fixture
def without(tmp_path):
    """Returns a file's content after its diff is applied with ``git apply``, and the diff."""

    def make(name, content, *gone):
        file = tmp_path / name
        file.write_bytes(content.encode())
        diff = memory_diff(file, [proposed(*it) for it in gone])
        assert file.read_bytes().decode() == content
        if diff.text:
            patch = tmp_path / "change.patch"
            patch.write_bytes(diff.text.encode())
            subprocess.run(
                [
                    "git",
                    "apply",
                    "--unsafe-paths",
                    f"--directory={tmp_path}",
                    f"-p{len(tmp_path.parts)}",
                    patch,
                ],
                check=True,
                cwd="/",
            )
        changed = file.read_bytes().decode()
        file.unlink()
        return changed, diff

    return make


def test_items_and_paragraphs_of_markdown_go_with_their_lines(without):
    text = """---
title: notes
---
# Facts

- Drinks green tea
- Has a dog called Rex,
  who barks
* Lives in Kyiv

The user is a nurse.

Another paragraph.
"""
    gone = [("a", "Has a dog called Rex, who barks"), ("b", "The user is a nurse.")]
    changed, diff = without("MEMORY.md", text, *gone)
    assert changed == text.replace("- Has a dog called Rex,\n  who barks\n", "").replace(
        "The user is a nurse.\n\n", ""
    )
    assert diff.keys == ("a", "b")
    assert diff.remarks == ()


def test_a_memory_whose_host_prints_a_bullet_is_the_same(without):
    changed, _ = without("AGENTS.md", "- one thing\n- other thing\n", ("k", "- other thing"))
    assert changed == "- one thing\n"


def test_windows_line_ends_stay(without):
    changed, _ = without("CLAUDE.md", "- one\r\n- two\r\n- three\r\n", ("k", "two"))
    assert changed == "- one\r\n- three\r\n"


def test_hermes_entries_go_with_their_mark(without):
    text = "First entry.\n\nIts second paragraph.\n§\nSecond entry.\n§\nThird entry."
    changed, diff = without("MEMORY.md", text, ("k", "First entry.\n\nIts second paragraph."))
    assert changed == "Second entry.\n§\nThird entry."
    assert diff.keys == ("k",)
    changed, _ = without("MEMORY.md", text, ("k", "Third entry."))
    assert changed == "First entry.\n\nIts second paragraph.\n§\nSecond entry."


@pytest.mark.parametrize("indent", [None, 1, 2, 4])
def test_json_keeps_the_way_in_which_it_is_printed(without, indent):
    memories = {"tea": "Drinks tea.", "dog": "Ein Hund, schön.", "cat": "A cat."}
    text = json.dumps(memories, indent=indent, ensure_ascii=False) + "\n"
    changed, diff = without("memories.json", text, ("dog", "Ein Hund, schön."))
    del memories["dog"]
    assert changed == json.dumps(memories, indent=indent, ensure_ascii=False) + "\n"
    assert diff.keys == ("dog",)


def test_lists_of_objects_and_of_texts(without, tmp_path):
    found = {"results": [{"id": "1", "memory": "One."}, {"id": "2", "memory": "Two."}], "n": 2}
    changed, _ = without("mem0.json", json.dumps(found), ("2", "Two."))
    assert json.loads(changed) == {"results": [{"id": "1", "memory": "One."}], "n": 2}
    changed, _ = without("list.json", json.dumps(["One.", "Two."]), ("x", "One."))
    assert json.loads(changed) == ["Two."]


def test_lines_and_observations(without):
    entity = {"type": "entity", "name": "Ann", "observations": ["is old", "is kind"]}
    lines = [json.dumps(entity), '{"key": "k",  "text": "Odd  spaces."}', '{"text": "Last."}']
    changed, diff = without("graph.jsonl", "\n".join(lines), ("a", "is old"), ("b", "Last."))
    left = {**entity, "observations": ["is kind"]}
    assert changed == "\n".join([json.dumps(left), lines[1]]) + "\n"
    assert set(diff.keys) == {"a", "b"}


def test_another_text_of_the_same_key_stays_and_is_said(without):
    text = json.dumps({"tea": "Drinks black tea."})
    changed, diff = without("memories.json", text, ("tea", "Drinks green tea."))
    assert (changed, diff.text, diff.keys) == (text, "", ())
    assert diff.remarks == ("tea stays: its text is not the one judged",)
    changed, diff = without("memories.json", text, ("tea", None))
    assert changed == "{}"
    assert diff.keys == ("tea",)


def test_what_is_left_is_read_as_before(without, tmp_path):
    text = "# A\n\n## B\n\n- one thing here\n- another thing\n\n# C\n\n- last thing\n"
    file = tmp_path / "m.md"
    file.write_text(text)
    before = read_memories(file)
    [key] = [key for key, it in before.items() if it == "another thing"]
    changed, _ = without("other.md", text, (key, "another thing"))
    file.write_text(changed)
    assert read_memories(file) == {name: it for name, it in before.items() if name != key}


def test_what_is_no_file_of_memories_is_an_error(tmp_path):
    file = tmp_path / "odd.json"
    file.write_text('{"a": "One."}\n{"b": ')
    with pytest.raises(TranscriptError, match="memory 1: expected a text in one of"):
        memory_diff(file, [])
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TranscriptError, match="is not UTF-8"):
        memory_diff(file, [])
    with pytest.raises(TranscriptError, match="cannot be read"):
        memory_diff(tmp_path / "none.md", [])
    with pytest.raises(UsageError, match="standard input"):
        memory_diff(Path("-"), [])
