"""Flows over a template that looks back: every response is measured in its own prompt."""

import jinja2
import pytest

from mindhooks import MindCommand, MindhooksError, ScorerError, WirePrompt
from mindscore.conversation.native import read_transcript
from mindscore.conversation.own_template import OwnTemplate
from mindscore.measure.leave_one_out import memory_effects, score_memory
from mindscore.scorers.toy import ToyScorer
from mindscore.session.plan import make_plan
from mindscore.session.session import Session

TEMPLATE = jinja2.Environment(autoescape=False).from_string(
    "{% for m in messages %}<|{{ m.role }}|> "
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('|')[-1] }}"
    "{% else %}{{ m.content }}{% endif %} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
SYSTEM = ("You help.", " Nora drinks tea.", " Nora has a dog.")
TALK = (
    ("user", "What do I drink?"),
    ("assistant", "The notes speak of tea|Tea, Nora."),
    ("user", "And my dog?"),
    ("assistant", "A dog it is|Nora, you have a dog and tea."),
)
LINES = (
    '{"role": "system", "content": [{"text": "You help."}, {"text": " Nora drinks tea.", "key": '
    '"tea"}, {"text": " Nora has a dog.", "key": "dog"}]}\n'
    + "".join(
        f'{{"role": "{role}", "id": "{index}", "content": "{said}"}}\n'
        for index, (role, said) in enumerate(TALK)
    )
)  # fmt: skip
WITHOUT = {"": SYSTEM, "tea": (SYSTEM[0], SYSTEM[2]), "dog": SYSTEM[:2]}


class Looking(ToyScorer):
    """The toy scorer, with a template that leaves out thoughts once they are past."""

    def __init__(self):
        super().__init__()
        self.sent = []

    async def score(self, prompts):
        self.sent += prompts
        return await super().score(prompts)

    async def render_chat(self, messages, add_generation_prompt):
        return TEMPLATE.render(messages=messages, add_generation_prompt=add_generation_prompt)


async def prompt_of(scorer, index, system):
    """Return the ids of the prompt that response ``index`` was given, and its body."""
    said = [{"role": role, "content": text} for role, text in TALK]
    messages = [{"role": "system", "content": "".join(system)}] * bool(system) + said[:index]
    asked = await scorer.tokenize(await scorer.render_chat(messages, True))
    return asked, await scorer.tokenize(f"{TALK[index][1]} <|end|>")


async def total(scorer, index, system):
    """Return the response's log-probability, scored alone behind its prompt."""
    asked, body = await prompt_of(scorer, index, system)
    span = (len(asked), len(asked) + len(body))
    [[found]] = (await ToyScorer().score([WirePrompt((*asked, *body), (), (span,), ("r",))])).ranges
    return found.total


