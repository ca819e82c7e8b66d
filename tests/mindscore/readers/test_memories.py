"""Files of memories: JSON of several shapes, JSON Lines, Markdown."""

import json

import pytest

from mindscore._util.errors import TranscriptError
from mindscore.readers.memories import read_memories

TEA, DOG = "She drinks green tea.", "Her dog is Max."
LONG = "She drinks green tea, but never after six, because then she cannot sleep."


@pytest.fixture
def given(tmp_path):
    """Read memories of a file of this content: ``given("memories.json", ...)``."""

    def read(name, content):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_memories(file)

    return read


def test_an_object_of_texts_is_read_as_it_is(given):
    assert given("m.json", {"tea": TEA, "dog": DOG}) == {"tea": TEA, "dog": DOG}
    assert given("m.json", {"tea": {"text": TEA}}) == {"tea": TEA}


def test_keys_of_a_list_are_made_of_first_words_and_stay_wherever_a_text_stands(given):
    found = given("m.json", [TEA, DOG, LONG])
    assert list(found.values()) == [TEA, DOG, LONG]
    short, dog, long = found
    assert (short, dog) == ("she-drinks-green-tea", "her-dog-is-max")
    assert long.startswith("she-drinks-green-tea-but-never-")
    assert given("m.json", [LONG, "Rain.", TEA]).items() >= {(short, TEA), (long, LONG)}


def test_texts_that_begin_alike_have_keys_of_their_own(given):
    more = LONG.replace("sleep", "dream")
    assert list(given("m.json", [LONG, more, LONG]).values()) == [LONG, more]


def test_texts_of_the_same_words_have_keys_of_their_own(given):
    texts = ["Use tabs!", "Use tabs?", "Use tabs.", "Use: tabs"]
    found = given("m.json", texts)
    assert list(found.values()) == texts
    assert [key for key in found if "-" not in key.removeprefix("use-tabs")] == ["use-tabs"]


def test_a_text_without_words_of_letters_still_has_a_key(given):
    assert list(given("m.json", ["猫が好き", "?!"]).values()) == ["猫が好き", "?!"]


@pytest.mark.parametrize(
    "item",
    [
        {"id": "tea", "memory": TEA, "hash": "x", "score": 0.5},
        {"key": "tea", "text": TEA},
        {"name": "tea", "content": TEA},
        {"label": "tea", "value": TEA, "limit": 5000},
        {"uuid": "tea", "fact": TEA},
    ],
)
@pytest.mark.parametrize("around", ["list", "results", "memories", "lines"])
def test_a_list_of_objects_is_read_under_its_keys(given, item, around):
    other = {"id": 7, "memory": DOG}
    content = [item, other]
    if around == "lines":
        content = f"{json.dumps(item)}\n{json.dumps(other)}\n"
    elif around != "list":
        content = {around: content, "relations": []}
    assert given("m.json", content) == {"tea": TEA, "7": DOG}


def test_an_entity_of_an_mcp_server_has_a_memory_for_each_observation(given):
    entity = {"type": "entity", "name": "Nora", "entityType": "person", "observations": [TEA, DOG]}
    assert given("memory.jsonl", json.dumps({**entity, "observations": [DOG]})) == {
        "Nora/her-dog-is-max": DOG
    }
    relation = {"type": "relation", "from": "Nora", "to": "Max", "relationType": "owns"}
    found = given("memory.jsonl", f"{json.dumps(entity)}\n{json.dumps(relation)}\n")
    assert found == {
        "Nora/she-drinks-green-tea": TEA,
        "Nora/her-dog-is-max": DOG,
        "Nora/Max/owns": '"from": "Nora", "to": "Max", "relationType": "owns"',
    }


MARKDOWN = """---
name: notes
---
# Ines

She is a boat
builder.

## Her workshop

- She uses oak glue.
  - On masts too.
- [Paint](paint.md) is blue,
  always.

1. Measure twice.

***

```sh
make test

make paint
```

## Dog
§
Her dog is Max.
"""


@pytest.mark.parametrize("name", ["AGENTS.md", "memories.txt"])
def test_list_items_paragraphs_and_code_of_markdown_are_memories_under_their_headings(given, name):
    found = given(name, MARKDOWN)
    assert {key: text for key, text in found.items() if "paint" not in key} == {
        "ines/she-is-a-boat-builder": "She is a boat\nbuilder.",
        "ines/her-workshop/she-uses-oak-glue": "She uses oak glue.",
        "ines/her-workshop/on-masts-too": "On masts too.",
        "ines/her-workshop/measure-twice": "Measure twice.",
        "ines/dog/her-dog-is-max": "Her dog is Max.",
    }
    assert [text for key, text in found.items() if "paint" in key] == [
        "[Paint](paint.md) is blue,\nalways.",
        "make test\n\nmake paint\n",
    ]


def test_entries_between_section_signs_are_memories_of_their_own(given):
    assert list(given("MEMORY.md", f"{TEA}\n§\n{DOG}\n").values()) == [TEA, DOG]


def test_files_count_together_and_must_not_contradict_each_other(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps({"tea": TEA}))
    other.write_text(json.dumps({"tea": TEA, "dog": DOG}))
    assert read_memories(one, other) == {"tea": TEA, "dog": DOG}
    other.write_text(json.dumps({"tea": DOG}))
    with pytest.raises(TranscriptError) as caught:
        read_memories(one, other)
    expected = "memory 'tea': another memory of the same key has another text"
    assert str(caught.value) == f"{other}, {expected}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "line 1: is not valid JSON"),
        ('{"id": "a", "text": "b"}\n{"id"', "line 2: is not valid JSON"),
        ("[]", "holds no memories"),
        ("", "holds no memories"),
        ("3", "expected {key: text} or a list of memories, got a number"),
        ('{"a": 1}', "memory 'a': expected text, got a number"),
        ('{"a": " "}', "memory 'a': its text is empty"),
        ('{"": "a"}', "a memory: a key is empty"),
        ('["a", " "]', "memory 2: its text is empty"),
        ('["a", 3]', "memory 2: expected text or an object, got a number"),
        ('[{"id": "a"}]', "memory 1: expected a text in one of memory, text, content"),
        ('[{"id": "a", "text": 3}]', "memory 'a': expected text, got a number"),
        ('[{"name": "a", "observations": [3]}]', "memory 'a': expected text, got a number"),
    ],
)
def test_memories_that_are_none_are_refused(given, tmp_path, content, reason):
    with pytest.raises(TranscriptError) as caught:
        given("memories.json", content)
    assert str(caught.value).startswith(str(tmp_path / "memories.json"))
    assert reason in str(caught.value)
