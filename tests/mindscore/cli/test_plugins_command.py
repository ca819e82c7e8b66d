"""``mindscore plugins``, and what plugins of third parties do to the other commands: nothing."""

import re

import pytest
from tests.cases import mostly_slow

OWN = {
    "compare-scoring": ["on_trigger"],
    "memory-scoring": ["on_trigger"],
    "finetune-scoring": ["on_trigger"],
    "score-recorder": ["on_candidate", "on_run_end", "on_score"],
    "write-back": ["on_score"],
}
TYPES = {
    "name": str,
    "distribution": str,
    "version": str,
    "hooks": list,
    "commands": list,
    "enabled": bool,
}

QUIET = """
from mindhooks import hookimpl

class Loud:
    def __init__(self, table):
        self.table = table

    @hookimpl
    def on_score(self, score):
        pass

    @hookimpl
    async def on_candidate(self, candidate, mind):
        pass
"""
ENTRY = "loud = acme_loud:Loud"
WHO = "plugin loud (acme 1.2.3)"


def listener(*lines, hook="on_score", kind="def"):
    """A module whose ``Loud`` does ``lines`` in ``hook``."""
    body = "\n".join(f"        {line}" for line in lines)
    return (
        "import asyncio, sys\n"
        "from mindhooks import hookimpl\n"
        "class Loud:\n"
        "    def __init__(self, table):\n"
        "        pass\n"
        "    @hookimpl\n"
        f"    {kind} {hook}(self):\n"
        f"{body}\n"
    )


# -- the list -------------------------------------------------------------------------------------


def test_the_list_as_json_says_what_each_plugin_is(cli):
    ran = cli("plugins", "--json")
    assert (ran.status, ran.err) == (0, "")
    own = {info["name"]: info for info in ran.document if info["distribution"] == "mindscore"}
    assert own.keys() == OWN.keys()
    for name, info in own.items():
        assert info.pop("error") is None
        assert {key: type(value) for key, value in info.items()} == TYPES
        assert sorted(info["hooks"]) == OWN[name]
        assert info["enabled"] is True
        assert info["version"]


def test_the_list_for_people_says_the_same(cli):
    ran = cli("plugins")
    assert (ran.status, ran.err) == (0, "")
    for name in OWN:
        [line] = [line for line in ran.out.splitlines() if name in line]
        assert line.split()[1] == "mindscore"
        assert line.split()[-1] == "on"


def test_a_plugin_that_is_disabled_is_listed_as_such(cli):
    options = ["--set", 'plugins.disabled=["finetune-scoring"]']
    states = {it["name"]: it["enabled"] for it in cli("plugins", "--json", *options).document}
    assert states["finetune-scoring"] is False
    assert states["memory-scoring"] is True
    ran = cli("plugins", *options)
    assert ran.status == 0
    [line] = [line for line in ran.out.splitlines() if "finetune-scoring" in line]
    assert line.split()[-1] == "disabled"


def test_an_unknown_name_among_the_disabled_ones_is_a_warning(cli):
    ran = cli("plugins", "--json", "--set", 'plugins.disabled=["finetune-scorign"]')
    assert ran.status == 0
    assert "finetune-scorign" in ran.error
    assert all(info["enabled"] for info in ran.document)


def test_wrong_options_of_our_own_plugins_are_a_wrong_configuration(cli):
    ran = cli("plugins", "--json", "--set", "plugins.settings.memory-scoring.onyl=1")
    assert (ran.status, ran.out) == (2, "")
    assert "plugins.settings.memory-scoring.onyl: unknown key" in ran.error
    assert "'only'" in ran.error


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_wrong_configuration_is_refused(options, cli):
    ran = cli("plugins", *options, "--set", "plugins.disabled=loud")
    assert (ran.status, ran.out) == (2, "")
    assert "plugins.disabled" in ran.error


def test_a_plugin_of_a_third_party_is_listed_after_our_own(command, install):
    ran = command("plugins", "--json", **install(QUIET, ENTRY))
    assert (ran.status, ran.err) == (0, "")
    names = [info["name"] for info in ran.document]
    assert names.index("loud") > max(names.index(name) for name in OWN)
    [info] = [info for info in ran.document if info["name"] == "loud"]
    assert sorted(info.pop("hooks")) == ["on_candidate", "on_score"]
    assert info == {
        "name": "loud",
        "distribution": "acme",
        "version": "1.2.3",
        "commands": [],
        "enabled": True,
        "error": None,
    }


