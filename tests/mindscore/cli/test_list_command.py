"""``mindscore list``: the conversations of a file."""

import json
import os
from pathlib import Path

import pytest

SYSTEM = "You help.\n- The user drinks green tea."


@pytest.fixture
def several(tmp_path):
    """Two conversations in OpenAI's format; one memory is named in the first."""
    asked = [{"role": "user", "content": "What do I drink?"}]
    answered = [*asked, {"role": "assistant", "content": "Green tea."}]
    first = {
        "id": "drinks",
        "messages": [{"role": "system", "content": SYSTEM}, *answered],
        "memories": {"tea": "The user drinks green tea."},
    }
    file = tmp_path / "several.jsonl"
    file.write_text(f"{json.dumps(first)}\n{json.dumps({'messages': asked})}\n", encoding="utf-8")
    return file


def test_a_program_reads_what_is_in_the_file(cli, several):
    ran = cli("list", several, "--json")
    assert (ran.status, ran.err) == (0, "")
    (first, second) = ran.document.pop("conversations")
    assert ran.document["command"] == "list"
    assert (ran.document["file"], ran.document["format"]) == (str(several), "openai")
    assert first == {
        "number": 1,
        "name": "drinks",
        "title": "What do I drink?",
        "messages": 3,
        "responses": 1,
        "memories": ["tea"],
    }
    assert (second["number"], second["name"], second["memories"]) == (2, "2", [])
    assert "no system prompt" in second["remarks"][0]


def test_a_person_reads_a_table(cli, several):
    ran = cli("list", several)
    assert (ran.status, ran.err) == (0, "")
    head, first, second, format_ = ran.out.splitlines()
    assert head.split() == ["name", "title", "messages", "responses", "memories"]
    assert first.split() == ["1", "drinks", "What", "do", "I", "drink?", "3", "1", "1"]
    assert second.split() == ["2", "2", "What", "do", "I", "drink?", "1", "0", "0"]
    assert format_ == "format: openai"


def test_a_native_transcript_is_one_conversation(cli, talk):
    (conversation,) = cli("list", talk, "--json").document["conversations"]
    assert conversation == {
        "number": 1,
        "name": "talk",
        "title": "What do I drink?",
        "messages": 7,
        "responses": 2,
        "memories": ["tea", "dog"],
    }


def test_memories_that_a_file_names_are_found_and_how_often_and_where_is_said(
    cli, several, tmp_path
):
    named = tmp_path / "memories.json"
    named.write_text(json.dumps({"help": "You help.", "asks": "What do I drink?", "cat": "A cat."}))
    ran = cli("list", several, "--memories", named, "--json")
    (first, second) = ran.document["conversations"]
    assert first["memories"] == ["help", "tea"]
    assert [(it["message"], it["role"], it["times"]) for it in first["found"]["help"]] == [
        (1, "system", 1)
    ]
    assert first["found"]["asks"] == first["found"]["cat"] == []
    assert second["memories"] == []
    nowhere, typed = first["remarks"]
    assert nowhere == "memories that stand nowhere in the conversation: cat"
    assert typed.startswith("memories that stand only in what the user typed (--memories-anywhere")
    assert typed.endswith(": asks")
    lines = [line.split() for line in cli("list", several, "--memories", named).out.splitlines()]
    assert lines[4:] == [
        ["memory", "found", "where"],
        ["help", "1", "system", "1"],
        ["asks", "0", "nowhere"],
        ["cat", "0", "nowhere"],
        ["tea", "1", "system", "1"],
    ]


def test_memories_are_looked_for_in_what_the_user_typed_if_that_is_asked_for(
    cli, several, tmp_path
):
    named = tmp_path / "memories.json"
    named.write_text(json.dumps({"asks": "What do I drink?"}))
    options = ("--memories", named, "--memories-anywhere")
    found = cli("list", several, *options, "--json").document["conversations"]
    assert [it["memories"] for it in found] == [["tea", "asks"], ["asks"]]
    assert cli("list", several, *options).out.splitlines()[-2].split() == [
        *("asks", "2", "user", "2", "(of", "2", "conversations)")
    ]
    for command in ("list", "score", "plan"):
        ran = cli(command, several, "--memories-anywhere")
        assert (ran.status, ran.out) == (2, "")
        assert "--memories-anywhere goes with --memories FILE" in ran.error


def test_several_files_of_memories_count_together(cli, several, tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "OTHER.md"
    one.write_text('["You help."]')
    other.write_text("# Drinks\n\n- The user drinks\n  green tea.\n")
    ran = cli("list", several, "--memories", one, "--memories", other, "--json")
    key = "drinks/the-user-drinks-green-tea"
    assert ran.document["conversations"][0]["memories"] == ["you-help", key]


def test_memories_are_named_for_no_native_transcript(cli, talk, tmp_path):
    named = tmp_path / "memories.json"
    named.write_text('{"tea": "x"}', encoding="utf-8")
    ran = cli("list", talk, "--memories", named)
    assert (ran.status, ran.out) == (2, "")
    assert "--memories" in ran.error


def test_a_file_whose_name_is_not_utf_8_is_named(command, talk, tmp_path):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))
    talk.rename(file)
    ran = command("list", file, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert Path(ran.document["file"]) == file
    [listed] = ran.document["conversations"]
    assert (listed["name"], listed["memories"]) == (file.stem, ["tea", "dog"])
    assert r"caf\udce9" in command("list", file).out


def test_names_and_titles_do_nothing_to_a_terminal(cli, several):
    record = {"id": "\x1b[2J\u202e", "messages": [{"role": "user", "content": "\x1b[31mred\n\n"}]}
    several.write_text(json.dumps(record))
    for options in ((), ("--json",)):
        ran = cli("list", several, *options)
        assert ran.status == 0
        assert "\x1b" not in ran.out
        assert "\u202e" not in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl: cannot be read"),
        ((".",), "directory"),
        ((), "TRANSCRIPT"),
        (("TALK", "--format", "word"), "--format word: there is no such format; there are atif"),
        (("TALK", "--format", "sharegpt"), "line 1: 'conversations'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(cli, talk, options, said):
    ran = cli("list", *(talk if it == "TALK" else it for it in options))
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.error


def test_the_command_can_be_asked_for_help(cli):
    ran = cli("list", "--help")
    assert (ran.status, ran.err) == (0, "")
    assert "--format" in ran.out


def test_records_that_are_not_valid_are_left_out_and_said(cli, tmp_path):
    good = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
    file = tmp_path / "talk.jsonl"
    file.write_text(f'{good}\n{{"messages": []}}\n{good}\n{{"mess')
    ran = cli("list", file)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith("2 records are not valid and left out: --json says where and why\n")
    first, second = cli("list", file, "--json").document["conversations"]
    assert "left out" not in str(first["remarks"])
    assert second["remarks"][-1] == (
        "left out: 1 record that is not valid: line 4: is not valid JSON: Input data was truncated"
    )
    assert "line 2: 'messages'" in second["remarks"][-2]


def test_a_file_of_no_known_format_is_wrong_input(cli, tmp_path):
    file = tmp_path / "talk.json"
    file.write_text('{"talk": []}')
    ran = cli("list", file)
    assert ran.status == 2
    assert ran.error.startswith(f"{file}: is of no known format; known are: atif, ")
