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