def test_a_plugin_that_does_not_load_is_listed_with_its_error(command, install):
    environment = install(QUIET, "loud = acme_gone:Loud", "mute = acme_loud:Loud")
    ran = command("plugins", "--json", **environment)
    assert ran.status == 0
    states = {info["name"]: info for info in ran.document}
    assert "ModuleNotFoundError" in states["loud"]["error"]
    assert "acme_gone" in states["loud"]["error"]
    assert (states["loud"]["hooks"], states["mute"]["error"]) == ([], None)
    assert ran.error.startswith(f"{WHO} was skipped: ModuleNotFoundError: ")


def test_the_list_for_people_shows_the_error_too(command, install):
    ran = command("plugins", **install(QUIET, "loud = acme_gone:Loud"))
    assert ran.status == 0
    assert "ModuleNotFoundError" in " ".join(ran.out.split())
    assert ran.error.startswith(f"{WHO} was skipped: ")


def test_a_plugin_that_was_disabled_is_not_even_imported(command, install):
    environment = install("raise SystemExit(7)", ENTRY)
    ran = command("plugins", "--json", "--set", 'plugins.disabled=["loud"]', **environment)
    assert (ran.status, ran.err) == (0, "")
    [info] = [info for info in ran.document if info["name"] == "loud"]
    assert (info["enabled"], info["error"]) == (False, None)


def test_the_environment_disables_further_plugins(command, install):
    environment = install("raise SystemExit(7)", ENTRY)
    named = {"MINDSCORE_DISABLE_PLUGINS": "loud,nobody"}
    ran = command("plugins", "--json", **environment, **named)
    assert ran.status == 0
    assert ran.error == "MINDSCORE_DISABLE_PLUGINS names 'nobody', but no plugin is called so"
    assert [it["name"] for it in ran.document if not it["enabled"]] == ["loud"]
    ran = command("plugins", **environment, MINDSCORE_DISABLE_PLUGINS="*")
    assert (ran.status, ran.err) == (0, "")
    states = {line.split()[0]: line.split()[-1] for line in ran.out.splitlines()}
    assert states["loud"] == "disabled"
    assert states["memory-scoring"] == "on"


@pytest.mark.parametrize("kind", ["scorers", "sinks", "readers", "recognisers"])
def test_scorers_sinks_readers_and_recognisers_are_listed_with_whose_they_are(
    kind, command, install
):
    group = f"mind{'hooks' if kind in ('scorers', 'sinks') else 'score'}.{kind}"
    ran = command("plugins", **install(QUIET, ENTRY, group=group))
    assert (ran.status, ran.err) == (0, "")
    # A long list is folded.
    out = re.sub(r" *\n(?!\w+: )", " ", ran.out)
    lines = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    assert {name for name, listed in lines.items() if "loud (acme)" in listed} == {kind}
    for name, own in {"scorers": "toy", "sinks": "jsonl", "readers": "native"}.items():
        assert own in lines[name].strip().split(", ")
    assert "literal" in lines["recognisers"].strip().split(", ")


# -- a command of a third party -------------------------------------------------------------------

COUNTING = """
from mindhooks import FinetuneStats, MemoryScore, MemoryStats, Outcome, hookimpl

class Loud:
    commands = ("count",)

    def __init__(self, table):
        self.table = table

    @hookimpl
    def on_trigger(self, command, mind, registry):
        if command == "count":
            task = registry.task_handle("count")
            return task.trigger_if_idle(lambda: self.count(mind, registry))

    async def count(self, mind, registry):
        async with registry.run("count", uses_scorer=False) as run:
            context = await mind.context()
            print(len(context.conversation), "messages")
            if self.table.get("fails"):
                raise ValueError("too loud")
            await registry.emit_score(MemoryScore("tea", 2.5, "incremental", ()))
            registry.report(MemoryStats({"tea": Outcome("scored")}, 0, 0, None, 0.0))
"""


@pytest.fixture
def count(command, install, talk):
    """Runs the command ``count`` of a third party's plugin on a conversation."""
    environment = install(COUNTING, ENTRY)
    toy = ["--set", "server.scorer=toy"]
    return lambda *options: command("run", "count", talk, *toy, *options, **environment)


