"""``mindscore plan``: what scoring costs, before it is paid; and the budget of ``score``."""

import asyncio
import sqlite3
import subprocess
import sys

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.measure.interactions import MOST_GROUPS
from mindscore.scorers.toy import ToyScorer
from mindscore.session.plan import MEASURED_TOKENS
from mindscore.store import History, Speed

from ..tiny_model import write_tiny_model

OPTIONS = [
    (), ("--full",), ("--finetune",), ("--full", "--hold"), ("--full", "--placebo"),
    ("--memory", "dog"),
]  # fmt: skip


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
    for words in ("score with toy would take", "calls", "tokens sent", "tokens computed"):
        assert words in ran.out
    assert "no speed known for toy (toy) yet: run with --measure" in ran.out
    assert "about" not in ran.out


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
    ran = cli("plan", numbered, *options, "--set", "server.max_attempts=1", "--measure")
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


def times(planned):
    names = ("loading", "scoring", "confirming", "generating")
    return [planned[f"{name}_seconds"] for name in names]


def remembered(seconds, *, tokens=1000, generated=(0, 0.0), loading=None):
    """A speed as a run of the toy would leave it."""
    return Speed("toy", "toy", "", tokens, tokens, seconds, *generated, loading, 1.0)


@pytest.fixture
def remember(tmp_path):
    """Keeps a speed where ``planned`` looks for it."""
    history = History(StoreSettings(f"sqlite:///{tmp_path / 'own.sqlite3'}"))
    return lambda speed: asyncio.run(history.record_speed(speed))


@pytest.fixture
def planned(plan, talk, tmp_path):
    """Returns the plan for some options, of the store that ``remember`` writes to."""
    url = f"store.url=sqlite:///{tmp_path / 'own.sqlite3'}"
    return lambda *options: plan(talk, "--json", "--set", url, *options).document


def test_without_a_speed_no_time_is_made_up(plan, talk):
    planned = plan(talk, "--json").document
    assert (planned["seconds"], planned["speed"]) == (None, None)
    assert times(planned) == [None] * 4


def test_a_run_remembers_the_speed_that_the_next_plan_uses(plan, score, talk):
    score(talk)
    planned = plan(talk, "--full", "--json").document
    assert planned["speed"] == "remembered"
    assert planned["seconds"] == planned["scoring_seconds"] > 0
    assert "at the speed of earlier runs" in plan(talk, "--full").out


def test_a_run_that_failed_leaves_no_speed(cli, numbered, server):
    honest, server.answer = server.answer, None
    assert cli("score", numbered, *server.options).status == 1
    assert cli("plan", numbered, *server.options, "--json").document["speed"] is None
    server.answer = honest
    assert cli("score", numbered, *server.options).status == 0
    planned = cli("plan", numbered, *server.options, "--full", "--json").document
    assert (planned["speed"], planned["computed_tokens"]) == ("remembered", None)
    assert planned["seconds"] > 0


def test_measuring_times_one_short_prompt_and_remembers_it(plan, talk, monkeypatch):
    scored, score = [], ToyScorer.score

    async def counted(self, prompts):
        scored.extend(len(prompt.tokens) for prompt in prompts)
        return await score(self, prompts)

    monkeypatch.setattr(ToyScorer, "score", counted)
    assert plan(talk, "--full", "--json").document["speed"] is None
    assert scored == []
    assert plan(talk, "--full", "--measure", "--json").document["speed"] == "measured"
    warm_up, timed = scored
    assert warm_up == 2 < timed <= MEASURED_TOKENS
    assert plan(talk, "--full", "--json").document["speed"] == "remembered"


def test_loading_scoring_and_generating_are_apart(planned, remember):
    remember(remembered(2.0, generated=(100, 50.0), loading=7.0))
    scoring = planned()
    assert times(scoring) == [7.0, scoring["computed_tokens"] * 0.002, 0.0, 0.0]
    assert scoring["seconds"] == sum(times(scoring))
    generates = ("--finetune", "--set", "finetune.generate_alternates=true")
    most = planned(*generates, "--set", "finetune.max_alternate_tokens=30")
    assert most["alternates"] == 1
    assert most["generating_seconds"] == 30 * 0.5
    assert most["seconds"] == sum(times(most))


def test_alternates_of_unknown_speed_leave_the_whole_time_unknown(planned, remember):
    remember(remembered(2.0))
    generates = ("--finetune", "--set", "finetune.generate_alternates=true")
    found = planned(*generates)
    assert found["scoring_seconds"] > 0
    assert (found["generating_seconds"], found["seconds"]) == (None, None)


def test_prompts_that_confirm_groups_are_counted_as_the_most_there_may_be(planned, remember):
    remember(remembered(1.0))
    assert planned("--full")["confirming_calls"] == 0
    found = planned("--full", "--hold")
    assert found["confirming_calls"] == min(MOST_GROUPS, 1)
    assert 0 < found["confirming_tokens"] <= found["prompt_tokens"]
    assert found["confirming_seconds"] == found["confirming_tokens"] * 0.001
    assert planned("--full", "--hold", "--memory", "dog")["confirming_calls"] == 0


def test_nothing_to_do_takes_no_time_at_any_speed(planned, score, talk, remember, tmp_path):
    score(talk, "--set", f"store.url=sqlite:///{tmp_path / 'own.sqlite3'}")
    remember(remembered(2.0, loading=7.0))
    idle = planned("--measure")
    assert (idle["calls"], idle["seconds"], idle["speed"]) == (0, 0.0, None)


FLOW = (
    "from mindhooks import Trigger, hookimpl\n"
    "class Flow:\n"
    "    commands = ('score-finetune',)\n"
    "    def __init__(self, table): pass\n"
    "    @hookimpl\n"
    "    def on_trigger(self, command):\n"
    "        return Trigger.STARTED if command in self.commands else None\n"
)


def test_what_another_plugin_costs_is_said_to_be_unknown(command, install, talk):
    environment = install(FLOW, "acme-flow = acme_loud:Flow", group="mindhooks")
    toy = ("--set", "server.scorer=toy")
    beside = command("plan", talk, "--finetune", *toy, **environment)
    assert beside.status == 0
    said = "the plugin acme-flow answers score-finetune too: what it costs is not known"
    assert said in beside.out
    assert "acme-flow" not in command("plan", talk, *toy, **environment).out
    alone = ("--set", "plugins.disabled=['finetune-scoring']")
    instead = command("plan", talk, "--finetune", *toy, *alone, **environment)
    assert (instead.status, instead.out) == (1, "")
    assert "finetune-scoring is disabled" in instead.err
    assert "acme-flow" in instead.err


@pytest.mark.model
def test_a_plan_of_the_local_model_loads_its_tokenizer_alone(talk, tmp_path, tokenizer_file):
    model = write_tiny_model(tmp_path / "tiny", tokenizer_file)
    (model / "model.safetensors").unlink()
    arguments = ["plan", str(talk), "--full", "--set", f"server.model={model}"]
    code = f"import sys; from mindscore.cli import main; main({arguments}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "calls" in done.stdout
    assert not {"torch", "transformers.modeling_utils"} & set(done.stdout.split())


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
