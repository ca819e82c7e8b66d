"""Where the configuration comes from: files, ``--set`` and the environment (section 6)."""

import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore._util.errors import ConfigError
from mindscore.config.file import (
    dump,
    load_configuration,
    named_config_file,
    read_api_key,
    user_config_file,
)
from mindscore.config.settings import ServerSettings, Settings, parse_settings

SECRET = "sk-very-secret"


@pytest.fixture
def config(tmp_path):
    """Write a configuration file whose ``server.model`` is its name, and return its path."""

    def write(name, text=None, folder=tmp_path):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'[server]\nmodel = "{name}"\n' if text is None else text)
        return file

    return write


@pytest.fixture
def own(config):
    """Write the file in the user's configuration folder."""
    return config("config.toml", folder=user_config_file().parent)


def refusal(file, *assignments):
    """Return the text of the error that loading ends in, which is one line."""
    with pytest.raises(ConfigError) as caught:
        load_configuration(file, assignments)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def model(given=None):
    return load_configuration(given).settings.server.model


# Which file is read.


def test_without_any_file_the_defaults_hold():
    found = load_configuration(None)

    assert (found.settings, dict(found.tables), found.file) == (Settings(), {}, None)


def test_the_users_own_file_is_read(own):
    assert model() == "config.toml"
    assert load_configuration(None).file == own


def test_the_users_own_file_is_in_the_users_configuration_folder(tmp_path):
    assert user_config_file() == tmp_path / "config" / "mindscore" / "config.toml"


def test_the_environments_file_beats_the_users_own(own, config, monkeypatch):
    monkeypatch.setenv("MINDSCORE_CONFIG", str(config("environment")))

    assert model() == "environment"


def test_the_given_file_beats_the_environments(own, config, monkeypatch):
    monkeypatch.setenv("MINDSCORE_CONFIG", str(config("environment")))

    assert model(config("given")) == "given"


def test_only_one_file_is_read(own, config, monkeypatch):
    own.write_text("not TOML")
    monkeypatch.setenv("MINDSCORE_CONFIG", "/no/such/file")

    assert load_configuration(config("given", "")).settings == Settings()


def test_an_empty_environment_variable_names_no_file(own, monkeypatch):
    monkeypatch.setenv("MINDSCORE_CONFIG", "")

    assert model() == "config.toml"


@pytest.mark.parametrize(
    "name",
    ["config.toml", "mindscore.toml", ".mindscore.toml", "mindscore/config.toml", "pyproject.toml"],
)
def test_a_file_in_the_current_folder_is_never_read(name, config, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    config(name, '[server]\nbase_url = "http://elsewhere"\n', folder=clone)
    monkeypatch.chdir(clone)

    assert named_config_file(None) == user_config_file()
    assert load_configuration(None).settings == Settings()


def test_a_given_file_that_is_missing_is_an_error(own, tmp_path):
    text = refusal(tmp_path / "missing.toml")

    assert text.startswith(f"{tmp_path / 'missing.toml'}: ")
    assert "No such file" in text


def test_an_environments_file_that_is_missing_is_an_error(own, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSCORE_CONFIG", str(tmp_path / "missing.toml"))

    assert refusal(None).startswith(f"{tmp_path / 'missing.toml'}: ")


@pytest.mark.parametrize("named_by", ["argument", "environment"])
def test_the_users_own_file_is_an_error_too_where_it_is_named_but_missing(named_by, monkeypatch):
    file = user_config_file()
    if named_by == "environment":
        monkeypatch.setenv("MINDSCORE_CONFIG", str(file))

    assert refusal(file if named_by == "argument" else None).startswith(f"{file}: ")


def test_a_folder_instead_of_a_file_is_an_error(tmp_path):
    text = refusal(tmp_path)

    assert text.startswith(f"{tmp_path}: ")
    assert "directory" in text


# What is in it.


def test_the_tables_are_the_files_own(config):
    text = '[memory]\ninterval_s = 5\n[plugins.settings.acme]\nx = "y"\n'

    found = load_configuration(config("given", text))

    assert found.tables == tomllib.loads(text)
    assert found.settings.memory.interval_s == 5
    assert found.settings.plugins.settings == {"acme": {"x": "y"}}


@pytest.mark.parametrize("text", ["[server", "a = ", "a = 1\na = 2", "= 1", "a = 'x\ny'", '"\n"=1'])
def test_a_file_that_is_not_toml_is_an_error_that_names_file_and_place(text, config):
    file = config("given", text)

    said = refusal(file)

    assert said.startswith(f"{file}: not valid TOML: ")
    assert "line" in said or "end of document" in said


def test_a_file_that_is_not_utf_8_is_an_error_that_names_it(config):
    file = config("given")
    file.write_bytes(b'[server]\nmodel = "\xff"\n')

    assert refusal(file).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("srever = 1", "srever: unknown key; did you mean 'server'?"),
        ("[server]\nmodle = 1", "server.modle: unknown key; did you mean 'model'?"),
        ("[memory]\ninterval_s = '5'", "memory.interval_s: expected a number, got a string"),
        ("[memory]\ninterval_s = nan", "memory.interval_s: expected a number"),
        ("[server]\ntimeout_s = inf", "server.timeout_s: expected a number"),
        ("[server]\nmodel = 2026-01-01", "server.model: expected a string"),
        ('[server]\n"a\\nb" = 1', "server."),
    ],
)
@pytest.mark.parametrize("named_by", ["argument", "environment", "folder"])
def test_an_error_in_a_file_names_the_file_too(text, expected, named_by, config, own, monkeypatch):
    own.write_text(text)
    given = own if named_by == "argument" else None
    if named_by == "environment":
        monkeypatch.setenv("MINDSCORE_CONFIG", str(own))

    assert refusal(given).startswith(f"{own}: {expected}")


