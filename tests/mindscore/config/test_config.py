"""The configuration's keys, types, ranges and defaults: section 6."""

import math
import subprocess
import sys
import tomllib
from types import MappingProxyType

import pytest

from mindhooks._registry import MAX_LISTENER_TIMEOUT_S
from mindscore._util.errors import ConfigError
from mindscore.config.settings import ServerSettings, Settings, parse_settings, parse_table

DEFAULTS = tomllib.loads("""
[server]
scorer = "local"
base_url = ""
base_urls = []
model = "smollm2"
adapter = ""
tokenizer = ""
chat_template = "auto"
api_key_env = "MINDSCORE_API_KEY"
api_key_file = ""
timeout_s = 300.0
deadline_s = 900.0
max_attempts = 5
breaker_failures = 3
max_response_mb = 256
allow_insecure = false
concurrency = 4
priority = 5
self_test = true
require_images = false
device = "auto"
dtype = "auto"
cache_mb = "auto"
[memory]
interval_s = 3600
response_window = 50
token_cutoff = 0.6
min_divergence = 0.01
ewma_alpha = 0.3
noise_repeats = "auto"
screen = "off"
screen_from = 100
screen_confirm_nats = 0.5
screen_sample = 8
[finetune]
threshold = 1.0
window_fraction = 0.5
prior_messages = 2
generate_alternates = false
max_alternate_tokens = 256
[store]
url = ""
namespace = "default"
retention_days = 90.0
keep_texts = true
[train]
sink = "http"
context = "bare"
guard = 0.05
folder = ""
format = "input_ids"
[advise]
confidence = 0.95
min_conversations = 30
drop_below_nats = 0.2
stake_nats = 3.0
merge_share = 0.5
[ray]
folder = ""
workers = 0
[live]
candidates = false
tokens_per_hour = 0
[plugins]
disabled = []
listener_timeout_s = 30.0
""")
FREE_FORM = ("server.options", "train.options", "plugins.settings")

LONGEST = {"server.timeout_s": 1e9, "server.deadline_s": 1e9}
LONGEST["plugins.listener_timeout_s"] = MAX_LISTENER_TIMEOUT_S
POSITIVE = [*LONGEST, "advise.drop_below_nats", "advise.stake_nats"]
NOT_NEGATIVE = ["memory.interval_s", "memory.min_divergence", "finetune.threshold"]
NOT_NEGATIVE += ["store.retention_days", "train.guard"]
FRACTIONS = ["memory.token_cutoff", "finetune.window_fraction", "advise.merge_share"]
FLOATS = [*POSITIVE, *NOT_NEGATIVE, *FRACTIONS, "memory.ewma_alpha"]
AT_LEAST_ONE = [
    "server.max_attempts",
    "server.breaker_failures",
    "server.max_response_mb",
    "server.concurrency",
    "memory.response_window",
    "finetune.max_alternate_tokens",
    "advise.min_conversations",
]
INTEGERS = [
    *AT_LEAST_ONE,
    "memory.screen_from",
    "memory.screen_sample",
    "finetune.prior_messages",
    "server.priority",
]
COUNTS_OR_AUTO = ["memory.noise_repeats", "server.cache_mb"]
STRINGS = [
    *(
        f"server.{name}"
        for name, value in DEFAULTS["server"].items()
        if isinstance(value, str) and f"server.{name}" not in COUNTS_OR_AUTO
    ),
    "store.url",
    "store.namespace",
    "train.sink",
    "train.folder",
]


def tables(key, value):
    """Return the nested tables that hold ``value`` at the dotted ``key``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def at(settings, key):
    for part in key.split("."):
        settings = getattr(settings, part)
    return settings


def refusal(settings):
    """Return the text of the error that ``settings`` are refused with, which is one line."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(settings)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


EVERY_DEFAULT = [
    (f"{table}.{key}", value) for table, keys in DEFAULTS.items() for key, value in keys.items()
]


@pytest.mark.parametrize(("key", "value"), EVERY_DEFAULT)
def test_a_default_is_the_contracts(key, value):
    assert at(parse_settings({}), key) == value