def test_a_command_of_a_third_party_runs_and_its_scores_are_shown(count):
    ran = count()
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "4 messages"
    assert ["tea", "2.50"] in [line.split()[:2] for line in lines]
    assert lines[-2].startswith("1 of 1 memory scored")
    assert lines[-1].startswith("toy: 0 calls, ")


def test_a_command_of_a_third_party_gives_a_document(count):
    ran = count("--json")
    assert ran.status == 0
    assert ran.err == "4 messages\n"
    assert ran.document["command"] == "count"
    assert [(it["key"], it["score"]) for it in ran.document["scores"]] == [("tea", 2.5)]
    assert ran.document["candidates"] == []


def test_a_command_of_a_third_party_that_fails_is_told_once(count):
    ran = count("--set", "plugins.settings.loud.fails=true")
    assert ran.status == 1
    assert (ran.out + ran.err).count("ValueError: too loud") == 1


# -- the trace ------------------------------------------------------------------------------------


def untimed(lines):
    """The lines with ``T`` for each time."""
    return [re.sub(r"\b\d+\.\d ms", "T", line) for line in lines.splitlines()]


@pytest.mark.parametrize("first", [True, False])
def test_the_trace_has_a_line_for_each_hook_call_and_no_text(first, command, install, talk):
    arguments = ["score", talk, "--json", "--memory", "tea", "--set", "server.scorer=toy"]
    where = ["--trace-hooks", *arguments] if first else [*arguments, "--trace-hooks"]
    ran = command(*where, **install(QUIET, ENTRY))
    assert ran.status == 0
    score = ran.document["scores"][0]["score"]
    triggered, scored, ended = untimed(ran.err)
    assert triggered.startswith("mindscore: trace: on_trigger('score') in T: ")
    assert "memory-scoring returned started (T)" in triggered
    assert "finetune-scoring returned None (T)" in triggered
    assert scored.startswith(f"mindscore: trace: on_score('tea', {score}) in T: ")
    assert "score-recorder awaited (T), " in scored
    assert "loud returned None (T)" in scored
    assert ended.startswith("mindscore: trace: on_run_end('score', 'MemoryStats') in T: ")
    assert "green" not in ran.err


def test_the_trace_names_candidates_by_their_node(command, install, talk):
    arguments = ["score", talk, "--json", "--finetune", "--set", "server.scorer=toy"]
    ran = command("--trace-hooks", *arguments, **install(QUIET, ENTRY))
    node = ran.document["candidates"][0]["node_id"]
    line = untimed(ran.err)[-2]
    assert line.startswith(f"mindscore: trace: on_candidate('{node}') in T: ")
    assert line.endswith("loud queued")


def test_debug_is_no_trace(command, install, talk):
    arguments = ["score", talk, "--json", "--set", "server.scorer=toy"]
    ran = command("--debug", *arguments, **install(QUIET, ENTRY))
    assert (ran.status, ran.err) == (0, "")


# -- what goes wrong in them -----------------------------------------------------------------------

