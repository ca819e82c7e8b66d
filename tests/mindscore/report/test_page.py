"""What stands in a report, and when."""

import re
from dataclasses import replace

import pytest

from mindhooks import FinetuneStats, MemoryScore, MemoryStats, Outcome, ResponseDivergence
from mindscore.config.settings import parse_settings
from mindscore.measure.interactions import Interaction, InteractionEntry, RedundantGroup
from mindscore.measure.memories import memory_texts
from mindscore.report.page import MOST_OPEN, facts, render
from mindscore.report.ranking import standings


def page(result, **tables):
    """The page's text, in one line."""
    return " ".join(render(result, parse_settings(tables)).partition("<main")[2].split())


def scored(*signed, noise=None):
    row = tuple(
        ResponseDivergence(at, f"r{at}", max(0.0, it), it, noise) for at, it in enumerate(signed)
    )
    return MemoryScore("k", max(it.divergence for it in row), "full", row)


@pytest.fixture
def result(made_up):
    return made_up(memories=2, responses=2)


def test_what_a_memory_did_is_summed_up(result):
    key, other = result.keys
    found = standings(
        replace(result, scores={key: scored(3.0, -2.0, 0.9, 1.5), other: scored(5.0)}), {}, 0.01
    )
    assert [it.key for it in found] == [other, key]
    one = found[1]
    assert (one.largest, one.lowest, one.total) == (3.0, -2.0, 4.5)
    assert (one.likelier, one.less_likely, one.most_on, one.effect) == (2, 1, 0, "mixed")
    assert found[0].effect == "likelier"


def test_noise_is_no_effect(result):
    key = result.keys[0]
    given = replace(result, scores={key: scored(0.5, -0.5, noise=0.6)})
    assert standings(given, {}, 0.01)[0].effect == "none"
    assert standings(given, {}, 0.01)[0].lowest == 0.0


def test_noise_counts_in_no_order_headline_or_sum(result):
    noisy, clear = result.keys
    row = (*scored(9.0, noise=10.0).divergences, *scored(0.5, noise=0.1).divergences)
    scores = {noisy: MemoryScore(noisy, 9.0, "full", row), clear: scored(0.75, noise=0.1)}
    given = replace(result, scores=scores)
    first, second = standings(given, {}, 0.01)
    assert (first.key, first.is_noise, first.most_on) == (clear, False, 0)
    assert (second.largest, second.highest, second.total) == (9.0, 0.5, 0.5)
    assert (second.is_noise, second.most_on) == (True, None)
    told = page(given)
    assert "none made a response at least one nat (2.7 times) likelier" in told
    assert 'class="number noise">9.00<br><span class="small">within noise</span></td>' in told


def test_noise_that_was_not_measured_is_said_to_be_assumed(result):
    measured, above, below = (
        page(replace(result, scores={result.keys[0]: scored(size, noise=noise)}))
        for size, noise in ((3.0, 0.1), (3.0, None), (0.9, None))
    )
    assert "noise not measured" not in measured
    assert "noise not measured" in above
    assert "within noise, assumed" in below
    assert "1 nat is assumed" in measured


def test_a_memory_that_was_not_scored_says_why_and_comes_last(result):
    key, other = result.keys
    outcomes = {key: Outcome("not-due"), other: Outcome("scored")}
    given = replace(
        result,
        command="score",
        scores={other: scored(1.0)},
        stats=MemoryStats(outcomes, 1, 1, 1, 1.0),
    )
    assert [it.key for it in standings(given, {}, 0.01)] == [other, key]
    assert "not due yet: --all scores them anyway" in page(given)


def test_what_a_memory_says_is_its_nodes_and_its_parts(result):
    printed, key = result.keys
    assert memory_texts(result.transcript) == {key: "green tea memory 0", printed: "green tea part"}


def test_a_report_of_a_run_that_failed_says_so_at_its_top(result):
    found = page(replace(result, error="the server is gone"))
    assert found.index("This report is not complete.") < found.index("<h2")
    assert "the server is gone" in found
    assert "--full --resume" in found
    assert "This report is not complete." not in page(result)


def test_one_without_memories_says_what_to_do(result):
    found = page(replace(result, keys=(), scores={}))
    assert "This conversation holds no memories." in found
    assert "--memories FILE" in found


