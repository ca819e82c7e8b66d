"""Short prompts: a memory and one turn; and what they say, less what any text does."""

import pytest

from mindscore.measure.memories import find_memories, skip_none, whole
from mindscore.measure.prompts import prompts_for
from mindscore.measure.screening.short_prompts import ShortPrompts, beyond_any, scale_of
from mindscore.measure.screening.spans import find_spans


async def made(talk):
    context = talk.context()
    ids = [node.id for node in context.conversation if node.body[0] != node.body[1]]
    prompts = await prompts_for(context, whole(context), skip_none, ids)
    memories = find_memories(context)
    spans = await find_spans(context, whole(context), memories, prompts, reuses=False)
    return context, spans, ShortPrompts.of(context, whole(context), spans, ids)


async def test_a_prompt_has_the_memory_and_the_turn_alone(say):
    talk = say.talk(
        say.user(9), say.reply(1, 2), say.memory("late", 7, 7), say.user(8), say.reply(3),
        identity=[say.memory("tea", 5, 6)],
    )  # fmt: skip
    context, _, short = await made(talk)
    first, second = (node for node in context.conversation if node.role == "assistant")
    user = context.conversation[3].token_ids
    assert short.responses("tea") == [first.id, second.id]
    assert short.responses("late") == [second.id]
    prompt = short.prompt(second.id, "late")
    late = context.conversation[2].token_ids
    assert prompt.tokens == (*late, *user, *second.token_ids[: second.body[1]])
    [(start, end)] = prompt.ranges
    assert prompt.tokens[start:end] == second.token_ids[slice(*second.body)]
    assert short.prompt(second.id, None).tokens == prompt.tokens[len(late) :]
    every = [(it, key) for key in ("tea", "late") for it in short.responses(key)]
    asked = [*every, (first.id, None), (second.id, None)]
    lengths = [len(short.prompt(*it).tokens) for it in asked]
    assert short.cost(["tea", "late"]).sent == sum(lengths)


async def test_what_a_model_begins_any_prompt_with_is_kept(say):
    begins = say.talk(
        say.user(9), say.reply(1, 2), system=[say.plain("system", 77, 5)],
        identity=[say.memory("tea", 5, 6)],
    )  # fmt: skip
    _, spans, short = await made(begins)
    first = spans.prompts[0].tokens[0]
    alone = short.prompt(short.responses("tea")[0], "tea").tokens
    assert (alone[0] == first) == (spans.prompts[0].tokens.count(first) == 1)


def test_what_any_text_does_alone_is_left_out():
    alone = {"a": {0: 1.0, 1: 5.0}, "b": {0: 1.0}, "c": {0: 4.0}}
    assert beyond_any(alone) == {"a": {0: 0.0, 1: 5.0}, "b": {0: 0.0}, "c": {0: 3.0}}


def test_estimates_are_scaled_to_what_was_measured():
    exact = {"a": {0: 2.0, 1: 0.0}, "b": {0: 0.0, 1: 1.0}}
    twice = {key: {at: 2 * nats for at, nats in its.items()} for key, its in exact.items()}
    assert scale_of(twice, exact) == pytest.approx(0.5)
    assert scale_of(exact, twice) == pytest.approx(1.0)
    assert scale_of({"a": {0: -1.0}}, exact) == 0.0
    assert scale_of({}, exact) == 0.0
    # It explains 0.6 of the squares.
    assert scale_of({"a": {0: 2.0, 1: 2.0}, "b": {1: 2.0}}, exact) == 0.0
