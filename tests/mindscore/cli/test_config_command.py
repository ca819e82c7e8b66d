"""``mindscore config``: where the settings come from, and what they are."""

import tomllib

import pytest

DEFAULTS = {
    "server": {
        "scorer": "local",
        "base_url": "",
        "base_urls": [],
        "model": "smollm2",
        "adapter": "",
        "tokenizer": "",
        "chat_template": "auto",
        "api_key_env": "MINDSCORE_API_KEY",
        "api_key_file": "",
        "timeout_s": 300.0,
        "deadline_s": 900.0,
        "max_attempts": 5,
        "breaker_failures": 3,
        "max_response_mb": 256,
        "allow_insecure": False,
        "concurrency": 4,
        "priority": 5,
        "self_test": True,
        "require_images": False,
        "device": "auto",
        "dtype": "auto",
        "cache_mb": "auto",
    },
    "memory": {
        "interval_s": 3600,
        "response_window": 50,
        "token_cutoff": 0.6,
        "min_divergence": 0.01,
        "ewma_alpha": 0.3,
        "noise_repeats": "auto",
        "screen": "off",
        "screen_from": 100,
        "screen_confirm_nats": 0.5,
        "screen_sample": 8,
    },
    "finetune": {
        "threshold": 1.0,
        "window_fraction": 0.5,
        "prior_messages": 2,
        "generate_alternates": False,
        "max_alternate_tokens": 256,
    },
    "store": {"url": "", "namespace": "default", "retention_days": 90.0, "keep_texts": True},
    "train": {
        "sink": "http",
        "context": "bare",
        "guard": 0.05,
        "folder": "",
        "format": "input_ids",
    },
    "advise": {
        "confidence": 0.95,
        "min_conversations": 30,
        "drop_below_nats": 0.2,
        "stake_nats": 3.0,
        "merge_share": 0.5,
    },
    "ray": {"folder": "", "workers": 0},
    "live": {"candidates": False, "tokens_per_hour": 0},
    "plugins": {"disabled": [], "listener_timeout_s": 30.0},
}
"""Section 6 of the contract, but for the tables that are empty there."""


@pytest.fixture
def users_own(tmp_path):
    """The file in the user's configuration folder; not there yet."""
    return tmp_path / "config" / "mindscore" / "config.toml"


def filled(tables):
    """The tables of ``tables``, less what is empty."""
    return {
        name: {key: value for key, value in table.items() if value != {}}
        for name, table in tables.items()
    }


def shown(cli, *arguments):
    ran = cli("config", "show", *arguments)
    assert (ran.status, ran.err) == (0, "")
    return tomllib.loads(ran.out)


# -- path -----------------------------------------------------------------------------------------


def test_path_names_the_users_own_file_whether_it_is_there_or_not(cli, users_own):
    ran = cli("config", "path")
    assert (ran.status, ran.out, ran.err) == (0, f"{users_own}\n", "")
    cli("config", "init")
    assert cli("config", "path").out == f"{users_own}\n"


