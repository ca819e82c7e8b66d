"""``mindscore score --full --screen``: what is exact, what is estimated, and what may be missed."""

import json

import pytest


@pytest.fixture
def many(tmp_path):
    """A conversation of 60 memories, of which five say what a response does."""
    lines = [{"role": "system", "content": "You help."}]
    for n in range(60):
        text = f"Fact {n}: the cat likes thing{n} and place{n}."
        lines.append({"role": "memory", "key": f"m{n}", "content": text})
    for n in range(10):
        said = f"It is thing{n * 6} there." if n % 2 == 0 else "I do not know that at all."
        lines.append({"role": "user", "content": f"What about item {n}?"})
        lines.append({"role": "assistant", "content": said})
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


MATTER = {"m0", "m12", "m24", "m36", "m48"}


def test_the_document_has_the_receipt_beside_the_matrix_and_no_estimate_in_it(score, many):
    document = score(many, "--full", "--screen", "--json").document
    screen = document["screen"]
    assert screen.keys() == {
        "method", "trials", "exact", "sampled", "estimated", "not_looked_at", "estimates", "unit",
        "spent_tokens", "screen_tokens", "exact_tokens", "error_median", "error_p95",
        "rank_correlation", "missed", "together", "remarks",
    }  # fmt: skip
    rows = dict(zip(document["memories"], document["matrix"], strict=True))
    measured = {key for key, row in rows.items() if None not in row}
    assert MATTER <= measured == set(screen["exact"])
    for key in screen["estimated"]:
        assert rows[key] == [None] * 10
    assert [it["key"] for it in screen["estimates"]] == screen["estimated"]
    entries = [f"{it['entry_idx']}" for it in document["responses"]]
    assert all(list(it["entries"]) == entries for it in screen["estimates"])
    assert screen["spent_tokens"] == document["stats"]["prompt_tokens"] < screen["exact_tokens"]
    assert [it["nats"] for it in screen["missed"]] == [1.0, 3.0]


def test_the_terminal_shows_what_was_measured_and_says_what_was_not(score, many):
    shown = " ".join(score(many, "--full", "--screen").out.split())
    measured = int(shown.split("Screen (groups): ")[1].split()[0])
    assert f"of 60 memories measured, 8 of them drawn at random; {60 - measured} estimated (≈)" in (
        shown
    )
    confident = f"With 95 % confidence, of the {60 - measured} that were only estimated at most"
    assert confident in shown
    assert "% of the" in shown
    assert f"{60 - measured} estimated by the screen (≈), and not measured: " in shown


def test_max_tokens_are_spent_where_they_tell_most(score, many):
    whole = score(many, "--full", "--json").document["stats"]["prompt_tokens"]
    limit = whole // 4
    ran = score(many, "--full", "--screen", "--max-tokens", f"{limit}", "--json")
    screen, stats = ran.document["screen"], ran.document["stats"]
    assert stats["prompt_tokens"] <= limit
    assert screen["exact"]
    assert screen["estimated"] or screen["not_looked_at"]


def test_a_plan_says_that_a_screen_takes_no_more_than_what_it_plans(cli, server, many):
    plain = cli("plan", many, "--full", *server.options, "--json").document
    planned = cli("plan", many, "--full", "--screen", *server.options, "--json").document
    assert planned == {**plain, "is_limit": True}
    shown = cli("plan", many, "--full", "--screen", *server.options).out
    assert "at most: a screen takes no more" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--screen"], "--screen goes with --full"),
        (["--finetune", "--screen"], "--screen goes with --full"),
        (["--full", "--max-tokens", "9"], "--full --screen"),
    ],
)
def test_screen_goes_with_the_matrix_alone(options, words, score, many):
    ran = score(many, *options)
    assert ran.status == 2
    assert words in ran.err


def test_show_and_its_report_say_what_the_screen_said(cli, score, many, tmp_path):
    ran = score(many, "--full", "--screen", "--placebo", "--json").document
    screen, said = ran["screen"], score(many, "--full", "--screen", "--placebo").out
    [shown] = cli("show", many, "--json").document["results"]
    assert shown["screen"] == screen
    assert shown["placebo"] == ran["placebo"]
    assert shown["memories"] == ran["memories"]
    assert shown["signed"] == ran["signed"]
    out = cli("show", many).out
    for line in ("Screen (groups): ", "With 95 % confidence", "an unrelated text", "estimated by"):
        lines = [it for it in said.splitlines() if line in it]
        assert lines
        assert lines == [it for it in out.splitlines() if line in it]
    table = " ".join(out.split()).split("memory #1")[1].split("positive: it helped")[0]
    assert not any(f" {key} " in table for key in screen["estimated"])
    page = tmp_path / "shown.html"
    assert cli("show", many, "--html", page).status == 0
    text = page.read_text(encoding="utf-8")
    assert "What was measured, and what was estimated" in text
    assert "an unrelated text in the place of a memory changes a response by up to" in text
    assert "not due yet" not in text


def test_show_says_what_was_measured_after_the_screen(cli, score, many):
    screen = score(many, "--full", "--screen", "--json").document["screen"]
    first, second, *_ = screen["estimated"]
    score(many, "--full", "--memory", first, "--memory", second)
    [shown] = cli("show", many, "--json").document["results"]
    assert {first, second} <= set(shown["screen"]["exact"])
    assert shown["screen"]["estimated"] == screen["estimated"][2:]
    assert shown["screen"]["remarks"][-1] == "2 memories were measured since this screen"
    score(many, "--full")
    [shown] = cli("show", many, "--json").document["results"]
    assert "screen" not in shown


def test_show_tells_what_max_tokens_left_out(cli, score, many):
    ran = score(many, "--full", "--screen", "--max-tokens", "6000", "--json").document
    left = ran["screen"]["not_looked_at"]
    assert left
    [shown] = cli("show", many, "--json").document["results"]
    assert shown["screen"] == ran["screen"]
    assert shown["memories"] == ran["memories"]
    assert f"{len(left)} left out, too large for --max-tokens" in cli("show", many).out
