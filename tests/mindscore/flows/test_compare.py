"""compare-scoring, the command ``compare``: two models on the same responses."""

import asyncio
import json
import math
from dataclasses import replace

import pytest

from mindhooks import (
    BaseScorer,
    Image,
    Registry,
    ScorerError,
    ScoreResult,
    ScorerUnavailable,
    Trigger,
)
from mindhooks.testing import RecordingListener, StubMind
from mindscore.conversation.native import read_transcript
from mindscore.flows import compare
from mindscore.flows.compare import CompareScoring, OtherModel
from mindscore.measure.comparison import Comparison
from mindscore.measure.leave_one_out import memory_effects
from mindscore.scorers.toy import ToyScorer
from mindscore.session.session import Session

KEYS = ("tea", "dog", "train", "code", "lamp")
LINES = [
    {"role": "memory", "key": "tea", "content": "Nora drinks rooibos tea in the evening."},
    {"role": "memory", "key": "dog", "content": "Her dog is called Biscuit."},
    {"role": "memory", "key": "train", "content": "She likes a window seat in trains."},
    {"role": "memory", "key": "code", "content": "The code of the gate is 4716."},
    {"role": "user", "content": "What shall I drink?"},
    {"role": "assistant", "content": "A pot of rooibos tea, as always."},
    {"role": "memory", "key": "lamp", "content": "The lamp in the hall is broken."},
    {"role": "user", "content": "Who wants to go for a walk?"},
    {"role": "assistant", "content": "Biscuit does, your dog."},
    {"role": "user", "content": "Which seat do I take?"},
    {"role": "assistant", "content": "A window seat, as you like it."},
    {"role": "user", "content": "And the gate?"},
    {"role": "assistant", "content": "The code is 4716. The lamp is broken."},
    {"role": "user", "content": "Thank you."},
    {"role": "assistant", "content": "You are welcome."},
]


@pytest.fixture
def transcript(tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(it) + "\n" for it in LINES))
    return read_transcript(file)


@pytest.fixture
def tables(tmp_path):
    """Makes settings: ``tables("same", say=True)`` names the other model, and options."""

    def make(other, **options):
        own = {"with": other, **options}
        return {
            "server": {
                "scorer": "toy",
                "same": {"timeout_s": 9.0},
                "doubtful": {"options": {"prior": 64}},
                "broken": {"options": {"prior": -1}},
            },
            "store": {"url": f"sqlite:///{tmp_path}/s.db"},
            # Nothing here needs a store.
            "plugins": {"disabled": ["score-recorder"], "settings": {"compare-scoring": own}},
        }

    return make


class Scripted(ToyScorer):
    """A toy with another name, whose calls may be counted, failed or closed."""

    model = "scripted"

    def __init__(self, table=None):
        super().__init__(table)
        self.prompts = []
        self.closed = 0

    async def score(self, prompts):
        self.prompts += prompts
        return await super().score(prompts)

    async def aclose(self):
        self.closed += 1


class Characters(Scripted):
    """The toy with a tokenizer of its own: an id is a character."""

    model = "characters"

    async def tokenize(self, text):
        return [ord(it) for it in text]

    async def token_texts(self, ids):
        return [chr(it) for it in ids]


@pytest.fixture
def other(monkeypatch):
    """Has every other model be the scorer given."""

    def put(scorer):
        async def load(table):
            return scorer

        monkeypatch.setattr(compare, "load_scorer", load)
        return scorer

    return put


async def run(transcript, tables):
    async with Session(transcript).open(tables) as session:
        return await session.attempt("compare", ())


# -- numbers --------------------------------------------------------------------------------------


async def test_a_model_beside_itself_shows_nothing_beyond_noise(transcript, tables):
    result = await run(transcript, tables("same"))
    found = result.comparison
    assert (result.error, found.unit, found.beyond_noise) == (None, "nats", [])
    assert {it.difference for it in found.responses} == {0.0}
    assert (found.mean.difference, found.mean.all_equal) == (0.0, True)
    assert ["to the last digit" in it for it in result.all_remarks] == [True]
    assert {it.key: it.verdict for it in found.memories} == dict.fromkeys(KEYS, "unchanged")
    assert {it.parts_at for it in found.responses} == {None}


