from contextlib import aclosing
from itertools import accumulate
from pathlib import Path

import pytest

from benchmarks.attribution import methods
from benchmarks.attribution.ablations import random_masks
from benchmarks.attribution.measuring import RecordingScorer, measuring
from benchmarks.attribution.methods import METHODS, ablated_totals, keeping, removed
from benchmarks.attribution.results import Results
from benchmarks.attribution.run import Plan, run
from mindhooks import MindCommand, ScorerError
from mindscore.measure.memories import skip_all, skip_all_except, skip_none, skip_only
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.session.session import Session


async def test_drop_and_hold_are_differences_of_the_prompts_own_scores(measured):
    full, bare = (await measured.totals(skip_none))[0], (await measured.totals(skip_all))[0]
    drops = (await METHODS["drop"](measured))["answer-0"]
    holds = (await METHODS["hold"](measured))["answer-0"]
    both = (await METHODS["drop+hold"](measured))["answer-0"]
    for at, key in enumerate(measured.keys):
        dropped = full - (await measured.totals(skip_only(key)))[0]
        held = (await measured.totals(skip_all_except(key)))[0] - bare
        assert drops[at] == pytest.approx(dropped)
        assert holds[at] == pytest.approx(held)
        assert both[at] == pytest.approx(dropped + held)


async def test_the_sentence_that_says_the_answer_is_found_by_every_method(measured):
    for name in (
        "drop",
        "hold",
        "drop+hold",
        "contextcite-64",
        "contextcite-256",
        "bm25",
        "support",
    ):
        values = (await METHODS[name](measured))["answer-0"]
        best = max(zip(values, measured.keys, strict=True))[1]
        assert best in measured.case.labels["answer-0"].support, name


async def test_common_words_count_more_the_rarer_they_are(measured):
    values = dict(zip(measured.keys, (await METHODS["bm25"](measured))["answer-0"], strict=True))
    # "They sail far …" has no word of question and answer, "Oslo is cold." the word "is", and
    # "The dog of Ada is called Rex." five, the answer among them.
    assert 0 == values["0.1"] < values["3.0"] < values["2.0"]


async def test_the_screened_matrix_of_few_memories_is_exact(measured):
    exact = (await METHODS["drop"](measured))["answer-0"]
    with measured.scorer.charged() as cost:
        assert (await METHODS["screened"](measured))["answer-0"] == pytest.approx(exact)
    assert cost.calls > 1


async def test_support_is_the_loss_and_the_common_words(measured):
    dropped, common = await METHODS["drop"](measured), await METHODS["bm25"](measured)
    for name in ("support", "support-8"):
        assert (await METHODS[name](measured))["answer-0"] == pytest.approx(
            [a + b for a, b in zip(dropped["answer-0"], common["answer-0"], strict=True)]
        )


async def test_few_memories_are_measured_where_few_may_matter(measured, monkeypatch):
    monkeypatch.setattr(methods, "CANDIDATES", 2)
    with measured.scorer.charged() as cost:
        found = (await METHODS["support-8"](measured))["answer-0"]
    assert cost.calls == 1 + 2
    dropped, common = await METHODS["drop"](measured), await METHODS["bm25"](measured)
    apart = [one - other for one, other in zip(found, common["answer-0"], strict=True)]
    likely = sorted(common["answer-0"])[-2:]
    assert [bool(it) for it in apart] == [it in likely for it in common["answer-0"]]
    assert max(apart) == pytest.approx(max(dropped["answer-0"]))


async def test_a_mask_leaves_out_what_it_does_not_keep(measured):
    keys, mask = measured.keys, [True, False] * 3
    assert removed(keys, mask) == {keys[1], keys[3], keys[5]}
    masks = random_masks(3, len(keys))
    totals = (await ablated_totals(measured, masks))["answer-0"]
    for mask, total in zip(masks.tolist(), totals, strict=True):
        assert total == (await measured.totals(keeping(keys, mask)))[0]


async def test_a_knock_out_is_charged_for_one_prompt_and_its_answers(short_case, tiny_model):
    async with (
        aclosing(LocalScorer({"model": tiny_model})) as scorer,
        measuring(short_case, RecordingScorer(scorer), ()) as measured,
    ):
        [whole] = await measured.prompts(skip_none)
        with measured.scorer.charged() as cost:
            found = (await METHODS["knock-out"](measured))["answer-0"]
        nodes = (*measured.context.system, *measured.context.identity)
        ends = list(accumulate(len(it.token_ids) for it in nodes))
        spans = [[(end - len(it.token_ids), end)] for it, end in zip(nodes, ends, strict=True)]
        hidden = (await scorer.knock_out(whole, spans[-2:])).ranges
        expected = [(await measured.totals(skip_none))[0] - row[0].total for row in hidden]
    answer = len(measured.answer("answer-0"))
    assert cost.computed == len(whole.tokens) + answer * len(measured.keys)
    assert found == pytest.approx(expected, abs=1e-6)
    assert all(found)


LOOKS_BACK = """\
{%- for message in messages if message.role != "system" -%}
<{{ message.role }}>{% if loop.first and messages[0].role == "system" %}{{ messages[0].content }}
{% endif %}{{ message.content }}</s>
{%- endfor -%}
{%- if add_generation_prompt %}<assistant>{% endif -%}
"""
"""A template that prints the system's text within the first message, as that of Gemma does."""


async def test_a_template_that_looks_back_is_measured_as_the_command_does(
    short_case, tiny_model, tmp_path
):
    (Path(tiny_model) / "chat_template.jinja").write_text(LOOKS_BACK)
    names = [name for name in METHODS if name not in ("captum", "contextcite-256")]
    plan, results = Plan(names, random=4), Results({})
    table = {"scorer": "local", "model": tiny_model}
    await run([short_case], table, plan, results, None, lambda _: None)
    [answer] = results.answers
    assert answer.methods.keys() == {*names}
    tables = {"server": table, "store": {"url": f"sqlite:///{tmp_path}/store"}}
    async with Session(short_case.transcript).open(tables) as session:
        assert (await session.context()).prompts is not None
        found = await session.run(MindCommand.SCORE_FULL)
    expected = [found.scores[key].divergences[0].signed for key in answer.keys]
    assert answer.methods["drop"].values == pytest.approx(expected, abs=1e-5)
    assert all(answer.methods["jsd"].values)
    assert all(answer.methods["knock-out"].values)


async def test_a_scorer_that_cannot_hide_tokens_is_named(measured):
    with pytest.raises(ScorerError, match="toy: no tokens can be hidden"):
        await METHODS["knock-out"](measured)
