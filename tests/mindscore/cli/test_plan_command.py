"""``mindscore plan``: what scoring costs, before it is paid; and the budget of ``score``."""

import sqlite3

import pytest

OPTIONS = [(), ("--full",), ("--finetune",), ("--full", "--hold"), ("--memory", "dog")]


@pytest.fixture
def plan(cli):
    """Runs ``mindscore plan`` with the toy: ``plan(transcript, "--full")``."""
    return lambda *arguments: cli("plan", *arguments, "--set", "server.scorer=toy")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("repeats", [0, 2])
def test_the_plan_is_what_the_run_then_sends(plan, score, talk, options, repeats):
    noise = ("--set", f"memory.noise_repeats={repeats}")
    planned = plan(talk, *options, *noise, "--json").document
    spent = score(talk, *options, *noise, "--json").document["stats"]
    for name in ("calls", "prompt_tokens", "computed_tokens"):
        assert planned[name] == spent[name], name
    assert planned["calls"] > 0
    assert planned["seconds"] >= 0
    assert planned["error"] is None


def test_the_plan_names_the_flow_and_what_becomes_of_each_memory(plan, talk):
    planned = plan(talk, "--json").document
    assert (planned["command"], planned["flow"], planned["model"]) == ("plan", "score", "toy")
    assert planned["memories"] == [
        {"key": "tea", "status": "to-score"},
        {"key": "dog", "status": "to-score"},
    ]
    assert plan(talk, "--full", "--json").document["flow"] == "score-full"


def test_a_plan_makes_no_memory_less_due_and_keeps_nothing(plan, score, talk, tmp_path):
    plan(talk)
    plan(talk, "--full")
    plan(talk, "--finetune", "--set", "finetune.threshold=0")
    assert {it["status"] for it in plan(talk, "--json").document["memories"]} == {"to-score"}
    for file in tmp_path.rglob("*.sqlite3"):
        with sqlite3.connect(file) as store:
            for (table,) in store.execute("select name from sqlite_master where type = 'table'"):
                rows = store.execute(f"select count(*) from '{table}'").fetchone()[0]
                assert rows == 0 or "version" in table or "schema" in table, table
        store.close()


def test_what_is_not_due_costs_nothing_unless_all_are_asked_for(plan, score, talk):
    score(talk)
    idle = plan(talk, "--json").document
    assert (idle["calls"], idle["prompt_tokens"], idle["seconds"]) == (0, 0, 0.0)
    assert plan(talk, "--json", "--all").document["calls"] == 3


def test_a_person_reads_calls_tokens_and_time(plan, talk):
    ran = plan(talk)
    assert (ran.status, ran.err) == (0, "")
    for words in ("score with toy would take", "calls", "tokens sent", "tokens computed", "about"):
        assert words in ran.out


def test_no_plugin_hears_of_a_plan(command, install, talk):
    source = (
        "from mindhooks import hookimpl\n"
        "class Loud:\n"
        "    def __init__(self, table): pass\n"
        "    @hookimpl\n"
        "    def on_score(self, score): print('HEARD', score.key)\n"
    )
    environment = install(source, "loud = acme_loud:Loud", group="mindhooks")
    heard = command("score", talk, "--all", "--set", "server.scorer=toy", **environment)
    planned = command("plan", talk, "--all", "--set", "server.scorer=toy", **environment)
    assert "HEARD" in heard.out + heard.err
    assert planned.status == 0
    assert "HEARD" not in planned.out + planned.err


def test_a_server_that_does_not_say_what_it_computes_is_planned_without(cli, numbered, server):
    options = ("--set", "server.scorer=score", "--set", f"server.base_url={server.url}")
    planned = cli("plan", numbered, *options, "--json")
    assert planned.status == 0
    assert planned.document["computed_tokens"] is None
    assert planned.document["calls"] > 0
    assert "does not say" in cli("plan", numbered, *options).out


def test_a_plan_whose_server_is_not_there_fails_with_one_line(cli, numbered, nobody):
    options = ("--set", "server.scorer=score", "--set", f"server.base_url={nobody}")
    ran = cli("plan", numbered, *options, "--set", "server.max_attempts=1")
    assert (ran.status, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "cannot connect" in ran.err


@pytest.mark.parametrize(
    ("options", "flow"), [(("--finetune",), "finetune-scoring"), (("--full",), "memory-scoring")]
)
def test_a_flow_that_is_disabled_is_not_planned(plan, talk, options, flow):
    ran = plan(talk, *options, "--set", f"plugins.disabled=['{flow}']")
    assert (ran.status, ran.out) == (1, "")
    assert f"{flow} is disabled (plugins.disabled)" in ran.error


def test_the_time_of_a_run_that_generates_is_not_known(plan, talk):
    generates = ("--finetune", "--set", "finetune.generate_alternates=true")
    assert plan(talk, *generates, "--json").document["seconds"] is None
    assert "not known" in plan(talk, *generates).out


def test_a_budget_takes_the_memories_that_fit_and_says_which_it_left_out(plan, score, talk):
    whole = plan(talk, "--json").document["prompt_tokens"]
    limit = ("--max-tokens", str(whole - 1))
    planned = plan(talk, *limit, "--json").document
    ran = score(talk, *limit, "--json")
    assert ran.status == 0
    assert {it["key"]: it["status"] for it in ran.document["scores"]} == {
        "tea": "scored",
        "dog": "left-out",
    }
    assert ran.document["stats"]["prompt_tokens"] <= whole - 1
    assert planned["prompt_tokens"] == ran.document["stats"]["prompt_tokens"]
    assert {"key": "dog", "status": "left-out"} in planned["memories"]
    # The one left out is the oldest now.
    again = score(talk, *limit, "--all")
    assert "left out, too large for --max-tokens: tea" in again.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--hold",), "--hold goes with --full"),
        (("--finetune", "--hold"), "--hold goes with --full"),
        (("--full", "--max-tokens", "9"), "--max-tokens"),
        (("--finetune", "--max-tokens", "9"), "--max-tokens"),
        (("--max-tokens", "0"), "--max-tokens"),
        (("--full", "--finetune"), "exclude each other"),
        (("--finetune", "--memory", "tea"), "--memory"),
        (("--memory", "nobody"), "holds no such memory"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_plan_and_score(
    plan, score, talk, options, said
):
    for run in (plan, score):
        ran = run(talk, *options)
        assert (ran.status, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 1
        assert said in ran.err
