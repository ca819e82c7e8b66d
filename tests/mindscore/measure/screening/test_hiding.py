"""Groups of memories that are hidden from responses, and the cells that are looked into."""

from dataclasses import replace

import pytest

from mindscore.measure.memories import find_memories, skip_none, whole
from mindscore.measure.prompts import prompts_for
from mindscore.measure.screening.hiding import MOST_LEAD, HiddenGroups
from mindscore.measure.screening.spans import Tokens, find_spans

PLENTY = Tokens(10**9, 10**9)
QUESTION, ANSWER = 12, 5


@pytest.fixture
def spans(say):
    """Return a function that gives the spans of 50 memories before ten questions and answers."""

    async def found(own=None, *, reuses=True):
        memories = [say.memory(f"m{n:02}", 7, n, id=f"n{n}") for n in range(50)]
        if own is not None:
            memories[own] = replace(say.reply(3, 4), key=f"m{own:02}")
        turns = []
        for _ in range(10):
            turns += [say.user(*range(QUESTION)), say.reply(*range(ANSWER))]
        context = say.talk(*memories, *turns).context()
        asked = [node.id for node in context.conversation if node.body[0] < node.body[1]]
        prompts = await prompts_for(context, whole(context), skip_none, asked)
        return await find_spans(
            context, whole(context), find_memories(context), prompts, reuses=reuses
        )

    return found


def keys(count=50):
    return [f"m{n:02}" for n in range(count)]


async def test_groups_have_every_memory_once_in_the_order_of_the_prompt(spans):
    groups = HiddenGroups(await spans(), 0, keys()[::-1], PLENTY).groups
    assert [key for group in groups for key in group] == keys()
    assert {len(group) for group in groups} == {5}


async def test_a_memory_that_is_a_response_is_hidden_by_itself(spans):
    groups = HiddenGroups(await spans(own=7), 0, keys(), PLENTY).groups
    assert ("m07",) in groups
    assert sorted(key for group in groups for key in group) == keys()


async def test_what_was_said_to_a_response_goes_with_it_as_far_as_half_of_the_share_allows(spans):
    found = await spans()
    ample = HiddenGroups(found, 0, keys(), PLENTY)
    assert ample.lead == MOST_LEAD
    [said] = {end - start for start, end in found.prompts[0].ranges}
    leads = found.leads(0, MOST_LEAD)
    asked = min(leads)
    assert asked >= QUESTION
    assert ample.cost.computed == 10 * (10 * said + sum(leads))
    tight = HiddenGroups(found, 0, keys(), Tokens(2000, 2000))
    assert 0 < tight.lead < asked
    assert tight.cost.computed <= 1000
    assert HiddenGroups(found, 0, keys(), Tokens(1, 1)).lead == 0


async def test_the_largest_effects_are_looked_into_first_and_no_small_one(spans):
    found = await spans()
    groups = HiddenGroups(found, 0, keys(), PLENTY)
    ids = found.prompts[0].node_ids
    effects = [dict.fromkeys(ids, 0.05) for _ in groups.groups]
    effects[2][ids[3]], effects[2][ids[4]], effects[6][ids[3]] = 0.4, -3.0, 1.0
    chosen = groups.to_divide(effects)
    assert chosen == {groups.groups[2]: {ids[3], ids[4]}, groups.groups[6]: {ids[3]}}
    # The groups take as much as the rest of the share: 20 cells of five members.
    few = HiddenGroups(found, 0, keys(), Tokens(1, 1))
    dense = [dict.fromkeys(ids, 1.0 + number) for number, _ in enumerate(few.groups)]
    assert few.to_divide(dense) == {few.groups[9]: set(ids), few.groups[8]: set(ids)}


async def test_where_no_prefix_is_kept_each_call_takes_the_prompt_besides(spans):
    kept, anew = await spans(), await spans(reuses=False)
    length = len(anew.prompts[0].tokens)
    more = HiddenGroups(anew, 0, keys(), PLENTY).cost.computed
    assert more == HiddenGroups(kept, 0, keys(), PLENTY).cost.computed + length
