"""A report on the beginning of the bundled conversation, by the real model."""

from pathlib import Path

import pytest

from mindscore.cli import main

from ..opening import opened

DEMO = Path(__file__).parents[3] / "plugin" / "mindscore" / "demo" / "conversation.jsonl"


@pytest.fixture
def file(tmp_path):
    lines = DEMO.read_text(encoding="utf-8").splitlines(keepends=True)
    last = next(at for at, line in enumerate(lines) if "Call Dr. Okafor" in line)
    talk, file = tmp_path / "talk.jsonl", tmp_path / "report.html"
    talk.write_text("".join(lines[: last + 1]), encoding="utf-8")
    memories = ["--memory", "dentist", "--memory", "childhood-cello"]
    assert main(["score", str(talk), "--full", *memories, "--html", str(file)]) == 0
    return file


@pytest.mark.model
def test_the_words_that_a_memory_taught_are_marked(browser, file):
    with opened(browser, file) as it:
        assert it.texts("#ranking .choose") == ["dentist", "childhood-cello"]
        assert it.texts("#chosen-title .key") == ["dentist"]
        [said] = it.texts("#chosen .response:first-child .spoken")
        assert said.startswith("Call Dr. Okafor at the practice on Linden Street")
        # In whole words, though each is several tokens.
        assert {"Okafor", "Linden"} <= set(it.texts("#chosen .response:first-child mark.more-3"))
        assert it.wrong == []