def test_the_defaults_written_out_change_nothing():
    assert parse_settings(DEFAULTS) == parse_settings({}) == Settings()


def test_there_is_no_key_that_the_contract_does_not_name():
    settings = Settings()
    known = {
        f"{table}.{key}" for table in settings.__struct_fields__ for key in dir_of(settings, table)
    }
    assert known == {key for key, _ in EVERY_DEFAULT} | set(FREE_FORM)


def dir_of(settings, table):
    return getattr(settings, table).__struct_fields__


@pytest.mark.parametrize("key", FREE_FORM)
def test_a_free_form_table_is_empty_by_default(key):
    assert at(Settings(), key) == {}


@pytest.mark.parametrize(
    "key", ["server.options.anything", "train.options.anything", "plugins.settings.mine.anything"]
)
@pytest.mark.parametrize("value", [1, "x", [1, "x"], {"deep": {"deeper": True}}])
def test_a_free_form_table_holds_anything(key, value):
    parsed = parse_settings(tables(key, value))

    assert parsed != Settings()
    free = parsed.server.options or parsed.train.options or parsed.plugins.settings["mine"]
    assert free == {"anything": value}


@pytest.mark.parametrize("key", ["plugins.settings.memory-scoring", "plugins.settings.x"])
def test_a_plugins_own_table_may_be_empty(key):
    assert list(parse_settings(tables(key, {})).plugins.settings.values()) == [{}]


