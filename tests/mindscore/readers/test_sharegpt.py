"""ShareGPT: training sets, and what hermes-agent saves of a session."""

import json

from mindscore.readers.reading import NO_SYSTEM


def line(*turns):
    return json.dumps({"conversations": turns}).encode() + b"\n"


def test_each_line_is_a_conversation(read):
    conversations = read("sharegpt.jsonl")
    assert conversations.format == "sharegpt"
    first, second = conversations.found
    assert (first.name, second.name) == ("1", "pets")
    assert [it.role for it in first.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert (first.remarks, second.remarks) == ((), (NO_SYSTEM,))


def test_what_hermes_saves_is_read_as_it_stands(read):
    (conversation,) = read("sharegpt_hermes.jsonl").found
    assert [it.role for it in conversation.messages] == [
        "system", "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert '<tool_call>\n{"name": "look"' in conversation.messages[2].text
    assert conversation.messages[4].text == "<think>\n</think>\nYou drink green tea."


def test_an_array_of_conversations_is_read_too(read):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    several = json.dumps([{"conversations": turns}] * 2, indent=1).encode()
    assert [it.name for it in read(several).found] == ["1", "2"]


def test_errors_name_line_turn_and_field(refused):
    good = line({"from": "human", "value": "a"})
    assert refused(good + line({"from": "bot", "value": "a"})).startswith(
        "line 2, turn 1: 'from': expected one of system, human"
    )
    assert (
        refused(good + line({"from": "gpt"})) == "line 2, turn 1: 'value': expected text, got null"
    )
    assert refused(good + line(None)) == "line 2, turn 1: expected an object, got null"
    assert refused(good + b"[3]").startswith("line 2, item 1: expected an object")
    assert refused(good + line()).startswith("line 2: 'conversations': expected an array")


def said(*answers):
    """A line of a conversation that begins as every other."""
    turns = [
        {"from": sender, "value": text}
        for answer in ("Hello.", *answers)
        for sender, text in (("human", "And now?"), ("gpt", answer))
    ]
    return line(*turns)


def ids(read, *lines):
    return [transcript.id for _, transcript in read(b"".join(lines)).transcripts()]


def test_conversations_that_begin_alike_and_go_on_differently_are_several(read):
    first, second, third = ids(read, said("tea"), said("milk"), said("tea", "milk"))
    assert (first, second) == (third, f"{third}-2")
    assert first == ids(read, said("tea", "milk", "water"))[0]


def test_records_of_one_conversation_as_it_grew_are_one(read):
    grown = [said(), said("tea"), said("tea", "milk")]
    assert len(set(ids(read, *grown))) == 1
    assert len(set(ids(read, *grown[::-1]))) == 1
    # What was there keeps its id when others follow.
    assert ids(read, *grown, said("milk"))[:3] == ids(read, *grown)
    assert len(set(ids(read, *grown, said("milk")))) == 2


def test_a_conversation_has_the_same_id_chosen_alone(read):
    conversations = read(said("tea") + said("milk"))
    alone = [conversations.transcript(it).id for it in conversations.found]
    assert alone == [it.id for _, it in conversations.transcripts()]
