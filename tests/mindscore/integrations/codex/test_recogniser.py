"""The memories in Codex CLI's prompts, as 0.171 printed them, and versions before it."""

import itertools

import pytest

from mindscore.recognisers import MemoryFinder

HEAD = "# AGENTS.md instructions for /home/ines/boats"
SKILLS = "## Skills\nA skill is a set of local instructions to follow. One: sail."


def printed(body, head=HEAD):
    return f"{head}\n\n<INSTRUCTIONS>\n{body}\n</INSTRUCTIONS>"


def found(text, role="user"):
    finder = MemoryFinder().find(role, text)
    assert finder.remarks == ()
    return finder.blocks


@pytest.mark.parametrize("after", ["", "<environment_context>\n</environment_context>"])
def test_the_files_of_a_project_are_one_memory_under_its_path(after):
    text = printed("Use oak glue.\n") + after
    [block] = found(text)
    [entry] = block.entries
    assert (entry.key, entry.text) == ("/home/ines/boats/AGENTS.md", "Use oak glue.\n")
    assert block.render(frozenset({entry.key})) == ""
    assert text[block.end :] == after


def test_the_users_own_file_is_a_memory_of_its_own():
    text = printed("Her name is Ines.\n\n--- project-doc ---\n\nUse oak glue.\n")
    [block] = found(text)
    own, project = block.entries
    assert (own.key, own.text) == ("~/.codex/AGENTS.md", "Her name is Ines.")
    assert block.render(frozenset({own.key})) == printed("Use oak glue.\n")
    assert block.render(frozenset({project.key})) == printed("Her name is Ines.")
    keys = [own.key, project.key]
    for count, skipped in itertools.product(range(3), itertools.permutations(keys)):
        assert isinstance(block.render(frozenset(skipped[:count])), str)


def test_skills_that_are_listed_after_the_files_are_no_memory():
    [block] = found(printed(f"Use oak glue.\n\n{SKILLS}"))
    [entry] = block.entries
    assert entry.text == "Use oak glue."
    assert block.render(frozenset({entry.key})) == printed(SKILLS)
    assert found(printed(SKILLS)) == ()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (printed("Glue.", "# AGENTS.md instructions"), "AGENTS.md"),
        (printed("Glue.", "# AGENTS.md instructions for C:\\boats"), "C:\\boats\\AGENTS.md"),
        ("<user_instructions>\n\nGlue.\n\n</user_instructions>", "AGENTS.md"),
    ],
)
def test_other_headers_are_known(text, key):
    [block] = found(text)
    assert [(it.key, it.text) for it in block.entries] == [(key, "Glue.")]
    assert block.render(frozenset({key})) == ""


def test_the_summary_of_memories_is_one_under_its_path():
    text = (
        "## Memory\n\n- /home/ines/.codex/memories/memory_summary.md (already provided)\n\n"
        "========= MEMORY_SUMMARY BEGINS =========\nShort answers.\n\nPlease.\n"
        "========= MEMORY_SUMMARY ENDS =========\n\nLook first.\n"
    )
    [block] = found(text, "system")
    [entry] = block.entries
    assert entry.key == "/home/ines/.codex/memories/memory_summary.md"
    assert entry.text == "Short answers.\n\nPlease."
    assert block.render(frozenset({entry.key})) == ""
    assert block.render(frozenset({"another"})) == entry.text
    assert found(text) == ()


@pytest.mark.parametrize("role", ["system", "tool", "assistant"])
def test_only_a_user_message_prints_files(role):
    assert found(printed("Use oak glue."), role) == ()


@pytest.mark.parametrize("text", [HEAD, printed(""), printed(" \n"), "<user_instructions>"])
def test_what_holds_no_file_is_no_memory(text):
    assert found(text) == ()