HAND_OVER = "from mindhooks import hookimpl\nclass Loud:\n    def __init__(self, table): pass\n"
MISBEHAVING = {
    "raises": (listener("raise ValueError('too loud')"), "on_score: ValueError: too loud"),
    "raises in lines": (
        listener(r"raise ValueError('one\ntwo\r\nthree')"),
        "on_score: ValueError: one two three",
    ),
    "raises escapes": (
        listener(r"raise ValueError('a\x1b[2Jb\u202ec')"),
        r"on_score: ValueError: a\x1b[2Jb\u202ec",
    ),
    "raises markup": (
        listener("raise ValueError('[/red] [bold] :cat:')"),
        "on_score: ValueError: [/red] [bold] :cat:",
    ),
    "exits": (listener("sys.exit(7)"), "on_score: SystemExit: 7"),
    "cancels": (listener("raise asyncio.CancelledError"), "on_score: CancelledError"),
    "raises when async": (
        listener("raise ValueError('too loud')", kind="async def"),
        "on_score: ValueError: too loud",
    ),
    "exits when async": (listener("sys.exit(7)", kind="async def"), "on_score: SystemExit: 7"),
    "answers nonsense": (listener("return 'yes'", hook="on_trigger"), "on_trigger: PluginError"),
    "raises on triggers": (
        listener("raise ValueError('too loud')", hook="on_trigger"),
        "on_trigger: ValueError: too loud",
    ),
    "is async on triggers": (
        listener("pass", hook="on_trigger", kind="async def"),
        "was skipped: PluginError: on_trigger",
    ),
    "has a hook that is none": (listener("pass", hook="on_scoer"), "was skipped: PluginError"),
    "wants more arguments": (
        HAND_OVER + "    @hookimpl\n    def on_score(self, score, weather): pass\n",
        "was skipped: PluginError: on_score has no argument 'weather'",
    ),
    "raises when imported": ("raise ValueError('too loud')", "was skipped: ValueError: too loud"),
    "exits when imported": ("raise SystemExit(7)", "was skipped: SystemExit: 7"),
    "is no Python": ("def", "was skipped: SyntaxError"),
    "imports what is not there": ("import acme_gone", "was skipped: ModuleNotFoundError"),
    "lacks what is named": ("", "was skipped: AttributeError"),
    "raises when made": (
        "class Loud:\n    def __init__(self, table): raise ValueError('too loud')\n",
        "was skipped: ValueError: too loud",
    ),
    "cannot be made": ("class Loud: pass\n", "was skipped: TypeError"),
    "raises when closed": (
        HAND_OVER + "    async def aclose(self): raise ValueError('too loud')\n",
        "aclose: ValueError: too loud",
    ),
}


OFTEN = (
    "raises markup",
    "exits",
    "cancels",
    "raises on triggers",
    "is no Python",
    "raises when made",
)


@pytest.mark.parametrize(("source", "said"), mostly_slow(MISBEHAVING, *OFTEN))
def test_a_misbehaving_plugin_is_named_in_one_line_and_nothing_else_changes(
    source, said, command, install, talk
):
    arguments = ["score", talk, "--json", "--memory", "tea", "--set", "server.scorer=toy"]
    ran = command(*arguments, **install(source, ENTRY))
    assert ran.status == 0
    assert [(it["key"], it["status"]) for it in ran.document["scores"]] == [("tea", "scored")]
    assert ran.document["stats"]["error"] is None
    assert ran.error.startswith(WHO)
    assert said in ran.error


def test_a_listener_that_never_ends_is_given_up(command, install, talk):
    environment = install(listener("await asyncio.Event().wait()", kind="async def"), ENTRY)
    # The recorder is under the same limit, and may well take so long on a slow disk.
    settings = ["plugins.listener_timeout_s=0.2", 'plugins.disabled=["score-recorder"]']
    options = [it for setting in settings for it in ("--set", setting)]
    arguments = ["score", talk, "--json", "--memory", "tea", "--set", "server.scorer=toy"]
    ran = command(*arguments, *options, **environment)
    assert ran.status == 0
    assert ran.document["scores"][0]["status"] == "scored"
    assert ran.error.startswith(f"{WHO}: on_score: ")
    assert "0.2 s" in ran.error


def test_each_complaint_is_a_line_of_its_own(command, install, talk):
    environment = install(listener("raise ValueError('too loud')"), ENTRY)
    ran = command("score", talk, "--json", "--set", "server.scorer=toy", **environment)
    line = f"mindscore: {WHO}: on_score: ValueError: too loud\n"
    assert (ran.status, ran.err) == (0, 2 * line)


def test_a_misbehaving_plugin_does_not_hide_that_the_run_failed(command, install, server, numbered):
    environment = install(listener("raise ValueError('too loud')", hook="on_trigger"), ENTRY)
    server.answer = lambda body: None
    ran = command("score", numbered, "--json", *server.options, **environment)
    assert ran.status == 1
    complaint, error = ran.err.splitlines()
    assert complaint == f"mindscore: {WHO}: on_trigger: ValueError: too loud"
    assert error == f"mindscore: {ran.document['stats']['error']}"


def test_a_candidate_survives_a_listener_that_raises(command, install, talk):
    environment = install(listener("raise ValueError('too loud')", hook="on_candidate"), ENTRY)
    arguments = ["score", talk, "--json", "--finetune", "--set", "server.scorer=toy"]
    ran = command(*arguments, **environment)
    assert (ran.status, len(ran.document["candidates"])) == (0, 1)
    assert ran.error == f"{WHO}: on_candidate: ValueError: too loud"


