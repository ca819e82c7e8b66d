"""The Letta recogniser.

Built from the documented shape, not by Letta: its last server in Python, 0.16.8, prints so in
``Memory.compile`` (letta/schemas/memory.py), with line numbers for some models.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.recognisers import MemoryFinder

WARNING = "# NOTE: Line numbers shown below (with arrows like '1→') are to help during editing."
VALUES = st.text(st.sampled_from("ab→1 \n<>/é"), max_size=12) | st.sampled_from(
    ["</value>\n</human>\n", "1→ a\n2→ b", "\n", "<value>\nx\n</value>", "- chars_current=3"]
)
BLOCKS = st.lists(
    st.tuples(st.sampled_from(["human", "persona", "a b", "x_1"]), VALUES, st.booleans()),
    min_size=1,
    max_size=4,
    unique_by=lambda it: it[0],
)


def printed(blocks, numbered=False):
    """What the server prints of labelled values."""
    if not blocks and not numbered:
        return ""
    parts = []
    for label, value, read_only in blocks:
        said = f"{value}\n"
        if numbered:
            lines = enumerate(value.split("\n"), start=1) if value else ()
            said = "".join(f"{number}→ {line}\n" for number, line in lines)
        parts.append(
            f"<{label}>\n<description>\nAbout it.\n</description>\n<metadata>"
            + "\n- read_only=true" * read_only
            + f"\n- chars_current={len(value)}\n- chars_limit=5000\n</metadata>\n"
            + f"<warning>\n{WARNING}\n</warning>\n" * numbered
            + f"<value>\n{said}</value>\n</{label}>\n"
        )
    return (
        "<memory_blocks>\nThe following memory blocks are currently engaged in your core memory "
        "unit:\n\n" + "\n".join(parts) + "\n</memory_blocks>"
    )


@pytest.mark.parametrize("numbered", [False, True])
@given(blocks=BLOCKS)
def test_the_prompt_without_blocks_is_what_letta_prints_without_them(numbered, blocks):
    text = f"Before.\n{printed(blocks, numbered)}\n\nAfter."
    [block] = MemoryFinder().find("system", text).blocks
    assert [entry.key for entry in block.entries] == [f"letta:{label}" for label, *_ in blocks]
    labels = [label for label, *_ in blocks]
    for size in range(len(labels) + 1):
        for skipped in itertools.combinations(labels, size):
            left = [it for it in blocks if it[0] not in skipped]
            rendered = block.render(frozenset(f"letta:{label}" for label in skipped))
            assert text[: block.start] + rendered + text[block.end :] == (
                f"Before.\n{printed(left, numbered)}\n\nAfter."
            )


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize(
    ("this", "is_that"),
    [
        ("chars_current=6", "chars_current=7"),
        ("chars_current=6", "chars_current=5"),
        ("chars_current=6", "chars_current=999999999"),
        ("</value>\n</human>", "</value>\n</man>"),
        ("\n</memory_blocks>", ""),
        ("core memory unit", "memory"),
        ("<description>", "<about>"),
    ],
)
def test_a_damaged_section_stays_plain_and_is_said_to(numbered, this, is_that):
    text = printed([("human", "Likes\n", False)], numbered)
    assert this in text
    found = MemoryFinder().find("system", text.replace(this, is_that))
    assert found.blocks == ()
    assert "not as their lengths say" in found.remarks[0]


def test_a_label_printed_twice_is_refused():
    found = MemoryFinder().find("system", printed([("a", "x", False), ("a", "y", False)]))
    assert found.blocks == ()
    assert "twice" in found.remarks[0]


def test_memories_kept_in_git_are_said_to_be_unread():
    text = "<self>\n<projection>$MEMORY_DIR/system/persona.md</projection>\nI am.\n</self>"
    found = MemoryFinder().find("system", text)
    assert found.blocks == ()
    assert "git" in found.remarks[0]


@pytest.mark.parametrize("role", ["user", "tool", "assistant"])
def test_only_a_system_prompt_holds_a_section(role):
    found = MemoryFinder().find(role, printed([("human", "x", False)]))
    assert (found.blocks, found.remarks) == ((), ())
