"""What ``llm mind`` does, over the logs that llm 0.36 wrote; llm itself is in tests/hosts."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mindscore._util.errors import ConfigError, TranscriptError, UsageError
from mindscore.integrations.llm.scoring import chosen, score_logged, show_fragments, show_logged

LOGS = Path(__file__).parents[2] / "readers" / "fixtures" / "llm-0.36.sql"


@pytest.fixture
def logs(tmp_path):
    """llm's database."""
    file = tmp_path / "logs.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(LOGS.read_text(encoding="utf-8"))
    return file


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The toy and a store of its own, in a configuration that would leave fragments out."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[server]\nscorer = "toy"\n[memory]\ninterval_s = 3600\ntoken_cutoff = 0.1\n'
        f'[store]\nurl = "sqlite:///{tmp_path}/store.sqlite3"\nnamespace = "mine"\n'
    )
    monkeypatch.setenv("MINDSCORE_CONFIG", str(file))
    monkeypatch.setenv("COLUMNS", "100")


def test_the_last_conversations_with_fragments_are_chosen(logs):
    every = chosen(logs, 50, None)
    assert [it.title for it in every] == [
        "what time is it?",
        "The deploy key is blue-42. The …",
        "The deploy key is blue-42. ",
        "The deploy key is blue-42. Be t…",
    ]
    assert [it.name for it in chosen(logs, 2, None)] == [it.name for it in every[:2]]
    assert [it.name for it in chosen(logs, 1, every[3].name)] == [every[3].name]


def test_a_conversation_that_is_not_logged_is_an_error(logs):
    with pytest.raises(UsageError, match="no conversation 'none' is logged; see llm mind list"):
        chosen(logs, 1, "none")
    with pytest.raises(TranscriptError, match="unable to open"):
        chosen(logs.with_name("none.db"), 1, None)


@pytest.mark.usefixtures("settings")
def test_every_fragment_is_scored_whenever_it_was_last_and_however_long_it_is(logs, capsys):
    for _ in range(2):
        assert score_logged(chosen(logs, 50, None), False, ()) is None
    printed = capsys.readouterr().out
    assert "not due" not in printed
    assert "too recent" not in printed
    show_fragments(())
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert {row[0]: row[-1] for row in rows} == {"notes": "6", "/tmp/notes/style.md": "4"}


@pytest.mark.usefixtures("settings")
def test_the_matrix_has_every_response(logs, capsys):
    [first] = chosen(logs, 1, chosen(logs, 50, None)[-1].name)
    assert score_logged([first], True, ()) is None
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["memory", "#1", "#3"] in lines
    assert {line[0] for line in lines if len(line) == 3} >= {"notes", "/tmp/notes/style.md"}


@pytest.mark.usefixtures("settings")
def test_what_is_not_in_the_prompt_is_said(logs, capsys):
    assert score_logged(chosen(logs, 1, None), False, ()) is None
    assert "definitions are not part of the prompt" in capsys.readouterr().out


@pytest.mark.usefixtures("settings")
def test_the_command_line_comes_last(logs, capsys):
    conversations = chosen(logs, 50, None)
    assert score_logged(conversations, False, ("memory.token_cutoff=0.0",)) is None
    assert "too recent to judge" in capsys.readouterr().out
    show_fragments(())
    assert "No fragment is scored yet" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"memory\.interval_s"):
        score_logged(conversations, False, ("memory.interval_s=soon",))


@pytest.mark.usefixtures("settings")
def test_a_conversation_that_fails_does_not_stop_the_others(logs, capsys):
    refused = "server.base_url=http://127.0.0.1:1/v1"
    options = ("server.scorer=score", refused, "server.max_attempts=1", "server.tokenizer=/none")
    error = score_logged(chosen(logs, 3, None), False, options)
    assert "(and 2 more conversations failed)" in error
    assert len(error.splitlines()) == 1
    assert capsys.readouterr().out.count("failed:") == 3


@pytest.mark.usefixtures("settings")
def test_no_conversation_is_no_error(capsys):
    assert score_logged([], False, ()) is None
    show_logged([])
    assert capsys.readouterr().out == "No conversation with fragments is logged.\n" * 2


@pytest.mark.usefixtures("settings")
def test_a_line_tells_of_each_conversation(logs, capsys):
    show_logged(chosen(logs, 50, None))
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split() == ["conversation", "last", "response", "fragments", "responses", "title"]
    assert [line.split()[3:5] for line in lines] == [
        ["1", "2"], ["1", "1"], ["1", "1"], ["2", "2"]
    ]  # fmt: skip