def test_debug_shows_where_a_plugin_went_wrong(command, install, talk):
    environment = install(listener("raise ValueError('too loud')"), ENTRY)
    arguments = ["score", talk, "--json", "--memory", "tea", "--set", "server.scorer=toy"]
    ran = command("--debug", *arguments, **environment)
    assert ran.status == 0
    assert ran.document["scores"][0]["status"] == "scored"
    lines = ran.err.splitlines()
    assert lines[0] == f"mindscore: {WHO}: on_score: ValueError: too loud"
    assert "Traceback (most recent call last):" in lines
    assert any("acme_loud.py" in line for line in lines)


@pytest.mark.parametrize("where", ["when imported", "in a listener", "in an async listener"])
def test_what_a_plugin_prints_is_not_part_of_the_document(where, command, install, talk):
    kind = "async def" if where == "in an async listener" else "def"
    source = listener("pass" if where == "when imported" else "print('too loud')", kind=kind)
    if where == "when imported":
        source += "print('too loud')\n"
    arguments = ["score", talk, "--json", "--memory", "tea", "--set", "server.scorer=toy"]
    ran = command(*arguments, **install(source, ENTRY))
    assert ran.status == 0
    assert ran.out.startswith("{")
    assert ran.document["scores"][0]["status"] == "scored"


def test_a_plugin_gets_its_own_table(command, install, talk):
    source = HAND_OVER.replace("pass", "raise ValueError(repr(table))")
    own = 'plugins.settings.loud={size = 3, names = ["a"]}'
    arguments = ["score", talk, "--json", "--set", "server.scorer=toy", "--set", own]
    ran = command(*arguments, **install(source, ENTRY))
    assert ran.status == 0
    assert ran.error == f"{WHO} was skipped: ValueError: {{'size': 3, 'names': ['a']}}"


def test_a_second_plugin_of_a_taken_name_is_refused(command, install, talk):
    environment = install(QUIET, "memory-scoring = acme_loud:Loud")
    ran = command("score", talk, "--json", "--set", "server.scorer=toy", **environment)
    assert ran.status == 0
    assert {it["status"] for it in ran.document["scores"]} == {"scored"}
    assert ran.error.startswith("plugin memory-scoring (acme 1.2.3) was skipped: ")


# -- scorers of third parties ---------------------------------------------------------------------

SCORER = """
from mindscore.scorers.toy import ToyScorer

def build(table):
    scorer = ToyScorer()
    scorer.model = f"acme {table['options']['size']}"
    return scorer
"""
BROKEN = {
    "cannot be imported": ("import acme_gone", "ModuleNotFoundError"),
    "cannot be built": ("def build(table): raise ValueError('too loud')", "ValueError: too loud"),
    "is no scorer": ("def build(table): return object()", "score"),
}


def test_a_scorer_of_a_third_party_can_be_chosen_and_gets_its_options(command, install, talk):
    environment = install(SCORER, "acme = acme_loud:build", group="mindhooks.scorers")
    chosen = ["--set", "server.scorer=acme", "--set", "server.options.size=3"]
    ran = command("score", talk, "--json", *chosen, **environment)
    assert (ran.status, ran.err) == (0, "")
    assert ran.document["model"] == "acme 3"
    assert {it["status"] for it in ran.document["scores"]} == {"scored"}


@pytest.mark.parametrize(("source", "said"), mostly_slow(BROKEN, "cannot be built"))
def test_a_scorer_that_is_broken_fails_every_memory(source, said, command, install, talk):
    environment = install(source, "acme = acme_loud:build", group="mindhooks.scorers")
    ran = command("score", talk, "--json", "--set", "server.scorer=acme", **environment)
    assert ran.status == 1
    assert {it["status"] for it in ran.document["scores"]} == {"failed"}
    assert ran.error == ran.document["stats"]["error"]
    assert "'acme'" in ran.error
    assert said in ran.error
    shown = command("score", talk, "--set", "server.scorer=acme", **environment)
    # Not the one that is configured, which was never asked.
    assert shown.out.splitlines()[-1].startswith("no model: 0 calls, ")
