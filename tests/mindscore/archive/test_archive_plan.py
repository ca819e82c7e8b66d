"""``mindscore plan PATH…`` over an archive: what a pass then sends, before it is paid for."""

import json
import re

import pytest

from .archives import MEMORIES, Archive

COMMANDS = {"score": (), "score-full": ("--full",), "score-finetune": ("--finetune",)}
COUNTS = ("calls", "prompt_tokens", "computed_tokens")
NOBODY = [f"http://127.0.0.1:{port}" for port in (1, 2)]


@pytest.fixture
def talks(tmp_path):
    """Four conversations, of the first four days of 2026, with one to six memories."""
    made = Archive(tmp_path, 4, keys=lambda number: list(MEMORIES)[: (1, 6, 3, 2)[number]])
    return made.folder


@pytest.fixture
def plan(talks, mindscore):
    """Runs ``plan`` over the archive: ``plan("--full", store="other")``."""
    return lambda *arguments, **named: mindscore("plan", talks, *arguments, **named)


@pytest.fixture
def planned(plan):
    """The document of a plan that nothing is wrong with."""

    def planned(*arguments, **named):
        ran = plan(*arguments, "--json", **named)
        assert (ran.status, ran.err) == (0, "")
        [document] = ran.documents
        return document

    return planned


@pytest.fixture
def score(talks, mindscore):
    """Runs ``score`` over the archive, and returns its documents."""
    return lambda *arguments, **named: (
        mindscore("score", talks, *arguments, "--json", **named).documents
    )


def sent(documents):
    """What a pass has sent, by its documents."""
    return {name: sum(it["stats"][name] for it in documents) for name in COUNTS}


def counts(document):
    return {name: document[name] for name in COUNTS}


@pytest.mark.parametrize(
    "options",
    [
        *COMMANDS.values(),
        ("--full", "--set", "memory.noise_repeats=1"),
        ("--memory", "dog"),
        ("--set", "memory.response_window=1"),
    ],
    ids=str,
)
def test_the_plan_is_what_the_pass_then_sends(planned, score, options):
    document = planned(*options)
    documents = score(*options)
    assert counts(document) == sent(documents)
    assert document["prompt_tokens"] > 300
    assert document["conversations"] == len(documents) == (2 if "--memory" in options else 4)
    assert (document["unchanged"], document["failed"]) == (0, [])
    assert (document["confirming_calls"], document["confirming_tokens"]) == (0, 0)


def test_with_hold_it_is_what_is_sent_at_least_and_at_most(plan, planned, score, talks):
    texts = ["Jasmine tea."] * 6 + [f"Note {n}." for n in range(7)]
    same = [{"role": "memory", "key": f"m{n}", "content": it} for n, it in enumerate(texts)]
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Jasmine tea."}]
    (talks / "same.jsonl").write_text("".join(json.dumps(it) + "\n" for it in [*same, *said]))
    document = planned("--full", "--hold")
    found = sent(score("--full", "--hold"))
    # They hide each other: that they do is measured, by a prompt for each such group.
    assert document["calls"] < found["calls"]
    assert found["calls"] <= document["calls"] + document["confirming_calls"]
    most = document["prompt_tokens"] + document["confirming_tokens"]
    assert document["prompt_tokens"] < found["prompt_tokens"] <= most
    price = planned("--full", "--hold", "--all", "--price", "1000000")
    assert price["money"] == most
    said = " ".join(plan("--full", "--hold", "--all", "--price", "9").out.split())
    assert f"and up to {document['confirming_calls']} more, to confirm groups" in said
    assert f"and up to {document['confirming_tokens']:,} more" in said
    assert "time: at most, about" in said
    assert "money: at most, " in said


@pytest.mark.parametrize("options", [(), ("--seed", "7")], ids=str)
def test_a_sample_is_the_one_that_the_pass_takes(planned, score, options):
    chosen = ("--full", "--sample", "2", *options)
    document, documents = planned(*chosen), score(*chosen)
    assert document["conversations"] == len(documents) == 2
    assert document["responses"] == sum(len(it["responses"]) for it in documents) == 4
    assert counts(document) == sent(documents)