async def test_models_that_differ_are_not_said_to_be_one(transcript, tables):
    result = await run(transcript, tables("doubtful"))
    assert not [it for it in result.all_remarks if "to the last digit" in it]


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (["other"], True),
        ({"other"}, True),
        (["other", "scripted"], False),
        ([], False),
        (None, False),
        (ScorerError("no"), False),
    ],
)
async def test_a_model_that_its_server_does_not_list_is_named(
    listed, said, other, transcript, tables
):
    class Served(Scripted):
        async def served_models(self):
            if isinstance(listed, Exception):
                raise listed
            return listed

    other(Served())
    result = await run(transcript, tables("doubtful"))
    [*found] = [it for it in result.all_remarks if "does not list a model 'scripted'" in it]
    assert (result.error, bool(found)) == (None, said)
    assert not said or "doubtful: its server" in found[0]
    assert not said or "(it lists other)" in found[0]


async def test_both_totals_are_those_of_the_models_alone(transcript, tables):
    found = (await run(transcript, tables("doubtful"))).comparison
    async with Session(transcript).open(tables("same")) as session:
        context = await session.context()
    for at, scorer in enumerate((ToyScorer(), ToyScorer({"options": {"prior": 64}}))):
        expected = await memory_effects(context, scorer)
        assert [it.with_[at] for it in found.responses] == pytest.approx(
            [it.with_ for it in expected]
        )
        assert [it.without[at] for it in found.responses] == pytest.approx(
            [it.without for it in expected]
        )


async def test_a_model_that_trusts_its_context_less_needs_the_memories_less(transcript, tables):
    result = await run(transcript, tables("doubtful"))
    found = result.comparison
    assert (found.model, found.other) == ("toy", "doubtful")
    assert found.need.difference < 0
    verdicts = {it.key: it for it in found.memories}
    assert verdicts["tea"].verdict == "less on some"
    assert [it.entry_idx for it in verdicts["tea"].less_on] == [1]
    assert result.outcome("tea").status == "scored"
    # Both together.
    async with Session(transcript).open(tables("same")) as session:
        alone = await session.run("score-full")
    assert result.stats.prompt_tokens > 2 * alone.stats.prompt_tokens
    assert result.stats.computed_tokens == result.stats.prompt_tokens


async def test_where_they_part_is_told_with_the_text_before(transcript, tables):
    found = (await run(transcript, tables("doubtful"))).comparison
    text = transcript.conversation[1].text
    parts = found.responses[0].parts_at
    assert text == f"{parts.before}{text[len(parts.before) :]}"
    assert text[len(parts.before) :].strip().startswith(parts.text)
    assert abs(parts.logprobs[1] - parts.logprobs[0]) >= math.log(2)


async def test_without_memories_only_responses_are_compared(transcript, tables, other):
    scorer = other(Scripted())
    result = await run(transcript, tables("x", memories=False))
    assert (len(result.comparison.responses), result.comparison.memories) == (5, ())
    assert len(scorer.prompts) == 2


async def test_the_other_model_says_what_it_would_have_said(transcript, tables):
    found = (await run(transcript, tables("doubtful", say=True))).comparison
    assert all(it.other_text for it in found.responses)
    found = (await run(transcript, tables("doubtful"))).comparison
    assert {it.other_text for it in found.responses} == {None}


async def test_what_repetitions_vary_by_is_no_difference(transcript, tables, other):
    class Noisy(Scripted):
        noisy = True
        calls = 0

        async def score(self, prompts):
            self.calls += 1
            found = await super().score(prompts)
            shift = 0.5 * (self.calls % 2)
            ranges = [[replace(it, total=it.total - shift) for it in row] for row in found.ranges]
            return ScoreResult(ranges, found.computed_tokens)

    other(Noisy())
    found = (await run(transcript, tables("x"))).comparison
    # By the median of all, for five responses.
    for it in found.responses:
        assert it.limit == pytest.approx(0.5 / 0.6745 * 2.576, rel=1e-3)
    assert found.beyond_noise == []
    assert {it.verdict for it in found.memories} == {"unchanged"}


async def test_noise_that_nobody_has_measured_is_assumed_and_that_is_said(
    transcript, tables, other
):
    scorer = other(Scripted())
    scorer.noisy = True
    given = {**tables("x", memories=False), "memory": {"noise_repeats": 0}}
    found = (await run(transcript, given)).comparison
    assert {(it.limit, it.assumed) for it in found.responses} == {(1.0, True)}


# -- another tokenizer ----------------------------------------------------------------------------


async def test_another_tokenizer_is_compared_per_byte_of_the_text_and_that_is_said(
    transcript, tables, other
):
    scorer = other(Characters())
    result = await run(transcript, tables("x"))
    found = result.comparison
    assert (result.error, found.unit) == (None, "nats per byte")
    assert any("different tokenizers" in it for it in found.remarks)
    async with Session(transcript).open(tables("same")) as session:
        context, _ = await session.context_for(scorer, tables("same"))
        first = await memory_effects(await session.context(), ToyScorer())
    second = await memory_effects(context, scorer)
    for it, one, two in zip(found.responses, first, second, strict=True):
        size = len(it.text.encode())
        assert it.with_ == pytest.approx((one.with_ / size, two.with_ / size))
    assert {it.key for it in found.memories} == set(KEYS)
    assert {it.parts_at for it in found.responses} == {None}


