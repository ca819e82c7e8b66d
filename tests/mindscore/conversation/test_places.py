"""Where memories stand, and which named ones stand nowhere."""

from pathlib import Path

import pytest

from mindhooks import Role
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.conversation.places import absence_remarks, find_places, typed_remarks
from mindscore.recognisers import MemoryFinder

TEA, DOG, CAT = "She likes tea.", "Her dog is Max.", "She has a cat."


@pytest.fixture
def transcript():
    """Return the transcript of these messages: ``transcript([(role, text), …], known={…})``."""

    def make(said, known=(), own=(), anywhere=()):
        messages = tuple(Message(Role(role), text) for role, text in said)
        conversation = Conversation("c", messages, memories=dict(own))
        finder = MemoryFinder({**dict(own), **dict(known)}, anywhere=anywhere)
        return conversation.transcript(Path("c"), finder)

    return make


def test_every_place_of_a_memory_is_named_with_how_often_it_stands_there(transcript):
    said = [
        ("system", f"- {TEA}\n- {DOG}\n- {TEA}"),
        ("user", TEA),
        ("tool", f"found: {TEA}"),
        ("assistant", TEA),
    ]
    found = find_places(transcript(said, {"tea": TEA, "dog": DOG}))
    tea, dog = ([(it.message, it.role, it.times) for it in found[key]] for key in ("tea", "dog"))
    assert tea == [(1, "system", 2), (3, "tool", 1)]
    assert dog == [(1, "system", 1)]


def test_a_message_that_is_a_memory_is_a_place_of_it():
    messages = (Message(Role.MEMORY, TEA, memory_key="tea"), Message(Role.USER, "Tea?"))
    read = Conversation("c", messages).transcript(Path("c"), MemoryFinder())
    [place] = find_places(read)["tea"]
    assert (place.message, place.role, place.times) == (1, "memory", 1)


def test_a_memory_that_is_not_found_is_named_with_the_reason(transcript):
    said = [("user", f"{TEA} I said so."), ("assistant", f"I see: {DOG}")]
    known = {"tea": TEA, "dog": DOG, "cat": CAT}
    assert absence_remarks(transcript(said, known), known, "--here") == [
        "memories that stand nowhere in the conversation: cat",
        "memories that stand only in what the user typed (--here looks there too): tea",
        "memories that stand only in responses, where none are looked for: dog",
    ]
    assert len(typed_remarks(transcript(said, known), known, "--here")) == 1
    found = transcript(said, known, anywhere=["tea"])
    assert typed_remarks(found, known, "--here") == []


def test_what_the_source_names_is_found_in_what_was_asked_only_if_it_is_nowhere_else(transcript):
    said = [("user", f"{TEA} {DOG}"), ("system", f"- {TEA}"), ("assistant", "So.")]
    found = find_places(transcript(said, own={"tea": TEA, "dog": DOG}))
    assert [it.role for it in found["tea"]] == ["system"]
    assert [it.role for it in found["dog"]] == ["user"]
