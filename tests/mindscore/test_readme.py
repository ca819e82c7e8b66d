"""The README's examples run, and its table states the defaults."""

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindhooks import Context, Node, Registry, Role
from mindhooks.testing import StubMind
from mindscore.config.settings import Settings, parse_settings

README = (Path(__file__).parents[2] / "README.md").read_text()
ATTACHED, HOST, PLUGIN = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(code: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def conversation() -> Context:
    memory = Node("m", Role.MEMORY, "", (1, 2, 3), memory_key="tea")
    asked = Node("u", Role.USER, "", (9,))
    answer = Node("a", Role.ASSISTANT, "", (8, 2, 3), body=(1, 3))
    return Context((), (memory,), (asked, answer))


def test_an_agent_with_a_client_is_scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the real client, tests/hosts/openai_client.py runs it; here somebody answers for it."""
    answer = SimpleNamespace(message=SimpleNamespace(content="Some rooibos, and a walk with Max."))
    completions = SimpleNamespace(create=lambda **_: SimpleNamespace(choices=[answer]))
    client = SimpleNamespace(chat=SimpleNamespace(completions=completions))
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(OpenAI=lambda: client))
    config = tmp_path / "config.toml"
    config.write_text('[server]\nscorer = "toy"\n[memory]\ntoken_cutoff = 1.0\n')
    monkeypatch.setenv("MINDSCORE_CONFIG", str(config))
    names = run(ATTACHED)
    mind = names["mind"]
    with mind:
        names["say"]("What shall I do?")
        assert mind.registry.wait_idle(30)
        found = mind.score("score-full").result(30)
    assert {key for key, score in found.scores.items() if score.score > 1} == {"tea", "dog"}


async def test_the_host_scores_its_memories(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(HOST)
    await names["run"](names["Agent"](conversation()))
    out = capsys.readouterr().out
    assert "{'memory-scoring': <Trigger.STARTED: 'started'>}" in out
    assert re.search(r"^scoring: 1/1 tea$", out, flags=re.MULTILINE)
    assert re.search(r"^tea: [\d.]+ nats$", out, flags=re.MULTILINE)


async def test_the_plugin_collects_memories_and_answers_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin = run(PLUGIN)["Unused"]({"floor": 1e9})
    async with Registry(StubMind(conversation()), {"server": {"scorer": "toy"}}) as registry:
        registry.load_entry_points()
        registry.register(plugin, name="unused")
        registry.dispatch("score")
        await registry.wait_idle()
        registry.dispatch("unused")
        await registry.wait_idle()
    assert capsys.readouterr().out == "unused: tea\n"


def test_the_table_states_every_key_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+\.[\w.]+)` \| (?:`(.*?)`)? \|", README, flags=re.MULTILINE)
    stated = {key: tomllib.loads(f"it = {value}")["it"] for key, value in rows if value}
    settings = parse_settings({})
    assert isinstance(settings, Settings)
    actual = {
        f"{table}.{key}": getattr(getattr(settings, table), key)
        for table in settings.__struct_fields__
        for key in getattr(settings, table).__struct_fields__
    }
    del actual["server.options"], actual["plugins.settings"]
    assert stated == actual