async def test_recorded_token_ids_are_not_given_to_another_tokenizer(transcript, tables, other):
    scorer = other(Characters())
    ids = tuple(await ToyScorer().tokenize("<|im_start|>assistant\nYou are welcome.<|im_end|>\n"))
    last = replace(transcript.conversation[-1], token_ids=ids, body=(2, len(ids)))
    recorded = replace(transcript, conversation=(*transcript.conversation[:-1], last))
    found = (await run(recorded, tables("x", memories=False))).comparison
    assert len(found.responses) == 5
    assert not {it for it in scorer.prompts[0].tokens if it > 1000}


async def test_what_is_no_text_has_no_nats_per_byte_and_is_left_out(transcript, tables, other):
    from mindscore.conversation.message import ToolCall

    other(Characters())
    calls = replace(transcript.conversation[-1], text="", tool_calls=(ToolCall("f", "{}"),))
    calling = replace(transcript, conversation=(*transcript.conversation[:-1], calls))
    found = (await run(calling, tables("x"))).comparison
    assert len(found.responses) == 4
    assert any(it.startswith("1 response is left out") for it in found.remarks)


async def test_a_host_that_cannot_render_for_another_tokenizer_is_told_so(
    transcript, tables, other
):
    other(Characters())
    async with Session(transcript).open(tables("same")) as session:
        mind = StubMind(await session.context())
    async with Registry(mind, tables("x")) as registry:
        registry.register(CompareScoring({"with": "x"}), name="compare-scoring")
        heard = RecordingListener()
        registry.register(heard)
        registry.dispatch("compare")
        await registry.wait_idle()
        [(stats, _)] = heard.run_ends
        said = "the other model, 'x': it has another tokenizer, and this host cannot render"
        assert stats.error.startswith(said)
        assert Comparison not in registry.stash


# -- hosts ----------------------------------------------------------------------------------------


async def test_a_host_dispatches_it_by_its_name_and_finds_the_comparison(transcript, tables):
    async with Session(transcript).open(tables("same")) as session:
        mind = StubMind(await session.context())
    async with Registry(mind, tables("doubtful")) as registry:
        registry.load_entry_points()
        heard = RecordingListener()
        registry.register(heard)
        assert registry.dispatch("compare") == {"compare-scoring": Trigger.STARTED}
        assert registry.dispatch("compare") == {"compare-scoring": Trigger.BUSY}
        await registry.wait_idle()
        found = registry.stash[Comparison]
        assert (len(found.responses), len(found.memories)) == (5, 5)
        [(stats, run_)] = heard.run_ends
        assert (run_.command, stats.error) == ("compare", None)
        assert heard.scores == []
        assert not mind.state.scoring_in_flight
        assert mind.state.memory_last_run is None


async def test_without_another_model_the_run_says_what_to_set(transcript, tables):
    result = await run(transcript, tables(""))
    assert result.comparison is None
    assert result.error.startswith("plugins.settings.compare-scoring.with: name the other model")


async def test_nothing_of_it_goes_to_the_store_as_scores(transcript, tables):
    given = tables("doubtful")
    del given["plugins"]["disabled"]
    await run(transcript, given)
    async with Session(transcript).open(given) as session:
        result = await session.run("score", KEYS)
    assert result.outcome("tea").status == "scored"


async def test_the_next_command_has_no_comparison(transcript, tables):
    async with Session(transcript).open(tables("doubtful")) as session:
        assert (await session.run("compare")).comparison is not None
        assert (await session.run("score")).comparison is None


# -- the other model's scorer ---------------------------------------------------------------------


async def test_it_is_closed_at_the_end_of_a_run(transcript, tables, other):
    scorer = other(Scripted())
    await run(transcript, tables("x"))
    assert scorer.closed == 1


async def test_what_was_compared_is_not_lost_if_it_cannot_be_closed(
    transcript, tables, other, caplog
):
    class Stuck(Scripted):
        async def aclose(self):
            raise OSError("no")

    other(Stuck())
    result = await run(transcript, tables("x"))
    assert (result.error, len(result.comparison.responses)) == (None, 5)
    assert "the other model, 'x', could not be closed: OSError: no" in caplog.messages


async def test_one_in_the_stash_is_used_and_left_open(transcript, tables):
    scorer = Scripted()
    async with Session(transcript).open(tables("ignored")) as session:
        session.registry.stash[OtherModel] = OtherModel("mine", scorer, tables("same"))
        for _ in range(2):
            assert (await session.run("compare")).comparison.other == "mine"
    assert scorer.closed == 0
    assert scorer.prompts


