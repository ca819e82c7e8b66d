"""Plugins from entry points: section 3.3. Real distributions, on disk."""

import logging

import pytest

from mindhooks import Registry, Trigger, UnhandledCommand
from mindhooks.testing import RecordingListener, StubMind

PLUGIN = """
    from journal import journal
    from mindhooks import Trigger, hookimpl

    class Plugin:
        def __init__(self, table):
            journal.append(table)

        @hookimpl
        def on_trigger(self, command):
            return Trigger.STARTED if command == "go" else None

        @hookimpl
        def on_score(self, score):
            journal.append(score.key)

    def make(table):
        return Plugin(table)
"""


def names(registry):
    return [info.name for info in registry.plugins()]


# -- what an entry point resolves to -------------------------------------------------------------


@pytest.mark.parametrize("target", ["Plugin", "make", "Plugin.build", "builder.build"])
async def test_a_class_or_function_is_called_to_make_the_plugin(
    target, distributions, journal, score
):
    distributions.install(
        "acme",
        {"mine": f"acme_plugin:{target}"},
        acme_plugin=PLUGIN
        + """
    class Builder:
        def build(self, table):
            return Plugin(table)

    builder = Builder()
    Plugin.build = classmethod(lambda cls, table: cls(table))
        """,
    )
    settings = {"plugins": {"settings": {"mine": {"depth": 3}}}}
    async with Registry(StubMind(), settings) as registry:
        registry.load_entry_points()
        assert registry.dispatch("go") == {"mine": Trigger.STARTED}
        await registry.emit_score(score("a"))
    assert journal == [{"depth": 3}, "a"]


async def test_a_module_is_registered_as_it_is(distributions, journal, score):
    distributions.install(
        "acme",
        {"mine": "acme_plugin"},
        acme_plugin="""
            from journal import journal
            from mindhooks import hookimpl

            @hookimpl
            def on_score(score):
                journal.append(score.key)
        """,
    )
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        await registry.emit_score(score("a"))
    assert journal == ["a"]


async def test_an_instance_is_registered_as_it_is(distributions, journal, score):
    distributions.install(
        "acme",
        {"mine": "acme_plugin:instance"},
        acme_plugin=PLUGIN
        + """
    Plugin.__call__ = lambda self, table: 1 / 0
    instance = Plugin("made by its module")
        """,
    )
    async with Registry(StubMind(), {"plugins": {"settings": {"mine": {"depth": 3}}}}) as registry:
        registry.load_entry_points()
        await registry.emit_score(score("a"))
    assert journal == ["made by its module", "a"]


async def test_a_plugin_gets_its_own_table_as_a_dict_that_is_a_deep_copy(distributions, journal):
    distributions.install(
        "acme", dict.fromkeys(["mine", "yours", "third"], "acme_plugin:Plugin"), acme_plugin=PLUGIN
    )
    tables = {"mine": {"depth": 3, "list": [1], "table": {"a": 1}}, "yours": {"depth": 4}}
    async with Registry(StubMind(), {"plugins": {"settings": tables}}) as registry:
        registry.load_entry_points()
        mine, third, yours = journal
        assert (mine, yours, third) == (tables["mine"], tables["yours"], {})
        assert all(type(table) is dict for table in journal)
        mine["depth"] = 9
        mine["list"].append(2)
        mine["table"]["a"] = 2
        assert tables["mine"] == {"depth": 3, "list": [1], "table": {"a": 1}}


async def test_a_plugin_is_listed_with_its_distribution_and_version(distributions, journal):
    distributions.install(
        "acme-plugins", {"mine": "acme_plugin:Plugin"}, version="2.0.1", acme_plugin=PLUGIN
    )
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        (info,) = registry.plugins()
    assert (info.name, info.distribution, info.version) == ("mine", "acme-plugins", "2.0.1")
    assert (set(info.hooks), info.enabled, info.error) == ({"on_trigger", "on_score"}, True, None)


async def test_without_entry_points_nothing_is_loaded(distributions, complaints):
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        assert registry.plugins() == []
    assert complaints() == []


