"""The files of an archive: what is read, what is passed over, and what is an error."""

import errno
import gzip
import json
import os
from pathlib import Path

import pytest

from mindscore._util.errors import TranscriptError, UsageError
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader, Survey, parse_since

TALK = [
    {"role": "memory", "key": "tea", "content": "Green tea."},
    {"role": "user", "content": "What?", "id": "u"},
    {"role": "assistant", "content": "Green tea.", "id": "a"},
]


def lines(*values):
    return "".join(json.dumps(it) + "\n" for it in values).encode()


def several(*names):
    messages = [{"role": "system", "content": "You know:\n- Green tea."}]
    messages += [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Tea."}]
    memories = {"tea": "Green tea."}
    return lines(*({"id": it, "messages": messages, "memories": memories} for it in names))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def names(*paths):
    return [it.path.name for it in Sources(paths)]


def survey(*paths):
    return Survey(ArchiveReader(Sources(paths)))


def ids(*paths):
    return [it.id for it in survey(*paths).found]


def test_a_folder_is_read_in_the_order_of_its_names_with_those_below_it(folder):
    for name in ("b.jsonl", "a.jsonl", "c/d.jsonl", "c/a/e.jsonl"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).write_bytes(lines(*TALK))
    assert names(folder) == ["a.jsonl", "b.jsonl", "d.jsonl", "e.jsonl"]
    assert names(folder / "b.jsonl", folder) == ["b.jsonl", "a.jsonl", "d.jsonl", "e.jsonl"]
    assert names(folder / "**" / "*.jsonl") == ["a.jsonl", "b.jsonl", "e.jsonl", "d.jsonl"]


def test_what_a_folder_holds_beside_conversations_is_counted(folder, tmp_path):
    folder.joinpath("talk.jsonl").write_bytes(lines(*TALK))
    folder.joinpath("note.md").write_text("# Just a note\n", encoding="utf-8")
    folder.joinpath("picture.png").write_bytes(b"\x89PNG\0\0\0\0" * 10)
    folder.joinpath("empty.jsonl").touch()
    folder.joinpath(".hidden.jsonl").write_bytes(lines(*TALK))
    for name in (".git", "node_modules"):
        folder.joinpath(name).mkdir()
        folder.joinpath(name, "talk.jsonl").write_bytes(lines(*TALK))
    os.mkfifo(folder / "pipe")
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(several("outside"))
    folder.joinpath("out.jsonl").symlink_to(outside)
    folder.joinpath("out").symlink_to(tmp_path)
    folder.joinpath("in.jsonl").symlink_to(folder / "talk.jsonl")
    folder.joinpath("loop").symlink_to(folder / "loop")
    reader = ArchiveReader(Sources([folder]))
    assert len(list(Survey(reader).found)) == 1
    assert reader.sources.passed_over.remarks() == [
        "3 files of no known format",
        "2 links out of a folder not followed",
        "1 pipe, socket or device not read",
        "1 hidden file not read",
        "2 folders not entered (.git, node_modules)",
    ]


def test_what_is_named_is_read_whatever_it_is_called_and_followed_where_it_is_a_link(folder):
    folder.joinpath(".hidden").write_bytes(lines(*TALK))
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert len(ids(folder / ".hidden")) == 1
    folder.joinpath("talk.jsonl").write_bytes(several("one"))
    assert ids(link) == ["one"]


@pytest.mark.parametrize("name", ["gone.jsonl", "note.md"])
def test_a_file_that_is_named_and_no_conversation_is_an_error(name, folder):
    folder.joinpath("note.md").write_text("# Just a note\n", encoding="utf-8")
    folder.joinpath("talk.jsonl").write_bytes(lines(*TALK))
    with pytest.raises(TranscriptError, match=name):
        survey(folder / "talk.jsonl", folder / name)


def test_a_pattern_that_matches_nothing_is_an_error_and_one_that_matches_notes_is_not(folder):
    folder.joinpath("note.md").write_text("# Just a note\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no file matches"):
        survey(folder / "*.jsonl")
    assert ids(folder / "*") == []


def test_nothing_is_scored_where_a_named_file_is_unknown(folder, mindscore, passes):
    folder.joinpath("talk.jsonl").write_bytes(lines(*TALK))
    note = folder / "note.md"
    note.write_text("# Just a note\n", encoding="utf-8")
    ran = mindscore("score", folder, note)
    assert (ran.status, ran.out) == (2, "")
    assert "note.md: is of no known format" in ran.err
    assert not folder.parent.joinpath("store").exists()


def test_a_file_of_several_conversations_is_a_pass_and_select_chooses_one(folder, mindscore):
    file = folder / "talks.jsonl"
    file.write_bytes(several("one", "two"))
    assert [it["conversation"] for it in mindscore("score", file, "--json").documents] == [
        "one",
        "two",
    ]
    [document] = mindscore("score", file, "--json", "--select", "two").documents
    assert "conversation" not in document


def test_the_same_conversation_is_taken_once_and_its_latest_state(folder):
    folder.joinpath("a.jsonl").write_bytes(lines(*TALK[:3]))
    folder.joinpath("b.jsonl.gz").write_bytes(gzip.compress(lines(*TALK)))
    more = [{"role": "user", "content": "More?"}, {"role": "assistant", "content": "Black tea."}]
    folder.joinpath("c.jsonl").write_bytes(lines(*TALK, *more))
    found = survey(folder)
    [it] = found.found
    assert it.responses == 2
    assert found.left_out == {"found twice": 1, "an earlier state of another": 1}


def test_conversations_that_begin_alike_and_go_on_differently_are_numbered(folder):
    for name in ("Black tea.", "No tea."):
        more = [{"role": "user", "content": "More?"}, {"role": "assistant", "content": name}]
        folder.joinpath(f"{name}jsonl").write_bytes(lines(*TALK, *more))
    first, second = ids(folder)
    assert second == f"{first}-2"


def test_conversations_without_memories_or_responses_are_left_out(folder):
    folder.joinpath("a.jsonl").write_bytes(lines(*TALK[1:]))
    folder.joinpath("b.jsonl").write_bytes(lines(*TALK[:2]))
    found = survey(folder)
    assert found.select() == []
    assert found.left_out == {"without memories": 1, "without responses": 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12h", 1e6 - 12 * 3600),
        ("2w", 1e6 - 14 * 86_400),
        ("1970-01-02", 86_400),
        ("1970-01-02T00:00:00+01:00", 82_800),
    ],
)
def test_since_is_an_age_or_a_date(text, seconds):
    assert parse_since(text, now=1e6) == seconds