def test_of_a_time_only_what_was_said_since_is_planned(plan, planned, score):
    since = ("--full", "--since", "2026-01-03T00:00:00Z")
    shown = plan(*since).out
    assert re.search(r"to score +2 ", shown)
    assert re.search(r"left out +2 +2 before --since", shown)
    document = planned(*since)
    assert document["conversations"] == 2
    assert counts(document) == sent(score(*since))


def test_what_has_not_changed_is_planned_as_nothing_and_what_has_as_it_is(planned, score, talks):
    score("--full")
    document = planned("--full")
    assert counts(document) == dict.fromkeys(COUNTS, 0)
    assert (document["conversations"], document["unchanged"], document["seconds"]) == (0, 4, 0.0)
    again = planned("--full", "--all")
    assert (again["conversations"], again["unchanged"]) == (4, 0)
    assert planned()["unchanged"] == 0
    changed = talks / "talk-001.jsonl"
    changed.write_text(changed.read_text().replace("in talk", "of talk"))
    document = planned("--full")
    assert (document["conversations"], document["unchanged"]) == (1, 3)
    assert counts(document) == sent(score("--full"))


def test_what_an_unfinished_pass_has_left_is_planned(planned, score):
    whole = planned("--full")["prompt_tokens"]
    score("--full", "--max-tokens", whole // 2)
    document = planned("--full")
    assert 0 < document["prompt_tokens"] < whole
    assert counts(document) == sent(score("--full"))


def test_a_plan_keeps_nothing(planned, score, evidence, passes):
    before = planned("--full", store="other")
    score("--full", "--sample", "2")
    kept, done = evidence(), passes()
    for options in COMMANDS.values():
        planned(*options)
    assert (evidence(), passes()) == (kept, done)
    assert planned("--full", store="other") == before


def test_a_price_is_of_a_million_tokens_that_are_sent(plan, planned):
    plain = planned("--full")
    assert "money" not in plain
    document = planned("--full", "--price", "2500")
    assert document["price"] == 2500
    assert document["money"] == pytest.approx(2500 * plain["prompt_tokens"] / 1e6)
    shown = " ".join(plan("--full", "--price", "2500").out.split())
    assert f"money: {document['money']:,.2f}, at 2500 per million tokens sent" in shown
    assert "repeated calls, and discounts" in shown


def test_time_is_known_once_something_was_scored_and_servers_divide_it(plan, planned, score):
    assert planned("--full")["seconds"] is None
    assert "time: no speed is known of toy: score one conversation first" in plan("--full").out
    score("--full")
    one = planned("--full", "--all")
    assert one["seconds"] > 0
    assert "at the speed of earlier runs" in plan("--full", "--all").out
    servers = ("--full", "--all", "--set", f"server.base_urls={NOBODY}")
    assert counts(planned(*servers)) == counts(one)
    assert "divided among 2 servers of one speed" in plan(*servers).out


def test_files_of_no_known_format_are_counted_in_a_folder_and_an_error_by_name(
    plan, planned, talks, mindscore
):
    before = planned("--full")
    (talks / "note.txt").write_text("Buy rooibos.")
    (talks / "data.csv").write_text("a,b\n1,2\n")
    assert planned("--full") == before
    assert "2 files of no known format" in plan("--full").out
    named = mindscore("plan", talks, talks / "note.txt")
    assert (named.status, named.out) == (2, "")
    assert "note.txt" in named.err


def test_what_cannot_be_read_or_rendered_is_named_and_the_rest_is_planned(plan, planned, talks):
    before = planned("--full")
    said = ["Hi.", "Tea.", "Tea!"]
    lines = [{"role": "memory", "key": "tea", "content": "Tea."}]
    lines += [{"role": "assistant", "content": it, "id": "same"} for it in said]
    (talks / "twice.jsonl").write_text("".join(json.dumps(it) + "\n" for it in lines))
    (talks / "broken.jsonl").write_text('{"role": "user", "content": "Hi."}\n{"role": "as')
    ran = plan("--full", "--json")
    [document] = ran.documents
    assert ran.status == 1
    assert counts(document) == counts(before)
    assert f"{talks}/broken.jsonl, line 2" in ran.err
    assert "twice.jsonl" in ran.err