# --set


@pytest.mark.parametrize(
    ("assignment", "tables"),
    [
        ("memory.interval_s=5", {"memory": {"interval_s": 5}}),
        ("memory.interval_s=0.5", {"memory": {"interval_s": 0.5}}),
        ("memory.interval_s = 5 ", {"memory": {"interval_s": 5}}),
        ("memory.interval_s=5 # often", {"memory": {"interval_s": 5}}),
        ("finetune.generate_alternates=true", {"finetune": {"generate_alternates": True}}),
        ("server.model=m", {"server": {"model": "m"}}),
        ("server.model='m'", {"server": {"model": "m"}}),
        ('server.model="m"', {"server": {"model": "m"}}),
        ("server.model=a b", {"server": {"model": "a b"}}),
        ("server.model=", {"server": {"model": ""}}),
        ("server.model=a=b", {"server": {"model": "a=b"}}),
        # TOML, but not what the key takes: a string.
        ("server.model=123", {"server": {"model": "123"}}),
        ("server.model=true", {"server": {"model": "true"}}),
        ("server.model=1e5", {"server": {"model": "1e5"}}),
        ("server.model=nan", {"server": {"model": "nan"}}),
        ("server.model=2026-01-01", {"server": {"model": "2026-01-01"}}),
        ("server.model=[1]", {"server": {"model": "[1]"}}),
        ("server.base_url=http://h:1/v1", {"server": {"base_url": "http://h:1/v1"}}),
        ("store.url=sqlite:////a/b", {"store": {"url": "sqlite:////a/b"}}),
        ('plugins.disabled=["a", "b"]', {"plugins": {"disabled": ["a", "b"]}}),
        ("plugins.disabled=[]", {"plugins": {"disabled": []}}),
        ("plugins.settings.x.y=1", {"plugins": {"settings": {"x": {"y": 1}}}}),
        ("plugins.settings.x.y=z", {"plugins": {"settings": {"x": {"y": "z"}}}}),
        ("plugins.settings.x={y = 1}", {"plugins": {"settings": {"x": {"y": 1}}}}),
        ('plugins.settings."a.b".c=1', {"plugins": {"settings": {"a.b": {"c": 1}}}}),
        ("server.options.a.b=true", {"server": {"options": {"a": {"b": True}}}}),
        ("server={model = 'm'}", {"server": {"model": "m"}}),
    ],
)
def test_set_reads_toml_where_it_fits_else_a_string(assignment, tables):
    found = load_configuration(None, [assignment])

    assert found.tables == tables
    assert found.settings == parse_settings(tables)