def test_the_settings_may_be_any_mapping():
    read_only = MappingProxyType({"memory": MappingProxyType({"interval_s": 5})})

    assert parse_settings(read_only).memory.interval_s == 5


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("srever", "server"),
        ("plugin", "plugins"),
        ("server.modle", "model"),
        ("server.api_key", "api_key_env"),
        ("memory.intervals_s", "interval_s"),
        ("finetune.treshold", "threshold"),
        ("store.name_space", "namespace"),
        ("train.contexts", "context"),
        ("plugins.disable", "disabled"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_the_one_that_was_meant(key, meant):
    text = refusal(tables(key, {}))

    assert text.startswith(f"{key}: ")
    assert "unknown" in text
    assert repr(meant) in text


@pytest.mark.parametrize(
    "table", ["", "server", "memory", "finetune", "store", "train", "advise", "ray", "plugins"]
)
def test_an_unknown_key_that_resembles_none_is_told_all_that_are_known(table):
    key = f"{table}.zzz" if table else "zzz"
    known = DEFAULTS[table] if table else DEFAULTS

    text = refusal(tables(key, 1))

    assert text.startswith(f"{key}: ")
    assert all(name in text for name in known)


@pytest.mark.parametrize("key", ["a\nb", "server.a\nb", "memory.x\ny"])
def test_an_unknown_key_with_a_line_break_in_it_is_named_in_one_line(key):
    text = refusal(tables(key, 1))

    assert "unknown key" in text
    assert key.partition("\n")[0] in text


def test_a_value_of_an_unknown_key_is_not_repeated():
    assert "sk-secret" not in refusal({"server": {"api_key": "sk-secret"}})


WRONG_TYPES = [
    *((key, value, "a number") for key in FLOATS for value in ("1", True, False, [1], {})),
    *((key, value, "an integer") for key in INTEGERS for value in ("1", True, 1.0, [1], {})),
    *((key, value, "a string") for key in STRINGS for value in (1, True, ["x"], {})),
    *(("finetune.generate_alternates", value, "true or false") for value in (0, 1, "true", [])),
    *(("plugins.disabled", value, "an array") for value in ("a", 1, {"a": 1}, True)),
    *((table, value, "a table") for table in [*DEFAULTS, *FREE_FORM] for value in (1, "x", [])),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_an_error_that_names_key_and_type(key, value, expected):
    text = refusal(tables(key, value))

    assert text.startswith(f"{key}: ")
    assert f"expected {expected}" in text


def test_a_wrong_type_within_a_list_is_an_error_that_names_the_element():
    text = refusal({"plugins": {"disabled": ["a", 1]}})

    assert text.startswith("plugins.disabled[1]: ")
    assert "expected a string" in text


def test_a_plugins_table_that_is_none_is_an_error_that_names_the_plugin():
    text = refusal({"plugins": {"settings": {"fine": {}, "memory-scoring": 1}}})

    assert "plugins.settings" in text
    assert "memory-scoring" in text
    assert "expected a table" in text


OUT_OF_RANGE = [
    *((key, value, "> 0") for key in POSITIVE for value in (0, 0.0, -1, -1e-9)),
    *((key, value, ">= 0") for key in NOT_NEGATIVE for value in (-1, -1e-9)),
    *((key, value, "0") for key in FRACTIONS for value in (-0.1, -1)),
    *((key, value, "1") for key in [*FRACTIONS, "memory.ewma_alpha"] for value in (1.0001, 2)),
    *(("memory.ewma_alpha", value, "> 0") for value in (0, -0.5)),
    *((key, value, ">= 1") for key in AT_LEAST_ONE for value in (0, -1)),
    ("finetune.prior_messages", -1, ">= 0"),
    ("advise.confidence", 0.49, ">= 0.5"),
    ("advise.confidence", 1, "<= 0.999"),
    ("server.scorer", "", "length >= 1"),
    ("store.namespace", "", "length >= 1"),
    ("server.chat_template", "llama", "'chatml'"),
    ("train.sink", "", "length >= 1"),
    ("train.context", "none", "'bare' or 'full'"),
    ("train.format", "parquet", "'input_ids' or 'prompt_completion'"),
]


@pytest.mark.parametrize(("key", "value", "expected"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_an_error_that_names_key_and_range(key, value, expected):
    text = refusal(tables(key, value))

    assert text.startswith(f"{key}: ")
    assert "expected" in text
    assert expected in text


BOUNDS = [
    *((key, value) for key in POSITIVE for value in (1e-9, LONGEST.get(key, 1e9))),
    *((key, value) for key in NOT_NEGATIVE for value in (0.0, 1e9)),
    *((key, value) for key in FRACTIONS for value in (0.0, 1.0)),
    *(("memory.ewma_alpha", value) for value in (1e-9, 1.0)),
    *(("advise.confidence", value) for value in (0.5, 0.999)),
    *((key, value) for key in AT_LEAST_ONE for value in (1, 10**6)),
    *(("finetune.prior_messages", value) for value in (0, 10**6)),
    *(("server.priority", value) for value in (-3, 0, 10**6)),
]


@pytest.mark.parametrize(("key", "value"), BOUNDS)
def test_a_value_at_the_end_of_its_range_is_taken(key, value):
    assert at(parse_settings(tables(key, value)), key) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", FLOATS)
def test_a_number_that_is_not_finite_is_an_error(key, value):
    assert refusal(tables(key, value)).startswith(f"{key}: ")


@pytest.mark.parametrize("key", FLOATS)
def test_an_integer_serves_as_a_number(key):
    assert at(parse_settings(tables(key, 1)), key) == 1.0


def test_one_table_alone_is_checked_like_the_whole():
    assert parse_table({"model": "m"}, ServerSettings, "server") == ServerSettings(model="m")


@pytest.mark.parametrize(
    ("table", "key", "expected"),
    [
        ({"modle": "m"}, "server.modle", "did you mean 'model'"),
        ({"model": 5}, "server.model", "expected a string"),
        ({"timeout_s": 0}, "server.timeout_s", "> 0"),
        ({"chat_template": "llama"}, "server.chat_template", "'chatml'"),
    ],
)
def test_an_error_in_one_table_alone_names_the_key_in_full(table, key, expected):
    with pytest.raises(ConfigError) as caught:
        parse_table(table, ServerSettings, "server")

    assert str(caught.value).startswith(f"{key}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("key", COUNTS_OR_AUTO)
@pytest.mark.parametrize("value", [0, 3, "auto"])
def test_some_counts_may_be_auto(key, value):
    assert at(parse_settings(tables(key, value)), key) == value


@pytest.mark.parametrize("key", COUNTS_OR_AUTO)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("often", "expected an integer or 'auto', got 'often'"),
        (1.5, "expected an integer, got a number"),
        (-1, "expected an integer >= 0"),
    ],
)
def test_what_is_neither_is_refused(key, value, said):
    assert said in refusal(tables(key, value))


def test_another_number_format_is_refused_with_those_there_are():
    said = refusal(tables("server.dtype", "float64"))
    assert "'auto' or 'float32' or 'bfloat16' or 'float16', got 'float64'" in said


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps", "xpu:0"])
def test_a_device_is_torchs_name_of_it(device):
    assert parse_settings(tables("server.device", device)).server.device == device


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "cuda:1\nx", "CUDA"])
def test_another_device_is_refused_with_those_there_are(device):
    said = refusal(tables("server.device", device))
    assert said.startswith("server.device: expected 'auto', 'cpu', 'cuda', 'mps' or 'xpu'")


@pytest.mark.parametrize(
    ("key", "most"),
    [*LONGEST.items(), ("memory.interval_s", 1e9)],
)
def test_an_absurd_duration_is_an_error_that_names_its_key(key, most):
    table, _, name = key.partition(".")
    parse_settings({table: {name: most}})
    for absurd in (most * 1.01, 1e300):
        with pytest.raises(ConfigError, match=rf"{key}: expected .*<= {most:.0f}\b"):
            parse_settings({table: {name: absurd}})


def test_the_first_of_several_servers_is_the_one_for_a_single_conversation():
    urls = ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]

    assert ServerSettings(base_urls=urls).base_url == urls[0]
    assert ServerSettings(base_urls=urls, base_url="http://127.0.0.1:3").base_url.endswith(":3")
    assert parse_table({"base_urls": urls}, ServerSettings, "server").base_url == urls[0]


