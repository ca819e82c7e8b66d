"""``mindscore score``: its three commands, its options, what it keeps and how it exits."""

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

STATUSES = [
    {"role": "memory", "key": "tea", "content": "The user drinks green tea."},
    {"role": "user", "content": "What do I drink?"},
    {"role": "assistant", "content": "You drink green tea."},
    {"role": "memory", "key": "middle", "content": "Said in the middle."},
    {"role": "user", "content": "A long story: " + "once upon a time " * 20},
    {"role": "memory", "key": "end", "content": "Said at the end."},
]


@pytest.fixture
def burning(server):
    """A server that fails where a prompt lacks the memory ``b`` before its first response."""
    well = server.answer

    def answer(body):
        if 102 in body["prompt"][: body["score_ranges"][0][0]]:
            return well(body)
        return web.json_response({"error": "the GPU is on fire"})

    server.answer = answer
    return server


def statuses(ran):
    return {entry["key"]: entry["status"] for entry in ran.document["scores"]}


def test_a_run_that_went_well_exits_with_0_and_says_nothing_on_standard_error(score, talk):
    ran = score(talk)
    assert (ran.status, ran.err) == (0, "")
    assert "tea" in ran.out
    assert "dog" in ran.out


def test_every_candidate_is_there_with_what_became_of_it(score, write):
    ran = score(write(*STATUSES), "--json")
    assert ran.status == 0
    assert statuses(ran) == {"tea": "scored", "middle": "no-response", "end": "past-cutoff"}


def test_what_has_been_scored_is_not_due_in_the_next_run(score, talk):
    assert statuses(score(talk, "--json")) == {"tea": "scored", "dog": "scored"}
    again = score(talk, "--json")
    assert again.status == 0
    assert statuses(again) == {"tea": "not-due", "dog": "not-due"}
    assert again.document["stats"]["calls"] == 0


def test_all_scores_memories_that_are_not_due_too(score, talk):
    score(talk)
    assert statuses(score(talk, "--json", "--all")) == {"tea": "scored", "dog": "scored"}


def test_all_goes_before_an_interval_of_the_configuration(score, talk):
    score(talk)
    ran = score(talk, "--json", "--all", "--set", "memory.interval_s=999999")
    assert statuses(ran) == {"tea": "scored", "dog": "scored"}


def test_a_memory_is_due_again_after_the_interval_of_the_configuration(score, talk):
    score(talk)
    ran = score(talk, "--json", "--set", "memory.interval_s=0")
    assert statuses(ran) == {"tea": "scored", "dog": "scored"}


def test_the_matrix_is_measured_whatever_is_due_and_makes_nothing_due_later(score, talk):
    score(talk)
    assert score(talk, "--json", "--full").document["stats"]["calls"] == 3
    assert statuses(score(talk, "--json")) == {"tea": "not-due", "dog": "not-due"}


def test_the_matrix_does_not_count_as_scoring_in_the_background(score, talk):
    score(talk, "--full")
    assert statuses(score(talk, "--json")) == {"tea": "scored", "dog": "scored"}


def test_one_memory_may_be_asked_for(score, talk):
    assert statuses(score(talk, "--json", "--memory", "dog")) == {"dog": "scored"}
    assert statuses(score(talk, "--json")) == {"tea": "scored", "dog": "not-due"}


def test_several_memories_are_answered_in_the_order_of_the_conversation(score, write, talk):
    lines = [{"role": "memory", "key": key, "content": key} for key in "abc"]
    talk = write(*lines, *STATUSES)
    ran = score(talk, "--json", "--memory", "c", "--memory", "a", "--memory", "c")
    assert [entry["key"] for entry in ran.document["scores"]] == ["a", "c"]


def test_the_matrix_may_be_of_one_memory_too(score, talk):
    ran = score(talk, "--json", "--full", "--memory", "dog")
    assert ran.document["memories"] == ["dog"]
    assert len(ran.document["matrix"]) == 1
    assert ran.document["stats"]["calls"] == 2


