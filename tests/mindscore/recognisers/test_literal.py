"""Memories that somebody names, found as they stand."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.recognisers import MemoryFinder

LINES = st.lists(st.sampled_from(["a b", "c", "d e f", "plain", "", "g"]), min_size=1, max_size=8)
BULLET = st.sampled_from(["", "- ", "* ", "• "])
KNOWN = {"ab": "a b", "c": "c", "def": "d e f", "g": "g"}
KEYS = {text: key for key, text in KNOWN.items()}


def find(text, **known):
    return MemoryFinder(known).find("system", text)


def without(text, found, *skipped):
    """Return the message as its blocks render it without some memories."""
    for block in reversed(found.blocks):
        text = text[: block.start] + block.render(frozenset(skipped)) + text[block.end :]
    return text


@given(lines=LINES, bullet=BULLET, skipped=st.sets(st.sampled_from([*KNOWN])))
def test_the_lines_of_any_memories_go_and_nothing_else_does(lines, bullet, skipped):
    def text(lines):
        return "\n".join(f"{bullet}{it}" if it in KEYS else it for it in lines)

    given_ = "Memories:\n" + text(lines)
    found = MemoryFinder(KNOWN).find("system", given_)
    left = [it for it in lines if KEYS.get(it) not in skipped]
    assert without(given_, found) == given_
    assert without(given_, found, *skipped) == "\n".join(
        ["Memories:", *([text(left)] if left else [])]
    )


@given(
    known=st.dictionaries(st.sampled_from("kmn"), st.text("ab \n-", max_size=6)),
    text=st.text("ab \n-", max_size=40),
)
def test_what_is_left_is_the_message_whatever_is_named(known, text):
    found = MemoryFinder(known).find("system", text)
    assert without(text, found) == text
    for block in found.blocks:
        for entry in block.entries:
            assert entry.text.split() == known[entry.key].split()
            assert entry.text in text[block.start : block.end]
    assert len(without(text, found, *known)) <= len(text)


def test_a_memory_within_a_line_goes_alone():
    found = find("I know: likes tea. Be kind.", t="likes tea.")
    assert without("I know: likes tea. Be kind.", found, "t") == "I know:  Be kind."


def test_a_memory_of_several_lines_goes_with_its_bullet():
    text = "Known:\n- likes tea\n  and cake\n- likes rain\nBye."
    found = find(text, t="likes tea\n  and cake", r="likes rain")
    assert without(text, found, "t") == "Known:\n- likes rain\nBye."
    assert without(text, found, "t", "r") == "Known:\nBye."


def test_the_white_space_around_a_memory_is_not_part_of_it():
    assert without("- likes tea\nBye.", find("- likes tea\nBye.", t=" likes tea\n"), "t") == "Bye."


def test_a_memory_that_is_printed_twice_goes_twice():
    text = "- tea\nand tea\n- tea"
    assert without(text, find(text, t="tea"), "t") == "and "


def test_of_texts_that_overlap_the_longer_one_counts():
    text = "likes green tea"
    found = find(text, long="likes green", short="green tea")
    assert [entry.key for block in found.blocks for entry in block.entries] == ["long"]
    assert "'short' is found only where it overlaps another memory" in found.remarks[0]


def test_a_text_within_another_is_found_where_it_stands_alone():
    text = "- likes green tea\n- tea"
    found = find(text, long="likes green tea", short="tea")
    assert without(text, found, "short") == "- likes green tea"
    assert without(text, found, "long") == "- tea"
    assert found.remarks == ()


def test_of_two_that_say_the_same_one_is_found_and_the_other_is_said():
    found = find("- tea", a="tea", b="tea")
    assert [entry.key for block in found.blocks for entry in block.entries] == ["a"]
    assert "'b'" in found.remarks[0]


@pytest.mark.parametrize("nothing", ["", " ", "\n"])
def test_an_empty_memory_is_nowhere(nothing):
    found = find("a b", k=nothing)
    assert (found.blocks, found.remarks) == ((), ())


def test_a_response_holds_no_memories():
    assert MemoryFinder({"t": "tea"}).find("assistant", "tea").blocks == ()


@pytest.mark.parametrize(
    "text", ["concatenate the catalogue", "bobcat", "cat2", "Bücat", "cat_flap", "cat\u0301"]
)
def test_a_text_is_not_found_within_a_word(text):
    assert find(text, pet="cat").blocks == ()


def test_a_text_is_found_beside_punctuation_and_within_a_word_too_only_where_it_stands_alone():
    text = "concatenate: (cat), cat's, cat"
    spans = [(it.start, it.end) for it in find(text, pet="cat").blocks]
    assert [text[start:end] for start, end in spans] == ["cat"] * 3
    assert spans[0] == (14, 17)


@pytest.mark.parametrize(("memory", "text"), [("猫", "我的猫很好"), ("แมว", "ฉันมีแมวหนึ่งตัว")])
def test_a_text_is_found_where_words_are_not_separated(memory, text):
    (block,) = find(text, pet=memory).blocks
    assert text[block.start : block.end] == memory


def test_a_text_without_letters_is_not_looked_for_and_that_is_said():
    found = find("-" * 40_000, empty="-")
    assert found.blocks == ()
    (remark,) = found.remarks
    assert "'empty' holds no letter or digit" in remark


def test_a_short_text_in_very_many_places_is_found_in_all_of_them_at_once():
    begun = time.monotonic()
    assert len(find("en, " * 60_000, language="en").blocks) == 60_000
    # Quadratic, it takes a minute and a half.
    assert time.monotonic() - begun < 20


def test_the_same_words_that_the_user_typed_are_no_memory():
    text = "I am allergic to nuts."
    assert MemoryFinder({"nuts": text}).find("user", text).blocks == ()
    for role in ("system", "tool", "memory"):
        assert len(MemoryFinder({"nuts": text}).find(role, text).blocks) == 1
    assert len(MemoryFinder({"nuts": text}, anywhere=["nuts"]).find("user", text).blocks) == 1


@pytest.mark.parametrize(
    "tag", ["memories", "memory-context", "relevant_memories", "USER_MEMORY", "system-reminder"]
)
def test_what_a_host_prints_between_tags_in_a_users_message_is_found(tag):
    text = f"I like tea.\n<{tag} n='2'>\n- I like tea.\n- rain\n</{tag}>\nI like tea."
    found = MemoryFinder({"tea": "I like tea."}).find("user", text)
    assert without(text, found, "tea") == text.replace("- I like tea.\n", "")


@pytest.mark.parametrize("text", ["<memories> tea", "<memo>tea</memo>", "a < memories > tea"])
def test_what_looks_like_tags_and_is_none_holds_no_memories(text):
    assert MemoryFinder({"tea": "tea"}).find("user", text).blocks == ()


def test_very_many_tags_that_nothing_closes_are_passed_over_at_once():
    begun = time.monotonic()
    assert MemoryFinder({"tea": "tea"}).find("user", "<memories> tea " * 60_000).blocks == ()
    # Quadratic, it takes minutes.
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "text",
    ["- She likes\n  blue paint.\nBye.", "- She  likes blue\tpaint.\nBye.",
     "- She likes\r\n  blue paint.\nBye."],
)  # fmt: skip
def test_white_space_may_differ_where_a_host_wraps_lines(text):
    found = find(text, paint="She likes blue paint.")
    assert without(text, found) == text
    assert without(text, found, "paint") == "Bye."


def test_a_text_does_not_go_on_in_the_next_paragraph():
    assert find("She likes\n\nblue paint.", paint="She likes blue paint.").blocks == ()
    assert find("a b\n\nc d", two="a b\n \nc d").blocks != ()
    assert find("a b c d", two="a b\n \nc d").blocks != ()


def test_a_text_is_found_as_json_writes_it():
    text = '{"found": ["She said \\"tea\\",\\nthen caf\\u00e9."]}'
    found = find(text, said='She said "tea",\nthen café.')
    assert without(text, found, "said") == '{"found": [""]}'


def test_a_text_is_found_in_json_within_json():
    said = 'She said "tea",\nthen café.'
    inner = json.dumps({"found": said})
    text = json.dumps({"content": inner, "details": {"found": said}})
    found = find(text, said=said)
    assert without(text, found, "said") == json.dumps(
        {"content": '{"found": ""}', "details": {"found": ""}}
    )


def test_a_text_is_found_as_xml_writes_it():
    text = "<memory>\n<entry>cats &amp; dogs &lt; 3</entry>\n</memory>"
    assert without(text, find(text, pets="cats & dogs < 3"), "pets") == (
        "<memory>\n<entry></entry>\n</memory>"
    )


def test_an_indented_or_numbered_line_goes_with_its_memory():
    text = "Known:\n  - tea\n  - rain\n1. cake\n2) pie\nBye."
    found = find(text, t="tea", r="rain", c="cake", p="pie")
    assert without(text, found, "t", "c") == "Known:\n  - rain\n2) pie\nBye."


def test_how_often_a_memory_stands_in_a_list_is_counted():
    [block] = find("- tea\n- rain\n- tea", t="tea", r="rain").blocks
    assert {entry.key: entry.times for entry in block.entries} == {"t": 2, "r": 1}