def test_set_beats_the_file_and_leaves_the_rest_of_it(config):
    file = config("given", '[server]\nmodel = "file"\npriority = 7\n[memory]\ninterval_s = 9\n')

    settings = load_configuration(file, ["server.model=set"]).settings

    assert (settings.server.model, settings.server.priority) == ("set", 7)
    assert settings.memory.interval_s == 9


def test_the_last_set_of_a_key_wins():
    settings = load_configuration(None, ["server.model=one", "server.model=two"]).settings

    assert settings.server.model == "two"


def test_sets_of_different_keys_add_up():
    sets = ["plugins.settings.x.a=1", "plugins.settings.x.b=2", "plugins.settings.y.a=3"]

    assert load_configuration(None, sets).settings.plugins.settings == {
        "x": {"a": 1, "b": 2},
        "y": {"a": 3},
    }


def test_set_replaces_a_list(config):
    file = config("given", '[plugins]\ndisabled = ["a", "b"]\n')

    found = load_configuration(file, ['plugins.disabled=["c"]'])

    assert found.settings.plugins.disabled == ["c"]


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("memory.interval_s=soon", "memory.interval_s: expected a number, got a string"),
        ("memory.interval_s=nan", "memory.interval_s: expected a number"),
        ("memory.interval_s=-1", "memory.interval_s: expected a number >= 0"),
        ("memory.interval_s=", "memory.interval_s: expected a number, got a string"),
        ("memory.interval_s=true", "memory.interval_s: expected a number, got true or false"),
        ("server.modle=m", "server.modle: unknown key; did you mean 'model'?"),
        ("nope=1", "nope: unknown key"),
        ("server=1", "server: expected a table"),
        ("server.model.x=1", "server.model: expected a string"),
        ("plugins.disabled=memory-scoring", "plugins.disabled: expected an array"),
        ("server.chat_template=llama", "server.chat_template: expected 'chatml'"),
    ],
)
def test_a_set_that_does_not_fit_is_an_error_that_names_key_and_type(assignment, expected):
    text = refusal(None, assignment)

    assert text.startswith("--set ")
    assert expected in text


@pytest.mark.parametrize(
    "assignment",
    ["", "=", "=1", "server", "server.model", ".model=m", "server.=m", "a b=1", "server..model=m"],
)
def test_a_set_without_a_key_or_a_value_is_an_error_that_shows_the_form(assignment):
    assert "KEY=VALUE" in refusal(None, assignment)


SMUGGLED = [
    "memory.interval_s=5\n[server]\nbase_url='http://elsewhere'",
    "memory.interval_s=5\nmemory.response_window=9",
    "server\n.model=m",
    "[server]\nmodel=m",
    "[server]\r\nmodel=m",
    "x=1\n[server]\nmodel=m",
    '"a\\nb"=1',
    '"a\nb"=1',
]


@pytest.mark.parametrize("assignment", SMUGGLED)
def test_a_set_cannot_bring_in_more_than_its_own_key(assignment):
    with pytest.raises(ConfigError):
        load_configuration(None, [assignment])


@pytest.mark.parametrize("assignment", [it for it in SMUGGLED if not it.startswith("[")])
def test_a_set_with_line_breaks_in_it_is_refused_in_one_line(assignment):
    assert refusal(None, assignment).startswith("--set ")


def test_a_line_break_in_a_string_that_is_set_stays_in_the_string():
    settings = load_configuration(None, ["server.model=m\n[memory]\ninterval_s=1"]).settings

    assert settings == parse_settings({"server": {"model": "m\n[memory]\ninterval_s=1"}})


def test_a_key_that_somebody_tries_to_set_is_not_echoed():
    assert SECRET not in refusal(None, f"server.api_key={SECRET}")