@pytest.mark.parametrize("text", ["soon", "12", "9x", "2026-13-01", ""])
def test_another_since_is_an_error(text):
    with pytest.raises(UsageError, match="--since"):
        parse_since(text)


@pytest.mark.parametrize("command", ["score", "plan"])
def test_what_of_a_folder_may_not_be_read_is_named_and_fails(
    command, folder, mindscore, monkeypatch
):
    folder.joinpath("talk.jsonl").write_bytes(lines(*TALK))
    folder.joinpath("secret.jsonl").write_bytes(lines(*TALK))
    folder.joinpath("closed").mkdir()
    # Who runs tests as root may read everything.
    honest_open, honest_scan = Path.open, os.scandir

    def refuse(path):
        if Path(path).name in ("secret.jsonl", "closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def refusing_open(path, *args, **kwargs):
        refuse(path)
        return honest_open(path, *args, **kwargs)

    def refusing_scan(path):
        refuse(path)
        return honest_scan(path)

    monkeypatch.setattr(Path, "open", refusing_open)
    monkeypatch.setattr(os, "scandir", refusing_scan)
    ran = mindscore(command, folder)
    assert ran.status == 1
    for name in ("secret.jsonl", "closed"):
        assert f"mindscore: {folder / name}: cannot be read: Permission denied" in ran.err