def test_one_in_which_none_was_due_says_what_to_do(result):
    outcomes = {key: Outcome("not-due") for key in result.keys}
    stats = MemoryStats(outcomes, 0, 0, 0, 0.1)
    found = page(replace(result, command="score", scores={}, stats=stats))
    assert "No memory was scored." in found
    assert "--all" in found


def test_one_without_candidates_says_what_to_do(made_up):
    stats = FinetuneStats(7, 0, 1.0, 0.4, 2, 10, 10, 1.0)
    found = page(made_up("score-finetune", candidates=(), stats=stats))
    assert "There are no candidates." in found
    assert "0.40" in found
    assert "finetune.threshold" in found


def test_alternates_that_were_not_asked_for_can_be(made_up):
    hint = "finetune.generate_alternates=true"
    result = made_up("score-finetune")
    bare = tuple(replace(it, alternate_text=None) for it in result.candidates)
    assert hint in page(replace(result, candidates=bare))
    assert hint not in page(result, finetune={"generate_alternates": True})


def test_the_facts_of_a_run_are_told(result):
    server = {"scorer": "vllm", "base_url": "http://127.0.0.1:8000/v1"}
    told = dict(facts(result, parse_settings({"server": server})))
    assert told["Server"] == "vllm, http://127.0.0.1:8000/v1"
    assert told["Model"] == "a model"
    assert (told["Calls"], told["Tokens sent"]) == ("4", "99")
    assert told["Tokens computed"] == "the server does not say"
    assert told["Noise"] == "0.10 nats (median of 2 responses; largest 0.10)"


@pytest.mark.parametrize(
    "secret", ["u:p/w@h", "u:p#w@h", "u:p?w@h", "h/?key=pw", "h/#pw", "pw@h/@x"]
)
def test_a_secret_in_an_address_is_not_told(result, secret):
    server = {"scorer": "another's", "base_url": f"http://{secret}"}
    settings = parse_settings({"server": server})
    assert not [
        value for _, value in facts(result, settings) if "p" + "w" in value or "p/w" in value
    ]
    assert f"http://{secret}" not in render(result, settings)


def test_responses_of_another_flow_may_have_any_index(result):
    odd = MemoryScore(result.keys[0], 1.0, "full", (ResponseDivergence(999, "nobody's", 1.0, 1.0),))
    assert "nobody" in page(replace(result, scores={result.keys[0]: odd}))


def test_of_many_candidates_the_first_are_open_and_the_rest_unfolds(made_up):
    few = page(made_up("score-finetune", responses=MOST_OPEN))
    many = page(made_up("score-finetune", responses=MOST_OPEN + 3))
    assert "more, of +2.00 nats and less" not in few
    shown, _, rest = many.partition("<summary>3 more, of +2.00 nats and less</summary>")
    assert shown.count("<article") == MOST_OPEN
    assert rest.count("<article") == 3


def test_memories_that_hide_each_other_are_one_line_a_group(result):
    nodes = tuple(node for _, node in result.transcript.responses())
    groups = (
        RedundantGroup(("a", "b", "c"), nodes),
        RedundantGroup(("d", "e"), nodes[:1]),
    )
    found = page(replace(result, redundant=groups))
    listed = found.partition('<ul class="pairs">')[2].partition("</ul>")[0]
    assert listed.count("<li>") == 2
    assert "any is enough for #1, #3" in " ".join(listed.split())
    assert "either is enough for #1</li>" in listed


def test_memories_that_need_each_other_are_listed_with_their_responses(result):
    entries = tuple(
        InteractionEntry(index, node, 8.0, 16.0, -8.0)
        for index, node in result.transcript.responses()
    )
    need = Interaction(("a", "b"), entries, "need")
    found = page(replace(result, interactions=(need,)))
    listed = found.partition('<ul class="pairs">')[2].partition("</ul>")[0]
    said = " ".join(re.sub("<[^>]*>", "", listed).split())
    assert said == "a and b need each other: either one removed costs what both do, for #1, #3"


def test_what_was_not_looked_for_is_not_said_to_be_absent(result):
    assert "pairs-title" in page(result)
    assert "pairs-title" not in page(replace(result, measured=(1.0, 2.0)))