# Out and in again.

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
# No file's name holds NUL.
FILE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
URL = st.just("") | FILE.map("sqlite:///{}".format)
FINITE = st.floats(min_value=0, max_value=1e9)
FRACTION = st.floats(min_value=0, max_value=1)
COUNT = st.integers(min_value=1, max_value=2**53)
SECONDS = st.integers(min_value=1, max_value=10**9)
ANYTHING = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FREE = st.dictionaries(TEXT, ANYTHING, max_size=3)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "server": st.fixed_dictionaries(
            {},
            optional={
                "scorer": NAME,
                "base_url": TEXT,
                "model": TEXT,
                "tokenizer": TEXT,
                "chat_template": st.sampled_from(["chatml", "auto"]),
                "api_key_env": TEXT,
                "api_key_file": TEXT,
                "timeout_s": FINITE.filter(bool) | SECONDS,
                "deadline_s": FINITE.filter(bool),
                "max_attempts": COUNT,
                "breaker_failures": COUNT,
                "max_response_mb": COUNT,
                "allow_insecure": st.booleans(),
                "concurrency": COUNT,
                "priority": st.integers(-(2**63), 2**63 - 1),
                "self_test": st.booleans(),
                "require_images": st.booleans(),
                "device": st.sampled_from(["auto", "cpu", "cuda:1", "mps"]),
                "dtype": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
                "cache_mb": COUNT | st.sampled_from([0, "auto"]),
                "options": FREE,
            },
        ),
        "memory": st.fixed_dictionaries(
            {},
            optional={
                "interval_s": FINITE | SECONDS,
                "response_window": COUNT,
                "token_cutoff": FRACTION,
                "min_divergence": FINITE,
                "ewma_alpha": FRACTION.filter(bool),
                "noise_repeats": COUNT | st.sampled_from([0, "auto"]),
                "screen": st.sampled_from(["off", "auto", "on"]),
                "screen_from": COUNT,
                "screen_confirm_nats": FINITE.filter(bool),
                "screen_sample": COUNT,
            },
        ),
        "finetune": st.fixed_dictionaries(
            {},
            optional={
                "threshold": FINITE,
                "window_fraction": FRACTION,
                "prior_messages": COUNT | st.just(0),
                "generate_alternates": st.booleans(),
                "max_alternate_tokens": COUNT,
            },
        ),
        "store": st.fixed_dictionaries(
            {}, optional={"url": URL, "namespace": NAME, "retention_days": FINITE}
        ),
        "plugins": st.fixed_dictionaries(
            {},
            optional={
                "disabled": st.lists(TEXT, max_size=3),
                "listener_timeout_s": st.floats(min_value=0, max_value=1e6, exclude_min=True),
                # Our own plugins' tables are checked: any other's is its own.
                "settings": st.dictionaries(TEXT.map("its-{}".format), FREE, max_size=3),
            },
        ),
    },
)


@given(TABLES)
def test_settings_that_are_dumped_and_parsed_again_are_the_same(tables):
    settings = parse_settings(tables)

    text = dump(settings)

    assert parse_settings(tomllib.loads(text)) == settings


@given(TABLES)
def test_settings_hold_what_the_tables_say(tables):
    settings = parse_settings(tables)

    for table, keys in tables.items():
        for key, value in keys.items():
            assert getattr(getattr(settings, table), key) == value


@pytest.mark.parametrize(
    "value",
    [date(2026, 3, 1), time(10, 30), datetime(2026, 3, 1, 10, 30, tzinfo=UTC)],
    ids=lambda value: type(value).__name__,
)
def test_a_date_or_time_in_a_plugins_table_is_dumped_as_what_it_is(value):
    settings = parse_settings({"plugins": {"settings": {"mine": {"when": value}}}})

    assert parse_settings(tomllib.loads(dump(settings))) == settings


def test_every_key_is_dumped():
    dumped = tomllib.loads(dump(Settings()))

    assert {table: set(keys) for table, keys in dumped.items()} == {
        table: set(getattr(Settings(), table).__struct_fields__)
        for table in Settings().__struct_fields__
    }


# The API key.


@pytest.fixture
def key_file(tmp_path):
    """Write a key file, and return the settings that name it."""

    def write(content, **settings):
        file = tmp_path / "key"
        file.touch(mode=0o600)
        file.write_bytes(content)
        return ServerSettings(api_key_file=str(file), **settings)

    return write


def key_refusal(settings):
    with pytest.raises(ConfigError) as caught:
        read_api_key(settings)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert SECRET not in text
    return text


