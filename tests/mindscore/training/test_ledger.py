"""Rounds of the ledger: what is measured, with what, and what is left out."""

import pytest

from mindhooks import FinetuneCandidate, MemoryScore, ResponseDivergence, ScorerError, WirePrompt
from mindscore._util.errors import TrainError
from mindscore.config.settings import StoreSettings
from mindscore.measure.internalisation import MemoryVersion, accounts
from mindscore.scorers.toy import ToyScorer
from mindscore.session.session import SilentActivity
from mindscore.store import Ledger, Review, Reviewed, Store
from mindscore.training.guard import unrelated_answers
from mindscore.training.ledger import FRAMES, Measurer

MEMORY = "<|im_start|>memory\nRooibos, cinnamon, honey.<|im_end|>"
ASKED = "<|im_start|>user\nWhich tea<|im_end|><|im_start|>assistant\n"
SCORE = "mindscore score CONVERSATION --full measures it"
SAID = "Rooibos, cinnamon, honey.<|im_end|>"


TOY = ToyScorer()


class Learner(ToyScorer):
    """The toy, which can turn ids into text, and knows a text as if every prompt began with it."""

    def __init__(self, known=""):
        super().__init__()
        # As a model's vocabulary, it is there from the beginning.
        self._words = TOY._words
        self.known = known
        self.asked = []

    async def detokenize(self, ids):
        return " ".join(await self.token_texts(ids))

    async def score(self, prompts):
        self.asked += prompts
        known = tuple(await self.tokenize(self.known))
        n = len(known)
        return await super().score(
            [
                WirePrompt(
                    known + it.tokens, (), tuple((a + n, b + n) for a, b in it.ranges), it.node_ids
                )
                for it in prompts
            ]
        )


@pytest.fixture
async def answer(tmp_path):
    """Keeps an answer that rests on the memory ``tea``: ``await answer(stamp=2, effect=0.0)``."""
    store = Store(StoreSettings(f"sqlite:///{tmp_path}/store"))

    async def make(stamp=1, effect=9.0, review=None, prior="[user]\nWhich tea", said=SAID):
        full, bare, ids = [tuple(await TOY.tokenize(it)) for it in (MEMORY + ASKED, ASKED, said)]
        node = f"n{stamp}"
        found = FinetuneCandidate(1, node, 9.0, "", prior, full, bare, ids, None, None, stamp)
        await store.record_candidate(found, "toy", conversation="talk")
        if effect is not None:
            row = (ResponseDivergence(1, node, max(0.0, effect), effect),)
            score = MemoryScore("tea", effect, "full", row)
            await store.record_row(score, "toy", conversation="talk", text_hash="t1")
        return Reviewed(found, "toy", 0.0, review, ("http",))

    return make


@pytest.fixture
def ledger(tmp_path):
    return Ledger(StoreSettings(f"sqlite:///{tmp_path}/store"))


def measurer(scorer, ledger):
    return Measurer(scorer, ledger, "toy", SilentActivity())


async def test_what_a_round_has_learnt_is_internalised_in_every_frame(answer, ledger):
    answers = [await answer()]
    await measurer(Learner(), ledger).measure("base", "", answers)
    await measurer(Learner("Rooibos, cinnamon, honey."), ledger).measure("one", "/a", answers)
    rounds = await ledger.rounds("toy")
    assert [(it.name, it.adapter, len(it.unrelated)) for it in rounds] == [
        ("base", "", len(unrelated_answers())),
        ("one", "/a", len(unrelated_answers())),
    ]
    [account] = accounts(rounds)
    assert account.memory == MemoryVersion("tea", "t1")
    first, last = account.standings
    assert first.with_memories - first.without_memories > 10
    assert last.state == "internalised"
    assert min(last.share, last.reworded_share) > 0.8
    assert rounds[0].entries[0].reworded.keys() == set(FRAMES)


async def test_the_totals_are_those_of_the_prompts_with_and_without_memories(answer, ledger):
    """The frame is round the question, and everything else stays."""
    scorer = Learner()
    it = await answer()
    [entry] = (await measurer(scorer, ledger).measure("base", "", [it])).entries
    prompts = {prompt.tokens: prompt for prompt in scorer.asked}
    framed = ASKED.replace("Which tea", "Remind me: Which tea")
    for context, total in (
        (MEMORY + ASKED, entry.with_memories),
        (ASKED, entry.without_memories),
        (framed, entry.reworded["Remind me: {}"]),
    ):
        tokens = tuple(await scorer.tokenize(context + SAID))
        [[found]] = (await ToyScorer().score([prompts[tokens]])).ranges
        assert found.total == total


async def test_a_round_is_measured_once_and_gets_what_it_lacks(answer, ledger):
    one, other = await answer(1), await answer(2, said="Rooibos.<|im_end|>")
    await measurer(Learner(), ledger).measure("base", "", [one])
    scorer = Learner()
    round_ = await measurer(scorer, ledger).measure("base", "", [one, other])
    assert [it.timestamp_ns for it in round_.entries] == [1, 2]
    assert (await ledger.rounds("toy")) == [round_]
    ends = {prompt.tokens[slice(*prompt.ranges[0])] for prompt in scorer.asked}
    assert other.candidate.continuation_ids in ends
    assert one.candidate.continuation_ids not in ends


async def test_a_round_is_not_mixed_with_another_adapters(answer, ledger):
    one, other = await answer(1), await answer(2, said="Rooibos.<|im_end|>")
    round_ = await measurer(Learner(), ledger).measure("mine", "/a", [one])
    with pytest.raises(TrainError, match="round 'mine' was measured with another adapter"):
        await measurer(Learner("Rooibos"), ledger).measure("mine", "/b", [one, other])
    assert (await ledger.rounds("toy")) == [round_]