@pytest.mark.parametrize("folder", ["", "~/ray", "/mnt/ray", "s3://bucket/ray"])
def test_the_folder_of_ray_is_the_same_from_everywhere(folder):
    assert parse_settings({"ray": {"folder": folder}}).ray.folder == folder


def test_a_folder_of_ray_that_is_relative_is_refused():
    said = refusal({"ray": {"folder": "ray"}})

    assert said == "ray.folder: expected \"\", an absolute path or a URI, got 'ray'"


THREADS = """
import threading, time, msgspec._utils
real = msgspec._utils._forward_ref
msgspec._utils._forward_ref = lambda *given: time.sleep(0.001) or real(*given)
from mindscore.config.settings import parse_settings
threads = [threading.Thread(target=lambda: parse_settings({})) for _ in range(6)]
for thread in threads:
    thread.start()
    time.sleep(0.015)
for thread in threads:
    thread.join()
"""


def test_threads_that_read_the_settings_for_the_first_time_end_no_process():
    subprocess.run([sys.executable, "-c", THREADS], check=True, timeout=60)


def test_a_table_within_server_is_another_server_and_no_unknown_key():
    given = {"server": {"model": "m", "bf16": {"dtype": "bfloat16"}}}
    assert parse_settings(given).server == ServerSettings(model="m")
    assert parse_table(given["server"], ServerSettings, "server") == ServerSettings(model="m")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"dtyp": "bfloat16"}, "server.bf16.dtyp: unknown key; did you mean 'dtype'?"),
        ({"dtype": "int8"}, "server.bf16.dtype: expected 'auto' or 'float32' or"),
        ({"deeper": {"dtype": "float32"}}, "server.bf16.deeper: unknown key"),
        ({"device": "tpu"}, "server.bf16.device: expected 'auto'"),
    ],
)
def test_an_error_in_the_table_of_another_server_names_that(other, said):
    with pytest.raises(ConfigError) as caught:
        parse_settings({"server": {"bf16": other}})
    assert str(caught.value).startswith(said)


def test_an_unknown_key_of_compare_scoring_is_told_the_keys_as_they_are_written():
    with pytest.raises(ConfigError, match="known here: with, say, memories"):
        parse_settings({"plugins": {"settings": {"compare-scoring": {"zzz": 1}}}})
