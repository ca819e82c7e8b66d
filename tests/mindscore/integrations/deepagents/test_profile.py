"""The harness profile, switched off or wrong; deepagents itself is in tests/hosts."""

import logging
import sys

import pytest

from mindscore.integrations import deepagents


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Makes a configuration with lines of ``[plugins.settings.deepagents]``."""

    def make(lines):
        file = tmp_path / "config.toml"
        file.write_text(f"[plugins.settings.deepagents]\n{lines}\n")
        monkeypatch.setenv("MINDSCORE_CONFIG", str(file))

    # Whoever imports it, registers a profile: this says so.
    monkeypatch.setitem(sys.modules, "deepagents", None)
    return make


@pytest.mark.parametrize("lines", ["", "enabled = false", "every_turns = 3"])
def test_an_installed_package_does_nothing_by_itself(configured, caplog, lines):
    configured(lines)
    deepagents.register()
    assert caplog.messages == []
    assert deepagents.mind() is None


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("enable = true", "plugins.settings.deepagents.enable: unknown key; did you mean"),
        ("enabled = 1", "plugins.settings.deepagents.enabled: expected true or false"),
        ('providers = "openai"', "plugins.settings.deepagents.providers: expected an array"),
        ("enabled =", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_a_line_in_the_log(configured, caplog, lines, says):
    caplog.set_level(logging.WARNING, logger="mindscore")
    configured(lines)
    deepagents.register()
    [line] = caplog.messages
    assert line.startswith("deep agents are not scored: ")
    assert says in line
    assert len(line.splitlines()) == 1


def test_it_is_registered_where_it_is_switched_on(configured):
    configured("enabled = true")
    with pytest.raises(ImportError):
        deepagents.register()
