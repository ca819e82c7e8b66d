"""Which answers can be trained on, and what an edited one is made of."""

import pytest

from mindhooks import FinetuneCandidate, ScorerError
from mindscore.review.decisions import AnswerError, edited_ids, unusable_alternate
from mindscore.scorers.toy import ToyScorer
from mindscore.store import Reviewed

END = "<|im_end|>"


def _candidate(ids=(1, 2, 9), text="Tea.", alternate=None, alternate_ids=None):
    return FinetuneCandidate(
        entry_idx=1, node_id="n", divergence=1.0, response_text=text, prior_context="",
        context_ids=(1,), bare_context_ids=(1,), continuation_ids=tuple(ids),
        alternate_text=alternate, alternate_ids=alternate_ids, timestamp_ns=1,
    )  # fmt: skip


async def _edit(text, ending=END, said="Tea.", model="toy", scorer=None):
    scorer = scorer or ToyScorer()
    ids = await ToyScorer().tokenize(said + ending)
    item = Reviewed(_candidate(ids), model, 0.0, None, ())
    return await edited_ids(text, item, scorer)


@pytest.mark.parametrize("ending", [END, END + "\n", "<|end|><|eot|>"])
async def test_an_edited_answer_has_the_end_of_the_response(ending):
    assert await _edit("No coffee, tea!", ending) == tuple(
        await ToyScorer().tokenize("No coffee, tea!" + ending)
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"text": " \n\t "}, "cannot be empty"),
        ({"ending": ""}, "has no end of turn"),
        ({"ending": '<tool_call>{"name": "look"}</tool_call>' + END}, "a call of a tool"),
        ({"said": "Coffee."}, "own tokens are not those"),
        ({"said": "Tea, no coffee."}, "own tokens are not those"),
        ({"model": "other"}, "'other'"),
        ({"text": f"Tea.{END}"}, "holds the end of a turn"),
    ],
)
async def test_what_cannot_be_edited_says_why_and_what_can_be_done(changes, why):
    with pytest.raises(AnswerError, match=why):
        await _edit(**{"text": "Water.", **changes})


async def test_a_scorer_that_cannot_tokenise_is_named():
    class Mute(ToyScorer):
        async def tokenize(self, text):
            raise ScorerError("server.tokenizer is not set")

    with pytest.raises(AnswerError, match=r"server\.tokenizer is not set; choose another answer"):
        await _edit("Water.", scorer=Mute())


@pytest.mark.parametrize(
    ("alternate", "why"),
    [
        ((None, None), "was not asked for"),
        (("Water.", None), "not its tokens"),
        (("Water.", (5, 6)), "cut off"),
        (("Water.", (5, 6, 8)), "ended otherwise"),
        (("", ()), "cut off"),
        (("", (9,)), "it is empty"),
        (("Water.", (5, 6, 9)), None),
    ],
)
def test_an_alternate_is_an_answer_where_it_ends_as_the_response_does(alternate, why):
    found = unusable_alternate(_candidate(alternate=alternate[0], alternate_ids=alternate[1]))
    assert (found is None) if why is None else (why in found)