async def test_entry_points_of_another_group_are_not_plugins(distributions, journal):
    distributions.install("acme", scorers={"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        assert registry.plugins() == []
    assert journal == []


# -- order and names -----------------------------------------------------------------------------


async def test_mindscores_own_are_loaded_first_then_by_distribution_and_name(
    distributions, journal
):
    targets = ["b", "a"]
    for name in ("zeta", "alpha", "mindscore", "mindscore-extras"):
        distributions.install(
            name,
            {f"{name}-{target}": "acme_plugin:Plugin" for target in targets},
            version="1.5",
            acme_plugin=PLUGIN,
        )
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        assert names(registry) == [
            f"{name}-{target}"
            for name in ("mindscore", "alpha", "mindscore-extras", "zeta")
            for target in "ab"
        ]
        assert len(journal) == 8


async def test_a_second_plugin_of_a_taken_name_is_refused(
    distributions, journal, score, complaints
):
    distributions.install("mindscore", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("other", {"mine": "other_plugin"}, other_plugin="on_score = None")
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        first, second = registry.plugins()
        assert (first.distribution, first.error) == ("mindscore", None)
        assert second.distribution == "other"
        assert "mine" in second.error
        await registry.emit_score(score("a"))
    assert journal == [{}, "a"]
    (line,) = complaints()
    for word in ("mine", "other", "1.0"):
        assert word in line


async def test_a_name_taken_by_hand_is_taken(distributions, journal, score, complaints):
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    heard = RecordingListener()
    async with Registry(StubMind(), {}) as registry:
        registry.register(heard, name="mine")
        registry.load_entry_points()
        await registry.emit_score(score("a"))
    assert heard.scores == [score("a")]
    assert "a" not in journal
    assert len(complaints()) == 1


# -- disabled ------------------------------------------------------------------------------------


async def test_a_disabled_entry_point_is_not_even_imported(distributions, journal, complaints):
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("bomb", {"bomb": "bomb_plugin"}, bomb_plugin="raise SystemExit(3)")
    async with Registry(StubMind(), {"plugins": {"disabled": ["bomb"]}}) as registry:
        registry.load_entry_points()
        mine, bomb = registry.plugins()
        assert (mine.name, mine.enabled) == ("mine", True)
        assert (bomb.name, bomb.enabled, bomb.error) == ("bomb", False, None)
        assert (bomb.distribution, bomb.version, bomb.hooks) == ("bomb", "1.0", ())
    assert complaints() == []


async def test_disabling_the_default_swaps_a_flow(distributions, journal):
    distributions.install("mindscore", {"memory-scoring": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("other", {"my-scoring": "acme_plugin:Plugin"})
    async with Registry(StubMind(), {"plugins": {"disabled": ["memory-scoring"]}}) as registry:
        registry.load_entry_points()
        assert registry.dispatch("go") == {"my-scoring": Trigger.STARTED}


async def test_an_unknown_name_in_disabled_is_a_warning(distributions, journal, caplog):
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    settings = {"plugins": {"disabled": ["nobody", "mine", "no-one"]}}
    async with Registry(StubMind(), settings) as registry:
        registry.load_entry_points()
        assert [(info.name, info.enabled) for info in registry.plugins()] == [("mine", False)]
    records = [record for record in caplog.records if record.name == "mindhooks"]
    assert [record.levelno for record in records] == [logging.WARNING] * 2
    text = "\n".join(record.getMessage() for record in records)
    assert "nobody" in text
    assert "no-one" in text
    assert "mine" not in text


@pytest.fixture
def warnings(caplog):
    """Return the warnings of logger ``mindhooks`` so far."""
    return lambda: [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]


async def test_the_environment_disables_further_plugins(
    distributions, journal, monkeypatch, warnings
):
    monkeypatch.setenv("MINDSCORE_DISABLE_PLUGINS", " bomb, mine ,,")
    entries = dict.fromkeys(["mine", "off", "on"], "acme_plugin:Plugin")
    distributions.install("acme", entries, acme_plugin=PLUGIN)
    distributions.install("bomb", {"bomb": "bomb_plugin"}, bomb_plugin="raise SystemExit(3)")
    async with Registry(StubMind(), {"plugins": {"disabled": ["off"]}}) as registry:
        registry.load_entry_points()
        states = {info.name: info.enabled for info in registry.plugins()}
    assert states == {"mine": False, "off": False, "on": True, "bomb": False}
    assert warnings() == []


async def test_an_unknown_name_in_the_environment_is_a_warning_that_says_where(
    distributions, journal, monkeypatch, warnings
):
    monkeypatch.setenv("MINDSCORE_DISABLE_PLUGINS", "nobody,mine")
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        assert [info.enabled for info in registry.plugins()] == [False]
    assert warnings() == ["MINDSCORE_DISABLE_PLUGINS names 'nobody', but no plugin is called so"]


async def test_a_star_in_the_environment_leaves_mindscores_own_only(
    distributions, journal, monkeypatch, warnings
):
    monkeypatch.setenv("MINDSCORE_DISABLE_PLUGINS", "*")
    distributions.install("mindscore", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("other", {"mine": "other_plugin"}, other_plugin="raise SystemExit(3)")
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        states = [(info.distribution, info.enabled) for info in registry.plugins()]
        assert registry.dispatch("go") == {"mine": Trigger.STARTED}
    assert states == [("mindscore", True), ("other", False)]
    assert warnings() == []


async def test_a_star_in_the_configuration_is_a_name_like_any_other(
    distributions, journal, warnings
):
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    async with Registry(StubMind(), {"plugins": {"disabled": ["*"]}}) as registry:
        registry.load_entry_points()
        assert [info.enabled for info in registry.plugins()] == [True]
    assert warnings() == ["plugins.disabled names '*', but no plugin is called so"]


async def test_what_is_registered_by_hand_is_not_disabled_by_the_environment(
    distributions, monkeypatch, score
):
    monkeypatch.setenv("MINDSCORE_DISABLE_PLUGINS", "*")
    heard = RecordingListener()
    async with Registry(StubMind(), {}) as registry:
        registry.register(heard, name="mine")
        registry.load_entry_points()
        await registry.emit_score(score("a"))
    assert heard.scores == [score("a")]


# -- what fails ----------------------------------------------------------------------------------

BROKEN = {
    "import": ("bad_plugin", "import no_such_module", "no_such_module"),
    "syntax": ("bad_plugin", "def (", "SyntaxError"),
    "no module": ("no_such_plugin", "", "no_such_plugin"),
    "no attribute": ("bad_plugin:Plugin", "", "Plugin"),
    "no target": ("???", "", "Error"),
    "raises": ("bad_plugin", "raise ValueError('one\\ntwo')", "ValueError: one two"),
    "exits": ("bad_plugin", "raise SystemExit(3)", "SystemExit: 3"),
    "base exception": ("bad_plugin", "raise GeneratorExit('x')", "GeneratorExit: x"),
    "cancelled": (
        "bad_plugin",
        "import asyncio\nraise asyncio.CancelledError",
        "CancelledError",
    ),
    "factory raises": ("bad_plugin:make", "def make(table): table['depth']", "KeyError"),
    "factory exits": ("bad_plugin:make", "def make(table): raise SystemExit(3)", "SystemExit: 3"),
    "factory takes nothing": ("bad_plugin:make", "def make(): pass", "TypeError"),
    "factory returns none": ("bad_plugin:make", "def make(table): pass", "None"),
    "factory is async": ("bad_plugin:make", "async def make(table): pass", "async"),
    "text raises": (
        "bad_plugin",
        "class Mute(Exception):\n    __str__ = lambda self: 1 / 0\nraise Mute",
        "Mute",
    ),
    "wrong hook": (
        "bad_plugin",
        "from mindhooks import hookimpl\non_tomorrow = hookimpl(lambda: None)",
        "on_tomorrow",
    ),
    "wrong argument": (
        "bad_plugin",
        "from mindhooks import hookimpl\non_score = hookimpl(lambda verdict: None)",
        "verdict",
    ),
    "async on_trigger": (
        "bad_plugin",
        "from mindhooks import hookimpl\n@hookimpl\nasync def on_trigger(): pass",
        "on_trigger",
    ),
}


@pytest.mark.parametrize(("target", "source", "said"), BROKEN.values(), ids=BROKEN)
async def test_one_that_fails_is_skipped_with_one_logged_line_and_the_rest_load(
    target, source, said, distributions, journal, score, complaints
):
    distributions.install("acme", {"first": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("bad-dist", {"broken": target}, version="0.7", bad_plugin=source)
    distributions.install("zeta", {"last": "acme_plugin:Plugin"})
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        first, broken, last = registry.plugins()
        assert (first.error, last.error) == (None, None)
        assert (broken.name, broken.distribution) == ("broken", "bad-dist")
        assert (broken.version, broken.hooks, broken.enabled) == ("0.7", (), True)
        assert said in broken.error
        assert registry.dispatch("go") == dict.fromkeys(["first", "last"], Trigger.STARTED)
        await registry.emit_score(score("a"))
    assert journal == [{}, {}, "a", "a"]
    (line,) = complaints()
    for word in ("broken", "bad-dist", "0.7", said):
        assert word in line


@pytest.mark.parametrize("table", ["text", 3, [1]])
async def test_a_plugins_own_table_that_is_no_table_is_an_error_of_that_plugin(
    table, distributions, journal, complaints
):
    distributions.install(
        "acme", {"a": "acme_plugin:Plugin", "b": "acme_plugin:Plugin"}, acme_plugin=PLUGIN
    )
    async with Registry(StubMind(), {"plugins": {"settings": {"a": table}}}) as registry:
        registry.load_entry_points()
        assert [info.error is None for info in registry.plugins()] == [False, True]
    assert len(complaints()) == 1


async def test_a_distribution_without_metadata_hinders_nobody(
    distributions, journal, tmp_path, complaints
):
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("torn", {"torn": "acme_plugin:Plugin"})
    (tmp_path / "site" / "torn-1.0.dist-info" / "METADATA").unlink()
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        assert {"mine", "torn"} >= set(names(registry)) >= {"mine"}
        assert registry.dispatch("go")["mine"] is Trigger.STARTED


async def test_of_a_refused_plugin_nothing_stays_registered(distributions, journal, score):
    distributions.install(
        "acme",
        {"mine": "acme_plugin:Wrong"},
        acme_plugin=PLUGIN
        + """
    class Wrong(Plugin):
        @hookimpl
        def on_tomorrow(self):
            pass
        """,
    )
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
        await registry.emit_score(score("a"))
    assert journal == [{}]


@pytest.mark.parametrize("before", ["", "def make(table): "], ids=["import", "factory"])
async def test_a_keyboard_interrupt_passes_while_plugins_load(before, distributions, complaints):
    source = f"{before}raise KeyboardInterrupt"
    distributions.install("bad", {"bad": "bad_plugin:make"}, bad_plugin=source)
    async with Registry(StubMind(), {}) as registry:
        with pytest.raises(KeyboardInterrupt):
            registry.load_entry_points()
    assert complaints() == []
