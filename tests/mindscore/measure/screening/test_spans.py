"""Token spans of memories, and the tokens that prompts without them take."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import WirePrompt
from mindscore.measure.memories import find_memories, skip_none, skip_only, whole
from mindscore.measure.prompts import prompts_for
from mindscore.measure.screening.spans import NO_TOKENS, Tokens, deleted, find_spans


async def spans_of(context, *, reuses=False):
    asked = [node.id for node in context.conversation if node.body[0] < node.body[1]]
    prompts = await prompts_for(context, whole(context), skip_none, asked)
    return await find_spans(context, whole(context), find_memories(context), prompts, reuses=reuses)


@pytest.fixture
def three(say):
    """A message that is a memory, and one that prints two, headed by their number."""
    return say.talk(
        say.user(9),
        say.reply(1, 2),
        say.memory("b", 2, 3),
        say.reply(4),
        system=[say.prints("system", ([30, 31], None), ([40, 41], "x"), ([50], "y"), ([32], None))],
    ).context()


async def test_spans_are_those_of_the_message_or_of_what_it_has_otherwise_without_the_memory(three):
    found = await spans_of(three)
    [prompt] = found.prompts
    assert prompt.tokens[:7] == (102, 30, 31, 40, 41, 50, 32)
    # The header that states the number of memories goes with each.
    assert found.spans["x"] == [[(0, 1), (3, 5)]]
    assert found.spans["y"] == [[(0, 1), (5, 6)]]
    [[(start, end)]] = found.spans["b"]
    assert prompt.tokens[start:end] == (2, 3)
    assert found.ids("b") == [2, 3]


async def test_removing_takes_the_prompt_without_the_memory_and_nothing_behind_all_responses(
    three, say
):
    found, reused = await spans_of(three), await spans_of(three, reuses=True)
    length = len(found.prompts[0].tokens)
    assert found.removing(["b"]) == Tokens(length - 2, length - 2)
    start = found.spans["b"][0][0][0]
    assert reused.removing(["b"]) == Tokens(length - 2, length - 2 - start)
    assert reused.removing(["b", "x"]).computed == length - 5
    late = say.talk(say.user(9), say.reply(1), say.memory("k", 3)).context()
    assert (await spans_of(late)).removing(["k"]) == NO_TOKENS


async def test_a_memory_of_images_alone_takes_a_prompt_and_cannot_be_hidden(say):
    shown = replace(say.memory("pic"), images=("one",))
    talk = say.talk(say.user(9), shown, say.reply(1, 2), say.user(8), say.reply(3))
    found = await spans_of(talk.context())
    length = len(found.prompts[0].tokens)
    assert found.ids("pic") == []
    assert found.removing(["pic"]) == Tokens(length, length)
    assert len(found.behind(["pic"])) == 2
    assert found.to_hide("pic", 0) == []


async def test_among_fewer_responses_there_is_less_of_the_prompt(three, say):
    talk = say.talk(
        say.user(9), say.reply(1, 2), say.memory("b", 2, 3), say.reply(4),
        identity=[say.memory("a", 5, 6)],
    ).context()  # fmt: skip
    first, second = (node.id for node in talk.conversation if node.role == "assistant")
    found = await spans_of(talk)
    assert found.among({first, second}) == found
    one = found.among({first})
    assert [it.node_ids for it in one.prompts] == [(first,)]
    assert one.spans["a"] == found.spans["a"]
    assert one.spans["b"] == [[]]
    assert one.removing(["b"]) == NO_TOKENS
    assert found.among(()).prompts == []


async def test_a_memory_that_is_a_response_does_not_precede_itself(say):
    own = replace(say.reply(4, 5), key="own")
    found = await spans_of(say.talk(say.user(9), own, say.user(8), say.reply(6)).context())
    assert len(found.behind(["own"])) == 1
    assert found.behind(["own"]) == {found.prompts[0].node_ids[1]}


async def test_the_first_token_of_a_prompt_is_not_hidden(three):
    found = await spans_of(three)
    assert found.to_hide("x", 0) == [(3, 5)]
    assert found.to_hide("b", 0) == found.spans["b"][0]


async def test_hiding_takes_the_responses_behind_the_memory(three):
    found = await spans_of(three, reuses=True)
    first, second = (end - start for start, end in found.prompts[0].ranges)
    rows = found.rows(0, 0)
    assert list(rows.values()) == [(start, end - start) for start, end in found.prompts[0].ranges]
    assert found.hiding([("b",)], 0, rows.values()) == Tokens(second, second)
    assert found.hiding([("b",), ("x", "b")], 0, rows.values()).computed == first + 2 * second
    assert found.hiding([("x",)], 0, [rows["c3"]]).computed == second
    anew = (await spans_of(three)).hiding([("x",)], 0, [rows["c3"]])
    assert anew.computed == second + len(found.prompts[0].tokens)
    assert found.behind(["b"]) == {"c3"}
    assert found.behind(["b", "x"]) == {"c1", "c3"}


async def test_before_a_response_stands_what_was_said_to_it_behind_the_last_memory(three, say):
    found = await spans_of(three)
    first, second = found.leads(0, 100)
    [prompt] = found.prompts
    assert prompt.tokens[prompt.ranges[0][0] - first :][:1] == (9,)
    # But for its header, the second stands right behind a memory.
    assert second == prompt.ranges[1][0] - found.spans["b"][0][0][1] - 1
    assert found.leads(0, 1) == [1, min(1, second)]
    alone = await spans_of(say.talk(say.user(5, 6), say.reply(1)).context())
    assert alone.leads(0, 100) == [alone.prompts[0].ranges[0][0] - 1]


@given(data=st.data())
async def test_prompts_without_their_memories_spans_are_those_that_are_sent(data, talks):
    context = data.draw(talks).context()
    found = await spans_of(context)
    nodes = (*context.system, *context.identity, *context.conversation)
    for memory in find_memories(context):
        if any(list(node.memory_keys()).count(memory.key) > 1 for node in nodes):
            # What stands between two places in one message is hidden with them.
            continue
        for prompt, spans in zip(found.prompts, found.spans[memory.key], strict=True):
            its = skip_only(memory.key)
            [without] = await prompts_for(context, whole(context), its, prompt.node_ids)
            left = [
                token
                for at, token in enumerate(prompt.tokens)
                if not any(start <= at < end for start, end in spans)
            ]
            # What a message has otherwise, such as a number, is in neither.
            other = list(without.tokens[: len(prompt.tokens)])
            assert [it for it in left if it < 100] == [it for it in other if it < 100]


@given(
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), max_size=6),
)
def test_what_stands_between_is_deleted_and_nothing_else(before, gone, after):
    spans = deleted((*before, *gone, *after), (*before, *after))
    kept = [*before, *gone, *after]
    for start, end in reversed(spans):
        del kept[start:end]
    assert kept == [*before, *after]
    assert sum(end - start for start, end in spans) == len(gone)


def test_a_number_that_changes_before_the_memory_does_not_take_all_between_with_it():
    whole_ids = (3, 50, 60, 61, 70, 71, 80, 81)
    assert deleted(whole_ids, (2, 50, 60, 61, 70, 71)) == [(0, 1), (6, 8)]
    assert deleted(whole_ids, (2, 50, 60, 61, 80, 81)) == [(0, 1), (4, 6)]


class TwoPrompts:
    """A template that prints the first turn otherwise once there is a second."""

    def __init__(self, context):
        self._context = context

    async def __call__(self, window, skip, asked=None):
        del asked
        plain = replace(self._context).wire_prompt(window, skip)
        (first, first_end), (second, second_end) = plain.ranges
        later = (*plain.tokens[:first], 99, *plain.tokens[first_end:second_end])
        moved = first + 1 - first_end
        return (
            WirePrompt(plain.tokens[:first_end], (), (plain.ranges[0],), plain.node_ids[:1]),
            WirePrompt(later, (), ((second + moved, second_end + moved),), plain.node_ids[1:]),
        )


async def test_of_a_template_that_looks_back_each_prompt_has_its_own_spans(say):
    plain = say.talk(
        say.user(9),
        say.reply(1, 2),
        say.memory("b", 2, 3),
        say.reply(4),
        identity=[say.memory("a", 5)],
    ).context()
    context = plain.with_prompts(TwoPrompts(plain))
    found = await spans_of(context)
    one, two = found.prompts
    assert found.spans["a"] == [[(0, 1)], [(0, 1)]]
    assert found.spans["b"][0] == []
    [(start, end)] = found.spans["b"][1]
    assert two.tokens[start:end] == (2, 3)
    assert found.removing(["a"]).sent == len(one.tokens) + len(two.tokens) - 2
    assert found.removing(["b"]).sent == len(two.tokens) - 2
    assert found.behind(["a"]) == {"c1", "c3"}
    assert found.behind(["b"]) == {"c3"}