@pytest.mark.parametrize("options", [["--memory", "cat"], ["--memory", "tea", "--memory", "cat"]])
def test_a_memory_that_is_not_there_is_refused_and_those_that_are_there_are_named(
    options, score, talk
):
    ran = score(talk, "--json", *options)
    assert (ran.status, ran.out) == (2, "")
    assert "cat" in ran.error
    assert "tea, dog" in ran.error


def test_a_memory_that_is_asked_of_a_conversation_without_any_is_refused(score, write):
    ran = score(write({"role": "user", "content": "Hello"}), "--memory", "cat")
    assert ran.status == 2
    assert "none" in ran.error


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]])
def test_a_conversation_without_memories_is_no_failure(options, score, write):
    talk = write({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."})
    ran = score(talk, *options)
    assert (ran.status, ran.err) == (0, "")
    ran = score(talk, "--json", *options)
    assert (ran.status, ran.document["stats"]["error"]) == (0, None)


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]])
def test_a_conversation_without_responses_is_no_failure(options, score, write):
    talk = write(
        {"role": "memory", "key": "tea", "content": "Tea."}, {"role": "user", "content": "Hello"}
    )
    ran = score(talk, *options)
    assert (ran.status, ran.err) == (0, "")
    ran = score(talk, "--json", *options)
    assert (ran.status, ran.document["stats"]["calls"]) == (0, 0)


def test_a_memory_with_nothing_after_it_says_so(score, write):
    talk = write(
        {"role": "memory", "key": "tea", "content": "Tea."},
        {"role": "user", "content": "Hello"},
        {"role": "user", "content": "Are you there?"},
    )
    assert statuses(score(talk, "--json")) == {"tea": "no-response"}
    assert "no response" in score(talk).out


def test_scores_are_kept_and_the_matrix_is_not_among_them(score, cli, talk):
    score(talk, "--full")
    assert cli("store", "list", "--json").document == []
    found = {it["key"]: it["score"] for it in score(talk, "--json").document["scores"]}
    kept = {it["key"]: it["score"] for it in cli("store", "list", "--json").document}
    assert kept == found