@pytest.fixture
def transcript(tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text(LINES)
    return read_transcript(file)


@pytest.fixture
def session(transcript, tmp_path):
    """Opens a session over the conversation, with the scorer that looks back."""

    def make(scorer, **tables):
        settings = {
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
            "memory": {"token_cutoff": 1.0},
            "finetune": {"window_fraction": 1.0, "threshold": 0.0},
            **tables,
        }
        return Session(transcript).open(settings, scorer)

    return make


async def test_the_matrix_is_that_of_each_response_behind_its_own_prompt(session):
    scorer = Looking()
    async with session(scorer) as it:
        found = await it.run(MindCommand.SCORE_FULL)
    assert found.error is None
    for key in ("tea", "dog"):
        row = {it.entry_idx: it.signed for it in found.scores[key].divergences}
        for index in (1, 3):
            with_ = await total(scorer, index, WITHOUT[""])
            assert row[index] == pytest.approx(with_ - await total(scorer, index, WITHOUT[key]))
    # A prompt for each of two responses, with both memories and without either.
    assert found.stats.calls == 6


async def test_what_is_sent_is_what_the_model_was_given(session):
    scorer = Looking()
    async with session(scorer) as it:
        await it.run(MindCommand.SCORE_FULL)
    expected = set()
    for system in WITHOUT.values():
        for index in (1, 3):
            asked, body = await prompt_of(scorer, index, system)
            expected.add((*asked, *body))
    assert {prompt.tokens for prompt in scorer.sent} == expected


async def test_incremental_scores_are_the_largest_of_the_matrix(session):
    async with session(Looking()) as it:
        full = await it.run(MindCommand.SCORE_FULL)
        once = await it.run(MindCommand.SCORE)
    assert once.error is None
    assert {key: it.score for key, it in once.scores.items()} == pytest.approx(
        {key: it.score for key, it in full.scores.items()}
    )


async def test_candidates_have_the_prompts_that_the_model_was_given(session):
    scorer = Looking()
    async with session(scorer) as it:
        found = await it.run(MindCommand.SCORE_FINETUNE)
    assert {it.entry_idx for it in found.candidates} == {1, 3}
    for candidate in found.candidates:
        asked, body = await prompt_of(scorer, candidate.entry_idx, SYSTEM)
        bare, _ = await prompt_of(scorer, candidate.entry_idx, SYSTEM[:1])
        assert list(candidate.context_ids) == asked
        assert list(candidate.bare_context_ids) == bare
        assert list(candidate.continuation_ids) == body


async def test_what_a_memory_does_alone_is_measured_so_too(session):
    scorer = Looking()
    tables = {"plugins": {"settings": {"memory-scoring": {"hold": True}}}}
    async with session(scorer, **tables) as it:
        found = await it.run(MindCommand.SCORE_FULL)
    for key, others in (("tea", "dog"), ("dog", "tea")):
        alone = {it.entry_idx: it.signed for it in found.scores[key].hold}
        for index in (1, 3):
            with_ = await total(scorer, index, WITHOUT[others])
            assert alone[index] == pytest.approx(with_ - await total(scorer, index, SYSTEM[:1]))


async def test_a_row_that_is_resumed_is_the_same(session):
    tables = {"plugins": {"settings": {"memory-scoring": {"resume": True}}}}
    async with session(Looking(), **tables) as it:
        first = await it.run(MindCommand.SCORE_FULL)
    async with session(Looking(), **tables) as it:
        again = await it.run(MindCommand.SCORE_FULL)
    assert again.stats.calls == 0
    assert again.scores.keys() == first.scores.keys()
    for key, score in again.scores.items():
        assert [it.signed for it in score.divergences] == [
            it.signed for it in first.scores[key].divergences
        ]


async def test_the_functions_for_hosts_measure_so_too(transcript):
    scorer = Looking()
    context = await transcript.context(scorer.tokenize, OwnTemplate(scorer.render_chat))
    tea = 0.0
    for index in (1, 3):
        with_ = await total(scorer, index, SYSTEM)
        tea += max(0.0, with_ - await total(scorer, index, WITHOUT["tea"]))
    assert await score_memory(context, "tea", scorer) == pytest.approx(tea)
    effects = await memory_effects(context, scorer)
    assert [it.node_id for it in effects] == ["1", "3"]
    assert effects[1].without == pytest.approx(await total(scorer, 3, SYSTEM[:1]))


async def test_one_prompt_for_all_responses_is_refused_with_what_to_use(transcript):
    scorer = Looking()
    context = await transcript.context(scorer.tokenize, OwnTemplate(scorer.render_chat))
    with pytest.raises(MindhooksError, match="wire_prompts"):
        context.wire_prompt(range(4), lambda _: False)


async def test_token_ids_of_some_messages_do_not_fit_and_are_refused(tmp_path):
    file = tmp_path / "talk.jsonl"
    recorded = '{"role": "user", "content": "x", "token_ids": [1, 2]}\n'
    file.write_text(LINES + recorded)
    scorer = Looking()
    with pytest.raises(ScorerError, match="token_ids of some messages do not fit"):
        await read_transcript(file).context(scorer.tokenize, OwnTemplate(scorer.render_chat))


async def test_a_plan_counts_every_prompt(session, monkeypatch):
    scorer = Looking()
    # A plan builds the scorer that its settings name.
    monkeypatch.setattr(ToyScorer, "render_chat", Looking.render_chat)
    tables = {"server": {"scorer": "toy"}, "memory": {"token_cutoff": 1.0}}
    async with session(scorer) as it:
        plan = await make_plan(it, tables, MindCommand.SCORE_FULL)
    async with session(scorer) as it:
        found = await it.run(MindCommand.SCORE_FULL)
    assert (plan.calls, plan.prompt_tokens) == (found.stats.calls, found.stats.prompt_tokens)