async def test_it_is_closed_when_the_run_is_cancelled(transcript, tables, other):
    class Slow(Scripted):
        begun = asyncio.Event()

        async def score(self, prompts):
            self.begun.set()
            await asyncio.sleep(60)

    scorer = other(Slow())
    async with Session(transcript).open(tables("x")) as session:
        session.registry.dispatch("compare")
        await asyncio.wait_for(scorer.begun.wait(), 10)
    assert scorer.closed == 1


async def test_its_errors_say_that_they_are_its_own(transcript, tables, other):
    result = await run(transcript, tables("broken"))
    assert result.error.startswith("the other model, 'broken' (tables of [server]: same, doubtful")
    assert "server.options.prior" in result.error


async def test_its_calls_are_repeated_and_its_answers_checked(transcript, tables, other):
    class Flaky(Scripted):
        tried = 0

        async def score(self, prompts):
            self.tried += 1
            if self.tried == 1:
                raise ScorerUnavailable("busy", retry_after=0.0)
            return await super().score(prompts)

    scorer = other(Flaky())
    assert (await run(transcript, tables("x", memories=False))).error is None
    assert scorer.tried == 3

    class Wrong(Scripted):
        async def score(self, prompts):
            found = await super().score(prompts)
            return [[replace(it, total=math.nan) for it in row] for row in found.ranges]

    other(Wrong())
    result = await run(transcript, tables("x"))
    assert "the other model, 'x': scripted: total log-probability" in result.error


async def test_a_memory_that_fails_under_one_model_leaves_the_others(transcript, tables, other):
    class Failing(Scripted):
        async def score(self, prompts):
            [prompt] = prompts
            bare = prompt.tokens[: prompt.ranges[0][0]]
            [mark] = await self.tokenize("rooibos")
            # Everything but tea, which alone is gone.
            if mark not in bare and len(bare) > 40:
                raise ScorerError("no")
            return await super().score(prompts)

    other(Failing())
    result = await run(transcript, tables("x"))
    assert [it.key for it in result.comparison.memories] == [it for it in KEYS if it != "tea"]
    assert result.outcome("tea").status == "failed"
    assert result.error.startswith("1 of 5 memories failed; tea: x: ")


async def test_responses_beyond_what_one_model_reads_are_left_out_of_both(
    transcript, tables, other
):
    scorer = other(Scripted())
    scorer.context_length = 130
    result = await run(transcript, tables("x"))
    assert 0 < len(result.comparison.responses) < 5
    said = [it for it in result.all_remarks if "beyond the 130 tokens that scripted reads" in it]
    assert len(said) == 1


async def test_a_conversation_with_images_is_not_given_to_a_model_that_takes_none(
    transcript, tables, other
):
    scorer = other(Scripted())
    async with Session(transcript).open(tables("x")) as session:
        context = await session.context()
    first = replace(context.conversation[0], images=(Image("image/png", b"x"),))
    mind = StubMind(replace(context, conversation=(first, *context.conversation[1:])))
    seeing = Scripted()
    seeing.takes_images = True
    async with Registry(mind, tables("x"), scorer=seeing) as registry:
        registry.register(CompareScoring({"with": "x"}), name="compare-scoring")
        heard = RecordingListener()
        registry.register(heard)
        registry.dispatch("compare")
        await registry.wait_idle()
    [(stats, _)] = heard.run_ends
    assert "the conversation holds images, and it takes none" in stats.error
    assert scorer.prompts == []


async def test_a_model_that_cannot_tokenise_is_refused(transcript, tables, other):
    class Mute(Scripted):
        tokenize = BaseScorer.tokenize

    other(Mute())
    result = await run(transcript, tables("x"))
    assert "the other model, 'x': the scorer Mute cannot tokenize" in result.error


async def test_another_chat_template_of_the_same_tokenizer_is_said(transcript, tables, other):
    class Templated(Scripted):
        async def render_chat(self, messages, add_generation_prompt, tools=()):
            return "other"

    class First(Scripted):
        async def render_chat(self, messages, add_generation_prompt, tools=()):
            said = "".join(
                f"<|im_start|>{it['role']}\n{it['content']}<|im_end|>\n" for it in messages
            )
            return said + "<|im_start|>assistant\n" * add_generation_prompt

    other(Templated())
    async with Session(transcript).open(tables("x"), First()) as session:
        found = (await session.run("compare")).comparison
    assert found.unit == "nats"
    assert any("x has another chat template" in it for it in found.remarks)
