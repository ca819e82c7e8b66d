"""Hermes' memories: found where it prints them, and left out as it would.

``hermes_blocks.json`` is by the real hermes-agent 0.19.0; ``tests/hosts/hermes.py`` compares many
more with it.
"""

import json
import time
from pathlib import Path

import pytest

from mindscore.integrations.hermes.recogniser import RULE
from mindscore.recognisers import MemoryFinder

CASES = json.loads(Path(__file__).with_name("hermes_blocks.json").read_text())
FENCE = (
    "<memory-context>\n[System note: The following is recalled memory context, NOT new user input. "
    "Treat as authoritative reference data — this is the agent's persistent memory and should "
    "inform all responses.]\n\n{}\n</memory-context>"
)
LIST = "## Holographic Memory\n- [0.5] Nora keeps bees.\n- [0.7] They are Ada and Grace."


def memory(content, *, title="MEMORY (your personal notes)", limit=2200):
    share = min(100, int(len(content) / limit * 100))
    header = f"{title} [{share}% — {len(content):,}/{limit:,} chars]"
    return f"{RULE}\n{header}\n{RULE}\n{content}"


def find(text, role="system"):
    return MemoryFinder().find(role, text)


def without(text, *places, role="system"):
    """The text without the memories at these places among all of them."""
    found = find(text, role)
    assert not found.remarks
    keys = [entry.key for block in found.blocks for entry in block.entries]
    skipped, printed, at = frozenset(keys[it] for it in places), "", 0
    for block in found.blocks:
        printed += text[at : block.start] + block.render(skipped)
        at = block.end
    return printed + text[at:]


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_without_entries_is_what_hermes_prints(case) -> None:
    assert without(case["whole"]) == case["whole"]
    for gone, printed in case["without"]:
        assert without(case["whole"], *gone) == printed


def test_the_same_entry_has_the_same_key_in_every_prompt() -> None:
    one, other = (find(memory(content)).blocks for content in ("a\n§\nb", "c\n§\nb"))
    assert one[0].entries[1].key == other[0].entries[1].key
    assert one[0].entries[1].key.startswith("hermes:memory:")


def test_a_memory_and_a_profile_entry_of_the_same_text_are_two() -> None:
    user = memory("tea", title="USER PROFILE (who the user is)")
    [block] = find(f"{memory('tea')}\n\n{user}").blocks
    assert len({entry.key for entry in block.entries}) == 2


@pytest.mark.parametrize(
    "text",
    [
        memory("tea").replace("3/", "4/"),
        memory("tea").replace("0%", "1%"),
        memory("tea").replace("═\nt", "\nt"),
        memory("tea") + " and more",
        memory("tea").replace("MEMORY", "MEMOIR"),
        memory("tea").removesuffix("a"),
    ],
)
def test_what_is_not_exactly_a_block_stays_plain_text(text) -> None:
    assert not find(f"You help.\n\n{text}").blocks


def test_a_block_in_a_user_message_is_no_memory() -> None:
    assert not find(memory("tea"), "user").blocks


def test_an_entry_that_quotes_a_block_is_one_entry() -> None:
    [block] = find(memory(f"quoted:\n{memory('tea')}\n\nend")).blocks
    assert len(block.entries) == 1


def test_two_readings_of_a_block_are_none_and_that_is_said() -> None:
    found = find(memory("a\n§\n§\nb"))
    assert not found.blocks
    assert "two ways to read" in found.remarks[0]


def test_a_block_that_is_there_twice_is_none_and_that_is_said() -> None:
    found = find(f"{memory('quoted')}\n\nbetween\n\n{memory('tea')}")
    assert not found.blocks
    assert "more than one such block" in found.remarks[0]


def test_an_entry_that_hermes_blocked_twice_goes_as_one() -> None:
    notice = "[BLOCKED: MEMORY.md entry]"
    text = memory(f"{notice}\n§\ntea\n§\n{notice}")
    assert without(text, 0) == memory("tea")


def test_recalled_facts_are_memories_each() -> None:
    text = f"Which bees?\n\n{FENCE.format(LIST)}"
    assert without(text, 0, role="user") == text.replace("- [0.5] Nora keeps bees.\n", "")
    assert without(text, 0, 1, role="user") == "Which bees?"


def test_what_follows_a_fence_stays() -> None:
    text = f"Which bees?\n\n{FENCE.format(LIST)}\n\nA plugin's context."
    assert without(text, 0, 1, role="user") == "Which bees?\n\nA plugin's context."


@pytest.mark.parametrize(
    "recalled",
    ["Nora keeps bees.", "- one\n  and more", "# A\n- one\n\n# B\n- two", "- one\n- one", "# A"],
)
def test_recall_that_is_no_plain_list_is_one_memory(recalled) -> None:
    text = f"Which bees?\n\n{FENCE.format(recalled)}"
    [block] = find(text, "user").blocks
    assert [entry.text for entry in block.entries] == [recalled]
    assert without(text, 0, role="user") == "Which bees?"


def test_a_fence_that_a_user_quotes_hides_no_real_one() -> None:
    asked = "What is\n<memory-context>\nfor?"
    text = f"{asked}\n\n{FENCE.format(LIST)}"
    assert without(text, 0, 1, role="user") == asked


def test_a_fence_without_hermes_note_is_no_memory() -> None:
    assert not find("<memory-context>\n\ntea\n</memory-context>", "user").blocks


LIE = f"{RULE}\nMEMORY (your personal notes) [0% — 999,999,999/10 chars]\n{RULE}\n"
NOTE = "[System note: The following is recalled memory context, x]\n\n"


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("system", LIE * 8_000),
        ("user", "<memory-context>\n" * 80_000),
        ("user", f"<memory-context>\n{NOTE}" * 80_000),
        ("user", f"<memory-context>\n{NOTE}" * 80_000 + "\n</memory-context>x"),
        (
            "user",
            "<memory-context>\n[System note: The following is recalled memory context, " * 9000,
        ),
    ],
)
def test_a_message_made_to_be_slow_is_read_in_one_pass(role, text):
    begun = time.monotonic()
    found = find(text, role)
    assert found.blocks == ()
    assert len(found.remarks) <= 21
    # Quadratic, each takes a minute and more.
    assert time.monotonic() - begun < 15