def test_path_names_the_file_of_the_environment_and_before_it_the_option(
    cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINDSCORE_CONFIG", str(tmp_path / "env.toml"))
    assert cli("config", "path").out == f"{tmp_path / 'env.toml'}\n"
    assert cli("config", "path", "--config", "mine.toml").out == "mine.toml\n"


def test_an_empty_variable_of_the_environment_is_none(cli, users_own, monkeypatch):
    monkeypatch.setenv("MINDSCORE_CONFIG", "")
    assert cli("config", "path").out == f"{users_own}\n"


# -- init -----------------------------------------------------------------------------------------


def test_init_writes_the_defaults_of_the_contract_into_the_users_own_file(cli, users_own):
    ran = cli("config", "init")
    assert (ran.status, ran.out, ran.err) == (0, f"{users_own}\n", "")
    assert filled(tomllib.loads(users_own.read_text(encoding="utf-8"))) == DEFAULTS


@pytest.mark.parametrize("by", ["option", "environment"])
def test_init_writes_the_file_that_is_named_and_makes_its_folder(
    by, cli, tmp_path, users_own, monkeypatch
):
    file = tmp_path / "new" / "folder" / "mine.toml"
    if by == "environment":
        monkeypatch.setenv("MINDSCORE_CONFIG", str(file))
    ran = cli("config", "init", *(["--config", file] if by == "option" else []))
    assert (ran.status, ran.out) == (0, f"{file}\n")
    assert filled(tomllib.loads(file.read_text(encoding="utf-8"))) == DEFAULTS
    assert not users_own.exists()


def test_init_leaves_a_file_that_is_there(cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[memory]\ninterval_s = 1\n")
    ran = cli("config", "init", "--config", file)
    assert (ran.status, ran.out) == (2, "")
    assert str(file) in ran.error
    assert "--force" in ran.error
    assert file.read_text() == "[memory]\ninterval_s = 1\n"


def test_init_replaces_a_file_when_it_is_forced_to(cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[memory]\ninterval_s = 1\n")
    assert cli("config", "init", "--config", file, "--force").status == 0
    assert filled(tomllib.loads(file.read_text())) == DEFAULTS


def test_init_says_that_it_cannot_write(cli, tmp_path):
    (tmp_path / "file").touch()
    ran = cli("config", "init", "--config", tmp_path / "file" / "mine.toml")
    assert (ran.status, ran.out) == (2, "")
    assert "mine.toml: cannot be written" in ran.error


def test_what_init_writes_is_valid_and_changes_nothing(cli, users_own):
    before = shown(cli)
    cli("config", "init")
    assert cli("config", "check").out == f"{users_own}: valid\n"
    assert shown(cli) == before


# -- show -----------------------------------------------------------------------------------------


def test_show_prints_the_defaults_where_there_is_no_file(cli):
    assert filled(shown(cli)) == DEFAULTS


def test_show_prints_what_the_file_says_and_the_defaults_besides(cli, users_own):
    users_own.parent.mkdir(parents=True)
    users_own.write_text('[store]\nnamespace = "nora"\n[plugins.settings.mine]\nsize = 3\n')
    tables = shown(cli)
    assert tables["store"] == {**DEFAULTS["store"], "namespace": "nora"}
    assert tables["plugins"]["settings"] == {"mine": {"size": 3}}
    assert tables["memory"] == DEFAULTS["memory"]


def test_the_option_goes_before_the_environment_and_that_before_the_users_own(
    cli, users_own, tmp_path, monkeypatch
):
    users_own.parent.mkdir(parents=True)
    for file in (users_own, tmp_path / "env.toml", tmp_path / "option.toml"):
        file.write_text(f'[store]\nnamespace = "{file.stem}"\n')
    assert shown(cli)["store"]["namespace"] == "config"
    monkeypatch.setenv("MINDSCORE_CONFIG", str(tmp_path / "env.toml"))
    assert shown(cli)["store"]["namespace"] == "env"
    mine = ["--config", tmp_path / "option.toml"]
    assert shown(cli, *mine)["store"]["namespace"] == "option"


@pytest.mark.parametrize(
    "name", ["config.toml", "mindscore.toml", ".mindscore.toml", "mindscore/config.toml"]
)
def test_a_file_in_the_current_folder_is_never_read(name, cli, tmp_path, monkeypatch):
    file = tmp_path / "clone" / name
    file.parent.mkdir(parents=True)
    file.write_text('[server]\nbase_url = "http://attacker.example"\n')
    monkeypatch.chdir(tmp_path / "clone")
    assert filled(shown(cli)) == DEFAULTS
    assert cli("config", "check").out == "no configuration file: the defaults apply\n"


ASSIGNED = {
    "number": ("memory.token_cutoff=0.5", ("memory", "token_cutoff"), 0.5),
    "integer": ("memory.response_window=7", ("memory", "response_window"), 7),
    "integer for a float": ("server.timeout_s=5", ("server", "timeout_s"), 5.0),
    "string in quotes": ('server.model="tiny"', ("server", "model"), "tiny"),
    "string without quotes": ("server.model=tiny", ("server", "model"), "tiny"),
    "string that is a number": ("server.model=1.5", ("server", "model"), "1.5"),
    "string that is a bool": ("store.namespace=true", ("store", "namespace"), "true"),
    "string with an equals sign": ("server.base_url=http://h/?a=b", ("server", "base_url"), "http://h/?a=b"),
    "empty string": ("server.base_url=", ("server", "base_url"), ""),
    "bool": ("finetune.generate_alternates=true", ("finetune", "generate_alternates"), True),
    "array": ('plugins.disabled=["a", "b"]', ("plugins", "disabled"), ["a", "b"]),
    "table": ("server.options={a = 1}", ("server", "options"), {"a": 1}),
    "into a free table": ("server.options.a.b=1", ("server", "options"), {"a": {"b": 1}}),
    "into a plugin's table": ("plugins.settings.p.q=x", ("plugins", "settings"), {"p": {"q": "x"}}),
}  # fmt: skip


@pytest.mark.parametrize(("assignment", "path", "value"), ASSIGNED.values(), ids=ASSIGNED)
def test_an_assignment_is_read_as_toml_if_it_fits_and_else_as_a_string(
    assignment, path, value, cli
):
    table, key = path
    found = shown(cli, "--set", assignment)[table][key]
    assert found == value
    assert type(found) is type(value)


def test_assignments_go_before_the_file_and_the_last_one_before_the_others(cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[memory]\ninterval_s = 1\nresponse_window = 7\n")
    assigned = ["--set", "memory.interval_s=2", "--set", "memory.interval_s=3"]
    memory = shown(cli, "--config", file, *assigned)["memory"]
    assert (memory["interval_s"], memory["response_window"]) == (3, 7)


def test_an_integer_serves_as_a_float_in_a_file(cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[server]\ntimeout_s = 5\n")
    assert shown(cli, "--config", file)["server"]["timeout_s"] == 5.0


def test_the_api_key_is_not_shown(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", "sk-secret")
    (tmp_path / "key").write_text("sk-filed")
    ran = cli("config", "show", "--set", f"server.api_key_file={tmp_path / 'key'}")
    assert ran.status == 0
    assert "sk-" not in ran.out


# -- check ----------------------------------------------------------------------------------------


def test_check_says_which_file_is_valid(cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[memory]\ninterval_s = 1\n")
    ran = cli("config", "check", "--config", file)
    assert (ran.status, ran.out, ran.err) == (0, f"{file}: valid\n", "")


def test_check_says_that_there_is_no_file(cli):
    ran = cli("config", "check")
    assert (ran.status, ran.err) == (0, "")
    assert "defaults" in ran.out


def test_an_empty_file_is_valid(cli, tmp_path):
    (tmp_path / "mine.toml").touch()
    assert cli("config", "check", "--config", tmp_path / "mine.toml").status == 0
    assert filled(shown(cli, "--config", tmp_path / "mine.toml")) == DEFAULTS


def test_check_looks_at_assignments_too(cli):
    ran = cli("config", "check", "--set", "memory.interval_s=-1")
    assert ran.status == 2
    assert "memory.interval_s" in ran.error


@pytest.mark.parametrize("action", ["check", "show"])
def test_a_file_of_the_environment_that_is_not_there_is_an_error(
    action, cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINDSCORE_CONFIG", str(tmp_path / "gone.toml"))
    ran = cli("config", action)
    assert (ran.status, ran.out) == (2, "")
    assert f"{tmp_path / 'gone.toml'}: cannot be read" in ran.error


@pytest.mark.parametrize("action", ["check", "show"])
def test_a_wrong_file_is_named_with_the_key_and_what_was_expected(action, cli, users_own):
    users_own.parent.mkdir(parents=True)
    users_own.write_text("[memory]\ninterval_s = -1\n")
    ran = cli("config", action)
    assert (ran.status, ran.out) == (2, "")
    for word in (str(users_own), "memory.interval_s", ">= 0"):
        assert word in ran.error


def test_the_users_own_file_is_what_score_reads(cli, users_own, talk):
    users_own.parent.mkdir(parents=True)
    users_own.write_text('[server]\nscorer = "toy"\n')
    ran = cli("score", talk, "--json")
    assert (ran.status, ran.document["model"]) == (0, "toy")


def test_the_real_command_writes_checks_and_shows(command, tmp_path):
    mine = ["--config", tmp_path / "mine.toml"]
    assert command("config", "init", *mine).status == 0
    assert command("config", "check", *mine).status == 0
    ran = command("config", "show", *mine)
    assert (ran.status, ran.err) == (0, "")
    assert filled(tomllib.loads(ran.out)) == DEFAULTS