def test_without_an_environment_variable_and_a_file_there_is_no_key():
    assert read_api_key(ServerSettings()) is None


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)

    assert read_api_key(ServerSettings()) == SECRET


def test_the_key_comes_from_the_environment_variable_that_the_settings_name(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", "another")
    monkeypatch.setenv("MY_KEY", SECRET)

    assert read_api_key(ServerSettings(api_key_env="MY_KEY")) == SECRET


def test_no_environment_variable_is_read_where_the_settings_name_none(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)

    assert read_api_key(ServerSettings(api_key_env="")) is None


def test_the_key_comes_from_the_file(key_file):
    assert read_api_key(key_file(SECRET.encode())) == SECRET


def test_the_file_wins_over_the_environment(key_file, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", "another")

    assert read_api_key(key_file(SECRET.encode())) == SECRET


@pytest.mark.parametrize("around", ["{}\n", "  {}", "\t{}\r\n", "\n\n{}\n\n"])
def test_white_space_around_the_key_is_no_part_of_it(around, key_file, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", around.format("from-environment"))

    assert read_api_key(key_file(around.format(SECRET).encode())) == SECRET
    assert read_api_key(ServerSettings()) == "from-environment"


@pytest.mark.parametrize("value", ["", " \t "])
def test_an_environment_variable_without_a_key_in_it_gives_none(value, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", value)

    assert read_api_key(ServerSettings()) is None


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n"])
def test_an_empty_key_file_is_an_error_that_names_it(content, key_file, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)
    settings = key_file(content)

    text = key_refusal(settings)

    assert "server.api_key_file" in text
    assert settings.api_key_file in text
    assert "empty" in text


def test_a_key_file_that_is_missing_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)

    text = key_refusal(ServerSettings(api_key_file=str(tmp_path / "missing")))

    assert "server.api_key_file" in text
    assert str(tmp_path / "missing") in text
    assert "No such file" in text


def test_a_folder_instead_of_a_key_file_is_an_error_that_names_it(tmp_path):
    text = key_refusal(ServerSettings(api_key_file=str(tmp_path)))

    assert str(tmp_path) in text
    assert "directory" in text


def test_a_key_file_that_is_not_utf_8_is_an_error_without_what_it_holds(key_file):
    assert "server.api_key_file" in key_refusal(key_file(SECRET.encode() + b"\xff"))


UNFIT = [
    f"{SECRET}\nX-Evil: 1",
    f"{SECRET}\x7f",
    f"{SECRET}\x1b[31m",
    f"é{SECRET}",
    f"{SECRET}\u2028x",
]


@pytest.mark.parametrize("key", [*UNFIT, f"{SECRET}\x00"])
def test_a_key_in_a_file_that_no_header_can_carry_is_an_error_without_it(key, key_file):
    settings = key_file(key.encode())

    text = key_refusal(settings)

    assert settings.api_key_file in text
    assert "header" in text


@pytest.mark.parametrize("key", UNFIT)
def test_a_key_in_the_environment_that_no_header_can_carry_is_an_error_without_it(key, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", key)

    text = key_refusal(ServerSettings())

    assert "MINDSCORE_API_KEY" in text
    assert "header" in text


def test_the_key_is_in_no_dump(key_file):
    settings = key_file(SECRET.encode())
    read_api_key(settings)

    assert Path(settings.api_key_file).read_text() == SECRET
    assert SECRET not in dump(Settings(server=settings))


def test_a_file_without_end_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"/dev/zero: cannot be read: it is over 1 MiB"):
        load_configuration(Path("/dev/zero"))


def test_a_store_whose_name_holds_nul_is_an_error_that_names_file_and_key(config):
    file = config("c.toml", '[store]\nurl = "sqlite:////tmp/a\\u0000b"\n')
    with pytest.raises(ConfigError, match=r"store\.url: a file's name holds no NUL") as caught:
        load_configuration(file)
    assert str(file) in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_store_whose_name_is_not_utf8_is_an_error_that_names_the_key():
    with pytest.raises(ConfigError, match=r"--set store\.url: the value is not UTF-8"):
        load_configuration(None, ["store.url=sqlite:////tmp/\udcff"])