def test_candidates_are_found_above_the_threshold_of_the_configuration(score, talk, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[server]\nscorer = "toy"\n[finetune]\nthreshold = 1000\n')
    strict = score(talk, "--json", "--finetune", "--config", file)
    assert strict.document["candidates"] == []
    assert strict.document["stats"]["threshold"] == 1000.0
    loose = score(talk, "--json", "--finetune", "--config", file, "--set", "finetune.threshold=1")
    assert [it["entry_idx"] for it in loose.document["candidates"]] == [3]


def test_that_there_are_no_candidates_is_said_with_the_largest_divergence(score, talk):
    found = score(talk, "--json", "--finetune").document["stats"]["max_divergence"]
    ran = score(talk, "--finetune", "--set", "finetune.threshold=1000")
    assert ran.status == 0
    assert "1000" in ran.out
    assert f"{found:.2f}" in ran.out


def test_one_memory_that_fails_makes_the_status_1_and_stops_no_other(burning, cli, numbered):
    ran = cli("score", numbered, "--json", *burning.options)
    assert ran.status == 1
    assert statuses(ran) == {"a": "scored", "b": "failed"}
    [a, b] = ran.document["scores"]
    assert (a["score"], a["error"]) == (2.0, None)
    assert (b["score"], b["divergences"]) == (None, [])
    assert "the GPU is on fire" in b["error"]
    assert "b" in ran.document["stats"]["error"]
    assert "the GPU is on fire" in ran.document["stats"]["error"]
    assert ran.error == ran.document["stats"]["error"]


def test_what_was_scored_before_a_failure_is_printed_and_kept(burning, cli, numbered):
    ran = cli("score", numbered, *burning.options)
    assert ran.status == 1
    assert any(line.split()[:2] == ["a", "2.00"] for line in ran.out.splitlines())
    assert "1 failed: b" in ran.out
    assert "the GPU is on fire" in ran.error
    assert [it["key"] for it in cli("store", "list", "--json").document] == ["a"]


def test_a_row_of_the_matrix_that_fails_leaves_the_others(burning, cli, numbered):
    ran = cli("score", numbered, "--json", "--full", *burning.options)
    assert ran.status == 1
    assert ran.document["matrix"] == [[2.0, 0.0], [None, None]]
    assert ran.document["signed"] == [[2.0, 0.0], [None, None]]
    assert "the GPU is on fire" in ran.document["stats"]["error"]
    assert ran.error == ran.document["stats"]["error"]


def test_an_alternate_that_cannot_be_generated_leaves_the_candidate(server, cli, numbered):
    options = [*server.options, "--set", "finetune.generate_alternates=true"]
    ran = cli("score", numbered, "--json", "--finetune", *options)
    assert ran.status == 1
    [candidate] = ran.document["candidates"]
    assert (candidate["alternate_text"], candidate["alternate_ids"]) == (None, None)
    assert f"{server.url}/completions" in ran.error
    assert "404" in ran.error


@pytest.mark.parametrize(
    ("options", "plugin"),
    [
        ([], "memory-scoring"),
        (["--full"], "memory-scoring"),
        (["--finetune"], "finetune-scoring"),
    ],
)
def test_that_nobody_took_the_command_is_a_failure_with_a_hint(options, plugin, score, talk):
    ran = score(talk, "--json", *options, "--set", f'plugins.disabled=["{plugin}"]')
    assert ran.status == 1
    assert "mindscore plugins" in ran.error
    assert "disabled" in ran.error
    assert ran.document["stats"]["error"] == ran.error
    assert score(talk, *options, "--set", f'plugins.disabled=["{plugin}"]').status == 1


def test_memories_that_nobody_scored_are_failed(score, talk):
    ran = score(talk, "--json", "--set", 'plugins.disabled=["memory-scoring"]')
    assert statuses(ran) == {"tea": "failed", "dog": "failed"}
    assert all("no plugin took" in it["error"] for it in ran.document["scores"])


def test_an_unknown_name_among_the_disabled_ones_is_a_warning(score, talk):
    ran = score(talk, "--json", "--set", 'plugins.disabled=["memory-scorign"]')
    assert ran.status == 0
    assert "memory-scorign" in ran.error
    assert statuses(ran) == {"tea": "scored", "dog": "scored"}


def test_without_the_recorder_scores_are_printed_but_not_kept(score, cli, talk):
    ran = score(talk, "--json", "--set", 'plugins.disabled=["score-recorder"]')
    assert (ran.status, ran.err) == (0, "")
    assert statuses(ran) == {"tea": "scored", "dog": "scored"}
    assert cli("store", "list", "--json").document == []


def test_a_memory_is_not_failed_where_the_run_is_not(score, talk):
    own = 'plugins.settings.memory-scoring.only=["tea"]'
    ran = score(talk, "--json", "--set", own)
    assert ran.status == 0
    assert "failed" not in statuses(ran).values()


def test_every_run_says_what_it_cost(server, cli, numbered):
    out = cli("score", numbered, *server.options).out
    assert "4 calls" in out
    assert "52 tokens sent" in out


def test_the_real_command_does_the_same(command, talk):
    ran = command("score", talk, "--json", "--set", "server.scorer=toy")
    assert (ran.status, ran.err) == (0, "")
    assert statuses(ran) == {"tea": "scored", "dog": "scored"}


def test_the_real_command_separates_what_was_found_from_what_went_wrong(burning, command, numbered):
    ran = command("score", numbered, "--json", *burning.options)
    assert ran.status == 1
    assert statuses(ran) == {"a": "scored", "b": "failed"}
    assert "the GPU is on fire" in ran.error


# -- what is known from earlier runs --------------------------------------------------------------


def test_a_run_in_which_nothing_is_due_shows_what_is_known_and_since_when(score, talk):
    first = {it["key"]: it["score"] for it in score(talk, "--json").document["scores"]}
    shown = score(talk).out
    assert "scored before" in shown
    for key, value in first.items():
        assert re.search(rf"{key} +{value:.2f} +\d{{4}}-\d\d-\d\d \d\d:\d\d, just now", shown)
    assert "2 not due yet: --all scores them anyway" in shown
    assert "Memories by score" not in shown


def test_the_json_keeps_a_null_for_what_is_not_due_and_says_what_is_known(score, talk):
    started = datetime.now(UTC)
    first = {it["key"]: it["score"] for it in score(talk, "--json").document["scores"]}
    for entry in score(talk, "--json").document["scores"]:
        assert (entry["score"], entry["status"], entry["divergences"]) == (None, "not-due", [])
        assert entry["last_score"] == first[entry["key"]]
        scored = datetime.fromisoformat(entry["last_scored"])
        assert started <= scored <= datetime.now(UTC)
        assert scored.utcoffset() == timedelta(0)


def test_a_score_of_this_run_stands_alone(score, talk):
    score(talk)
    ran = score(talk, "--all", "--json")
    assert not any("last_score" in it for it in ran.document["scores"])
    assert "scored before" not in score(talk, "--all").out


def test_what_an_earlier_text_of_a_memory_did_is_not_shown_for_the_new_one(score, write):
    def talk(text):
        return write(
            {"role": "memory", "key": "tea", "content": text},
            {"role": "user", "content": "What do I drink?"},
            {"role": "assistant", "content": "You drink green tea."},
        )

    old = score(talk("You drink green tea."), "--json").document["scores"][0]["score"]
    score(talk("Something else."), "--json")
    [entry] = score(talk("You drink green tea."), "--json").document["scores"]
    assert (entry["status"], entry["last_score"]) == ("not-due", old)


def test_what_another_model_or_conversation_found_is_not_shown(score, write, tmp_path):
    memory = {"role": "memory", "key": "tea", "content": "You drink green tea."}
    answer = {"role": "assistant", "content": "You drink green tea."}
    one, other = (
        write(memory, {"role": "user", "content": question}, answer, name=f"{question}.jsonl")
        for question in ("What", "Which")
    )
    score(one)
    store = tmp_path / "data" / "mindscore" / "store.sqlite3"
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE conversation_scores SET model = 'another'")
    failing = ("--set", "store.url=sqlite:////dev/null/store.sqlite3")
    assert "last_score" not in score(one, "--json", *failing).document["scores"][0]
    [entry] = score(other, "--json", "--max-tokens", "1").document["scores"]
    assert (entry["status"], "last_score" in entry) == ("left-out", False)
    [entry] = score(one, "--json", "--max-tokens", "1").document["scores"]
    assert (entry["status"], "last_score" in entry) == ("left-out", False)


def test_a_memory_that_is_left_out_shows_what_is_known(score, talk):
    score(talk)
    ran = score(talk, "--json", "--all", "--max-tokens", "1")
    assert statuses(ran) == {"tea": "left-out", "dog": "left-out"}
    assert all(it["last_score"] > 0 for it in ran.document["scores"])


def test_the_report_shows_what_is_known_with_its_time(score, talk, tmp_path):
    score(talk)
    file = tmp_path / "report.html"
    score(talk, "--html", file)
    page = file.read_text()
    assert len(re.findall(r"scored before: \d+\.\d\d nats,\s+measured \d{4}-\d\d-\d\d", page)) == 2
    assert "what earlier runs found" in page
    assert page.count("not due yet: --all scores them anyway") >= 2