async def test_a_model_whose_weights_were_replaced_begins_a_new_ledger(answer, ledger):
    """The earlier rounds stay, as those of another model."""
    one = await answer()
    first = await measurer(Learner(), ledger).measure("base", "", [one])
    later = await measurer(Learner("Rooibos"), ledger).measure("3f0c", "/a", [one])
    again = await measurer(Learner("Honey, honey, honey."), ledger).measure("base", "", [one])
    assert again.unrelated != first.unrelated
    assert await ledger.rounds("toy") == [again]
    other, model = sorted(await ledger.models(), key=len, reverse=True)
    assert model == "toy"
    assert ledger.replaced([other, model], "toy") == [other]
    assert await ledger.rounds(other) == [first, later]
    # A job's id is a name of its own in each of them.
    renamed = await measurer(Learner("Tea"), ledger).measure("3f0c", "/a", [one])
    assert await ledger.rounds("toy") == [again, renamed]


async def test_a_model_that_may_have_an_adapter_does_not_begin_a_new_ledger(answer, ledger):
    class Swapping(Learner):
        swaps_adapters = True

    one = await answer()
    await measurer(Learner(), ledger).measure("base", "", [one])
    with pytest.raises(TrainError, match=r"ledger --measure base --set server\.scorer=local"):
        await measurer(Swapping("Rooibos"), ledger).measure("base", "", [one])
    with pytest.raises(TrainError, match="'base' was measured with another adapter"):
        await measurer(Learner("Rooibos"), ledger).measure("base", "/a", [one])
    assert await ledger.models() == ["toy"]


async def test_what_is_internalised_stays_in_the_ledger_and_in_its_frames(answer, ledger):
    """After training, the memory makes no difference any more, in whatever frame."""
    await measurer(Learner(), ledger).measure("base", "", [await answer()])
    after = Learner("Rooibos, cinnamon, honey. " * 50)
    it = measurer(after, ledger)
    [entry] = (await it.measure("one", "/a", [await answer(effect=0.0)])).entries
    assert entry.reworded.keys() == set(FRAMES)
    assert list(it.left_out.remarks()) == []


async def test_a_frame_in_which_the_memories_do_not_help_is_not_asked(answer, ledger):
    it = measurer(Learner("Rooibos, cinnamon, honey. " * 50), ledger)
    [entry] = (await it.measure("base", "", [await answer()])).entries
    assert entry.reworded == {}
    [remark] = it.left_out.remarks()
    assert remark.startswith("1 answer in the ledger without other frames")


async def test_without_the_question_in_the_prompt_there_are_no_frames(answer, ledger):
    it = measurer(Learner(), ledger)
    [entry] = (await it.measure("base", "", [await answer(prior="[user]\nWhich?!")])).entries
    assert (entry.reworded, it.left_out.unasked) == ({}, 1)


async def test_a_scorer_that_makes_no_text_measures_the_rest(answer, ledger):
    it = measurer(ToyScorer(), ledger)
    [entry] = (await it.measure("base", "", [await answer()])).entries
    assert (entry.reworded, it.left_out.unasked) == ({}, 1)


async def test_what_is_left_out_is_counted_with_the_reason(answer, ledger):
    edited = await answer(2, review=Review("accepted", "edited", 1.0, None, (5,)))
    answers = [edited, await answer(3, effect=None), await answer(4, effect=0.5), await answer(5)]
    scorer = Learner()
    scorer.context_length = len(answers[-1].candidate.context_ids) + 2
    it = measurer(scorer, ledger)
    assert (await it.measure("base", "", answers)).entries == ()
    assert list(it.left_out.remarks()) == [
        "the ledger leaves out 1 answer: another answer than the response was chosen in review",
        f"the ledger leaves out 1 answer: it is not known on which memories they depend: {SCORE}",
        "the ledger leaves out 1 answer: no memory alone makes a difference of 1 nat",
        "the ledger leaves out 1 answer: they end beyond the tokens that the model reads",
    ]


async def test_a_scorer_that_fails_leaves_the_ledger_as_it_was(answer, ledger):
    class Broken(Learner):
        async def score(self, prompts):
            if len(self.asked) > 2:
                raise ScorerError("the model is gone")
            return await super().score(prompts)

    with pytest.raises(ScorerError, match="gone"):
        await measurer(Broken(), ledger).measure("base", "", [await answer()])
    assert await ledger.rounds("toy") == []


async def test_an_unrelated_memory_that_alone_helps_as_any_text_does_is_no_answer_s(
    answer, ledger, tmp_path
):
    """Nearly any text before a response makes it likelier; a copy of what is needed does more."""
    it = await answer(effect=0.5)
    store = Store(StoreSettings(f"sqlite:///{tmp_path}/store"))
    alone = {"tea": 12.0, "copy": 11.0, "dog": 3.0, "bus": 3.1, "shed": 2.9, "pen": 3.0, "key": 3.0}
    for key, nats in alone.items():
        row, hold = (
            (ResponseDivergence(1, it.candidate.node_id, max(0.0, signed), signed),)
            for signed in (0.5, nats)
        )
        found = MemoryScore(key, 0.5, "full", row, hold=hold)
        await store.record_row(found, "toy", conversation="talk", text_hash="t1")
    measured = await measurer(Learner(), ledger).measure("base", "", [it])
    assert {entry.memory.key for entry in measured.entries} == {"tea", "copy"}
