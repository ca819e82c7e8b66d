"""ShareGPT: training sets, and what hermes-agent saves of a session."""

import json

import pytest

from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS


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


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (line({"from": "nobody", "value": "a"}), "line 2, turn 1: 'from': expected one of system"),
        (line({"from": "gpt"}), "line 2, turn 1: 'value': expected text, got null"),
        (line(None), "line 2, turn 1: expected an object, got null"),
        (b"[3]", "line 2, item 1: expected an object"),
        (line(), "line 2: 'conversations': expected an array of turns, got none"),
        (b"{", "line 2: is not valid JSON"),
    ],
)
def test_a_record_that_is_not_valid_is_left_out_with_place_and_reason(read, refused, bad, why):
    good = line({"from": "human", "value": "a"}, {"from": "gpt", "value": "b"})
    first, second = read(good + bad.rstrip() + b"\n" + good).found
    assert (first.name, second.name) == ("1", "2")
    assert f"left out: 1 record that is not valid: {why}" in second.remarks[-1]
    assert refused(bad, "sharegpt").startswith(why.replace("line 2", "line 1"))


def test_columns_beside_the_turns_are_the_system_prompt_and_the_tools(read):
    tools = [{"name": "look", "parameters": {"type": "object"}}]
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    record = {"conversations": turns, "system": "You help.", "tools": json.dumps(tools)}
    (conversation,) = read(json.dumps([record]).encode()).found
    assert (conversation.messages[0].role, conversation.messages[0].text) == ("system", "You help.")
    assert conversation.tools[0]["function"]["name"] == "look"
    assert not {NO_SYSTEM, NO_TOOLS} & set(conversation.remarks)
    own = [{"from": "system", "value": "Be kind."}, *turns]
    (conversation,) = read(json.dumps({**record, "conversations": own}).encode()).found
    assert [it.text for it in conversation.messages] == ["Be kind.", "a", "b"]


def test_calls_and_observations_are_those_of_tools(read):
    call = {"name": "look", "arguments": {"where": "küche"}}
    turns = [
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "3"},
        {"from": "tool_calls", "value": json.dumps([call, call])},
        {"from": "tool", "value": "3"},
        {"from": "function_call", "value": "look(küche)"},
    ]
    (conversation,) = read(line(*turns)).found
    called = ToolCall("look", '{"where": "küche"}')
    assert [(it.role, it.text, it.tool_calls) for it in conversation.messages[1:]] == [
        ("assistant", "", (called,)),
        ("tool", "3", ()),
        ("assistant", "", (called, called)),
        ("tool", "3", ()),
        ("assistant", "look(küche)", ()),
    ]
    assert conversation.remarks == (NO_SYSTEM, NO_TOOLS)


@pytest.mark.parametrize("speaker", ["gpt", "chatgpt", "bing", "bard", "assistant", "model"])
def test_every_name_of_a_model_is_the_assistant(read, speaker):
    (conversation,) = read(
        line({"from": "user", "value": "a"}, {"from": speaker, "value": "b"})
    ).found
    assert [it.role for it in conversation.messages] == ["user", "assistant"]


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
