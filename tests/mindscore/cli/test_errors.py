"""Exit statuses, and the one line that each error is: section 8 of the contract."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

import mindscore
from mindscore.cli import main
from mindscore.scorers.local import weights

# -- usage ----------------------------------------------------------------------------------------

USAGE = {
    "no command of config": (["config"], "--help"),
    "no command of store": (["store"], "--help"),
    "unknown command": (["scroe"], "scroe"),
    "unknown command of config": (["config", "edit"], "edit"),
    "unknown command of store": (["store", "burn"], "burn"),
    "unknown option": (["score", "TALK", "--fast"], "--fast"),
    "unknown short option": (["score", "TALK", "-x"], "-x"),
    "option without its value": (["score", "TALK", "--memory"], "--memory"),
    "flag with a value": (["score", "TALK", "--full=yes"], "--full"),
    "no transcript": (["score"], "PATH"),
    "two transcripts to show": (["list", "TALK", "TALK"], "extra"),
    "no key to forget": (["store", "forget"], "KEY"),
    "no file to import": (["store", "import"], "FILE"),
    "no file to export to": (["store", "export"], "FILE"),
    "full and finetune": (["score", "TALK", "--full", "--finetune"], "--full and --finetune"),
    "memory and finetune": (["score", "TALK", "--finetune", "--memory", "tea"], "--memory"),
    "unknown memory": (["score", "TALK", "--memory", "cat"], "cat"),
    "missing transcript": (["score", "nowhere.jsonl"], "nowhere.jsonl"),
    "a folder as a transcript": (["list", "."], "directory"),
    "missing configuration": (["score", "TALK", "--config", "nowhere.toml"], "nowhere.toml"),
    "a folder as configuration": (["config", "check", "--config", "."], "directory"),
    "set without a value": (["config", "show", "--set", "memory.interval_s"], "KEY=VALUE"),
    "set without a key": (["config", "show", "--set", "=3"], "KEY=VALUE"),
    "set of no key": (["config", "show", "--set", "a b=3"], "KEY=VALUE"),
}


@pytest.mark.parametrize(("arguments", "said"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_line_and_status_2(arguments, said, cli, talk):
    ran = cli(*(talk if it == "TALK" else it for it in arguments))
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.error


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["score"], ["demo"], ["plugins"], ["config"], ["config", "init"], ["config", "show"],
        ["config", "check"], ["config", "path"], ["store"], ["store", "list"], ["store", "forget"],
        ["store", "import"], ["store", "export"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_command_can_be_asked_for_help(arguments, cli):
    ran = cli(*arguments, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert "Usage:" in ran.out
    assert "--help" in ran.out


def test_the_help_of_score_names_every_option_of_the_contract(cli):
    ran = cli("score", "--help")
    for option in ("--full", "--finetune", "--all", "--memory", "--config", "--set", "--json"):
        assert option in ran.out


# -- configuration --------------------------------------------------------------------------------

CONFIGURATION = {
    "no TOML": ("[server\nmodel = 1\n", ["TOML", "line 1"]),
    "no UTF-8": (b"\xff\xfe", ["cannot be read"]),
    "the same key twice": ("[memory]\ninterval_s = 1\ninterval_s = 2\n", ["TOML"]),
    "unknown table": ("[memroy]\n", ["memroy", "'memory'"]),
    "unknown key": ("[memory]\ninterval = 1\n", ["memory.interval", "'interval_s'"]),
    "unknown key that is like no other": ("[memory]\nzzz = 1\n", ["memory.zzz", "token_cutoff"]),
    "a key outside its table": ("token_cutoff = 0.5\n", ["token_cutoff", "unknown"]),
    "a key of the API": ('[server]\napi_key = "sk-secret"\n', ["server.api_key", "api_key_env"]),
    "a value for a table": ("server = 3\n", ["server", "table"]),
    "string for a number": ('[memory]\ninterval_s = "1"\n', ["memory.interval_s", "number"]),
    "string for an integer": ('[server]\npriority = "1"\n', ["server.priority", "integer"]),
    "float for an integer": ("[server]\nconcurrency = 1.5\n", ["server.concurrency", "integer"]),
    "bool for a number": ("[server]\ntimeout_s = true\n", ["server.timeout_s", "number"]),
    "integer for a bool": ("[finetune]\ngenerate_alternates = 1\n", ["finetune.generate", "true"]),
    "number for a string": ("[server]\nmodel = 3\n", ["server.model", "string"]),
    "string for an array": ('[plugins]\ndisabled = "x"\n', ["plugins.disabled", "array"]),
    "integer in an array": ("[plugins]\ndisabled = [1]\n", ["plugins.disabled", "string"]),
    "date for a number": ("[memory]\ninterval_s = 2026-01-01\n", ["memory.interval_s", "number"]),
    "value for a plugin's table": (
        "[plugins.settings]\nmemory-scoring = 3\n",
        ["plugins.settings.memory-scoring", "table"],
    ),
    "nan": ("[memory]\ninterval_s = nan\n", ["memory.interval_s"]),
    "inf": ("[server]\ndeadline_s = inf\n", ["server.deadline_s"]),
    "-inf": ("[finetune]\nthreshold = -inf\n", ["finetune.threshold"]),
    "below 0": ("[memory]\ninterval_s = -1\n", ["memory.interval_s", "0"]),
    "0 for a count": ("[memory]\nresponse_window = 0\n", ["memory.response_window", "1"]),
    "0 for a time": ("[server]\ntimeout_s = 0\n", ["server.timeout_s", "0"]),
    "above 1": ("[memory]\ntoken_cutoff = 1.5\n", ["memory.token_cutoff", "1"]),
    "0 for a weight": ("[memory]\newma_alpha = 0\n", ["memory.ewma_alpha", "0"]),
    "fraction above 1": ("[finetune]\nwindow_fraction = 2\n", ["finetune.window_fraction", "1"]),
    "no attempt": ("[server]\nmax_attempts = 0\n", ["server.max_attempts", "1"]),
    "unknown template": ('[server]\nchat_template = "x"\n', ["server.chat_template", "chatml"]),
    "no namespace": ('[store]\nnamespace = ""\n', ["store.namespace"]),
    "listeners without time": (
        "[plugins]\nlistener_timeout_s = 0\n",
        ["plugins.listener_timeout_s"],
    ),
    "listeners with too much time": (
        "[plugins]\nlistener_timeout_s = 1000001\n",
        ["plugins.listener_timeout_s", "<= 1000000"],
    ),
}


@pytest.fixture
def config(tmp_path):
    """Writes a configuration file: ``config("[server]")``."""

    def write(content):
        file = tmp_path / "mine.toml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.mark.parametrize(("content", "said"), CONFIGURATION.values(), ids=CONFIGURATION)
def test_a_wrong_configuration_is_one_line_that_names_the_file_the_key_and_what_was_expected(
    content, said, cli, config, talk
):
    file = config(content)
    ran = cli("score", talk, "--config", file)
    assert (ran.status, ran.out) == (2, "")
    for word in (str(file), *said):
        assert word in ran.error
    assert "sk-secret" not in ran.error
    assert cli("config", "check", "--config", file) == ran


ASSIGNED = {
    "unknown table": ("memroy.interval_s=1", "memroy"),
    "unknown key": ("memory.interval=1", "memory.interval"),
    "type": ("memory.interval_s=often", "number"),
    "range": ("memory.token_cutoff=2", "memory.token_cutoff"),
    "nan": ("memory.interval_s=nan", "memory.interval_s"),
    "table": ("memory=1", "table"),
    "part of a value": ("plugins.disabled=[", "array"),
}


@pytest.mark.parametrize(("assignment", "said"), ASSIGNED.values(), ids=ASSIGNED)
def test_a_wrong_assignment_is_one_line_that_names_it(assignment, said, cli, talk):
    ran = cli("score", talk, "--set", assignment)
    assert (ran.status, ran.out) == (2, "")
    assert f"--set {assignment.partition('=')[0]}" in ran.error
    assert said in ran.error


def test_an_api_key_on_the_command_line_is_refused_and_not_echoed(cli, talk):
    ran = cli("score", talk, "--set", "server.api_key=sk-secret")
    assert ran.status == 2
    assert "server.api_key" in ran.error
    assert "sk-secret" not in ran.error


UNUSABLE = {
    "unknown scorer": (["server.scorer=nope"], ["server.scorer", "nope", "toy", "local", "score"]),
    "no address": (["server.scorer=score"], ["server.base_url", "http"]),
    "no address of this kind": (
        ["server.scorer=score", "server.base_url=localhost:8000"],
        ["server.base_url", "http", "localhost:8000"],
    ),
    "missing key file": (
        ["server.scorer=score", "server.base_url=http://x", "server.api_key_file=/nowhere/key"],
        ["server.api_key_file", "/nowhere/key"],
    ),
    "store of another kind": (
        ["server.scorer=toy", "store.url=postgresql://host/db"],
        ["store.url", "sqlite:///"],
    ),
    "store without a file": (["server.scorer=toy", "store.url=sqlite:///"], ["store.url"]),
}


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]], ids=" ".join)
@pytest.mark.parametrize(("assignments", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_configuration_that_cannot_be_used_is_one_line_and_status_2(
    assignments, said, options, cli, talk
):
    assigned = [it for assignment in assignments for it in ("--set", assignment)]
    ran = cli("score", talk, *options, *assigned)
    assert ran.status == 2
    for word in said:
        assert word in ran.error


def test_an_unknown_option_of_a_plugin_is_named(cli, talk):
    own = 'plugins.settings.memory-scoring.onyl=["tea"]'
    ran = cli("score", talk, "--set", "server.scorer=toy", "--set", own)
    assert ran.status != 0
    assert all(line.startswith("mindscore: ") for line in ran.err.splitlines())
    assert "plugins.settings.memory-scoring.onyl" in ran.err


# -- transcripts ----------------------------------------------------------------------------------

HELLO = '{"role": "user", "content": "Hello"}'
TRANSCRIPTS = {
    "no JSON": ("nonsense", "JSON"),
    "half a line": ('{"role": "user", "cont', "JSON"),
    "two values on a line": (HELLO + HELLO, "JSON"),
    "no UTF-8": (b'{"role": "user", "content": "\xff"}', "UTF-8"),
    "half a surrogate pair": (r'{"role": "user", "content": "\ud800"}', "JSON"),
    "no object": ("[]", "object"),
    "no content": ('{"role": "user"}', "content"),
    "no role": ('{"content": "Hello"}', "role"),
    "number as content": ('{"role": "user", "content": 5}', "content"),
    "part without text": ('{"role": "user", "content": [{"key": "k"}]}', "text"),
    "part with another key": ('{"role": "user", "content": [{"text": "", "x": 1}]}', "x"),
    "unknown key": ('{"role": "user", "content": "", "name": "Nora"}', "name"),
    "key on a user line": ('{"role": "user", "content": "", "key": "k"}', "key"),
    "memory without a key": ('{"role": "memory", "content": ""}', "key"),
    "memory with an empty key": ('{"role": "memory", "content": "", "key": ""}', "key"),
    "memory in a response": (
        '{"role": "assistant", "content": [{"text": "", "key": "k"}]}',
        "key",
    ),
    "unknown section": ('{"role": "user", "content": "", "section": "end"}', "section"),
    "no timestamp": ('{"role": "user", "content": "", "timestamp": "today"}', "today"),
    "late timestamp": ('{"role": "user", "content": "", "timestamp": "2300-01-01"}', "2300-01-01"),
    "negative token": ('{"role": "user", "content": "", "token_ids": [-1]}', "token_ids"),
    "token ids with parts": ('{"role": "user", "content": [], "token_ids": [1]}', "token_ids"),
    "body without token ids": ('{"role": "assistant", "content": "", "body": [0, 1]}', "body"),
    "body outside the ids": (
        '{"role": "assistant", "content": "", "token_ids": [1], "body": [0, 2]}',
        "body",
    ),
    "body the wrong way round": (
        '{"role": "assistant", "content": "", "token_ids": [1, 2], "body": [2, 1]}',
        "body",
    ),
    "image that is not base64": (
        '{"role": "user", "content": "", "images": [{"mime": "image/png", "data": "?"}]}',
        "images",
    ),
}


@pytest.mark.parametrize(("line", "said"), TRANSCRIPTS.values(), ids=TRANSCRIPTS)
def test_a_wrong_line_is_one_line_that_names_the_file_the_line_and_the_reason(
    line, said, score, tmp_path
):
    file = tmp_path / "talk.jsonl"
    raw = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b"\n".join([HELLO.encode(), b"", raw, HELLO.encode()]))
    ran = score(file, "--json")
    assert (ran.status, ran.out) == (2, "")
    assert ran.error.startswith(f"{file}, line 3: ")
    assert said in ran.error


def test_a_role_that_is_not_known_is_answered_with_those_that_are(score, write):
    ran = score(write({"role": "developer", "content": "Be kind."}))
    assert ran.status == 2
    for role in ("developer", "system", "identity", "memory", "user", "assistant", "tool"):
        assert role in ran.error


def test_an_id_that_is_there_twice_names_both_lines(score, write):
    line = {"role": "user", "content": "Hello", "id": "mine"}
    ran = score(write(line, {"role": "user", "content": "Hello"}, line))
    assert ran.status == 2
    for word in ("line 3", "'mine'", "line 1"):
        assert word in ran.error


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff\n"])
def test_a_transcript_without_a_line_is_refused(content, score, tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_text(content, encoding="utf-8")
    ran = score(file)
    assert ran.status == 2
    assert str(file) in ran.error


# -- servers --------------------------------------------------------------------------------------


def text(content, kind="application/json", status=200):
    return lambda body: web.Response(text=content, content_type=kind, status=status)


def totals(*values):
    """An answer with these values, written as they are."""
    scores = ", ".join(f'{{"total_logprob": {value}}}' for value in values)
    return text(f'{{"scores": [{scores}]}}')


def redirect(body):
    return web.Response(status=307, headers={"Location": "http://elsewhere/"})


WELCOME = "<html>\n<body>Welcome</body>\n</html>"
FAULTS = {
    "401": (
        text('{"error": {"message": "no such key"}}', status=401),
        ["401", "no such key", "$MINDSCORE_API_KEY"],
    ),
    "403": (text("not yours", status=403), ["403", "not yours", "$MINDSCORE_API_KEY"]),
    "404": (text("what?", status=404), ["404", "server.base_url"]),
    "422": (text('{"detail": [{"loc": ["body"]}]}', status=422), ["422", "detail"]),
    "429": (text("slower", status=429), ["429", "slower"]),
    "500 in lines": (text("one\ntwo\r\nthree", status=500), ["500", "one two three"]),
    "redirect": (redirect, ["307", "http://elsewhere/"]),
    "HTML": (text(WELCOME, "text/html"), ["not JSON", "Welcome", "server.base_url"]),
    "nothing": (text(""), ["not JSON"]),
    "half a document": (text('{"scores": [{"total_lo'), ["not JSON"]),
    "error with 200": (text('{"error": "model is\\nnot loaded"}'), ["model is not loaded"]),
    "error table with 200": (text('{"error": {"message": "no memory"}}'), ["no memory"]),
    "too few scores": (totals(-1), ["scores", "asked for 2", "got 1"]),
    "too many scores": (totals(-1, -1, -1), ["scores", "asked for 2", "got 3"]),
    "no scores": (text("{}"), ["scores"]),
    "null": (totals(-1, "null"), ["scores[1].total_logprob"]),
    "string": (totals('"-1"', -1), ["scores[0].total_logprob"]),
    "NaN": (totals(-1, "NaN"), ["NaN"]),
    "Infinity": (totals(-1, "-Infinity"), ["Infinity"]),
    "above 0": (totals(-1, 2.5), ["scores[1].total_logprob", "2.5"]),
    "an array": (text("[1, 2]"), ["server.scorer"]),
}
faults = pytest.mark.parametrize(("answer", "said"), FAULTS.values(), ids=FAULTS)


def everything_failed(ran, *said):
    """A failed run: one line, status 1, and the document that says what became of each memory."""
    assert ran.status == 1
    document = ran.document
    assert ran.error == document["stats"]["error"]
    assert [entry["key"] for entry in document["scores"]] == ["a", "b"]
    for entry in document["scores"]:
        assert (entry["status"], entry["score"], entry["divergences"]) == ("failed", None, [])
        for word in said:
            assert word in entry["error"]
            assert word in ran.error


@faults
def test_what_a_server_does_wrong_is_one_line_and_every_memory_has_failed(
    answer, said, server, cli, numbered
):
    server.answer = answer
    ran = cli("score", numbered, "--json", *server.options)
    everything_failed(ran, f"{server.url}/score", *said)


@faults
def test_what_a_server_does_wrong_ends_the_search_for_candidates(
    answer, said, server, cli, numbered
):
    server.answer = answer
    # Of the four messages all, so that two responses are asked for.
    whole = ["--set", "finetune.window_fraction=1"]
    ran = cli("score", numbered, "--json", "--finetune", *whole, *server.options)
    assert (ran.status, ran.document["candidates"]) == (1, [])
    assert ran.error == ran.document["stats"]["error"]
    for word in (f"{server.url}/score", *said):
        assert word in ran.error


@faults
def test_a_baseline_that_fails_leaves_a_matrix_of_nulls(answer, said, server, cli, numbered):
    server.answer = answer
    ran = cli("score", numbered, "--json", "--full", *server.options)
    assert (ran.status, ran.document["memories"]) == (1, ["a", "b"])
    assert ran.document["matrix"] == ran.document["signed"] == [[None, None], [None, None]]
    assert ran.error == ran.document["stats"]["error"]
    for word in (f"{server.url}/score", *said):
        assert word in ran.error


def test_a_server_that_cannot_be_reached_is_named(cli, nobody, numbered):
    options = ["server.scorer=score", f"server.base_url={nobody}", "server.max_attempts=1"]
    assigned = [it for option in options for it in ("--set", option)]
    ran = cli("score", numbered, "--json", *assigned)
    everything_failed(ran, nobody, "cannot connect", "server.base_url")


def test_a_server_that_hangs_is_given_up(server, cli, numbered):
    server.holds = lambda body: True
    ran = cli("score", numbered, "--json", *server.options, "--set", "server.timeout_s=0.2")
    everything_failed(ran, server.url, "0.2 s", "server.timeout_s")


def test_a_server_that_hangs_is_given_up_at_the_deadline(server, cli, numbered):
    server.holds = lambda body: True
    ran = cli("score", numbered, "--json", *server.options, "--set", "server.deadline_s=0.2")
    everything_failed(ran, server.url, "0.2 s", "server.deadline_s")


def test_a_server_that_hangs_up_is_named(server, cli, numbered):
    server.answer = lambda body: None
    ran = cli("score", numbered, "--json", *server.options)
    everything_failed(ran, f"{server.url}/score", "connection")


def test_a_transcript_without_ids_for_a_server_that_does_not_tokenise_says_what_to_set(
    server, cli, talk
):
    ran = cli("score", talk, "--json", *server.options)
    assert ran.status == 1
    assert {entry["status"] for entry in ran.document["scores"]} == {"failed"}
    assert "server.tokenizer" in ran.error
    assert "token_ids" in ran.error


def test_a_tokenizer_that_cannot_be_read_is_named(server, cli, talk):
    ran = cli("score", talk, *server.options, "--set", "server.tokenizer=/nowhere/tokenizer.json")
    assert ran.status != 0
    assert "server.tokenizer" in ran.error
    assert "/nowhere/tokenizer.json" in ran.error


@pytest.mark.parametrize("status", [401, 403])
def test_the_api_key_is_never_said(status, server, cli, numbered, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", "sk-secret")
    server.answer = text("no", status=status)
    ran = cli("score", numbered, "--json", *server.options)
    assert ran.status == 1
    assert "sk-secret" not in ran.out + ran.err


def test_what_failed_is_printed_for_people_too(server, cli, numbered):
    server.answer = FAULTS["error with 200"][0]
    ran = cli("score", numbered, *server.options)
    assert ran.status == 1
    assert "2 failed: a, b" in ran.out
    assert "model is not loaded" in ran.error


# -- the real command -----------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "status"), [(["config", "path"], 0), (["scroe"], 2)])
def test_the_real_command_exits_with_the_status(arguments, status, command):
    assert command(*arguments).status == status


def test_the_real_command_prints_one_line_on_standard_error(command):
    ran = command("score", "nowhere.jsonl", "--json")
    assert (ran.status, ran.out) == (2, "")
    assert "nowhere.jsonl" in ran.error


def test_the_real_command_fails_with_a_document_and_one_line(server, command, numbered):
    server.answer = FAULTS["401"][0]
    ran = command("score", numbered, "--json", *server.options)
    everything_failed(ran, "401", "$MINDSCORE_API_KEY")


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_adds_a_traceback_before_the_line(place, cli):
    arguments = ["score", "nowhere.jsonl"]
    ran = cli(*(["--debug", *arguments] if place == "before" else [*arguments, "--debug"]))
    assert ran.status == 2
    lines = ran.err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-1].startswith("mindscore: nowhere.jsonl: ")


def test_debug_changes_nothing_where_nothing_goes_wrong(score, talk):
    ran = score(talk, "--json", "--debug")
    assert (ran.status, ran.err) == (0, "")


def test_the_status_is_what_main_returns(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mindscore", "config", "edit"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("mindscore: ")


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"], ["--json"]], ids=" ".join)
def test_ctrl_c_is_one_line_and_status_130(options, server, terminal, interrupt, numbered):
    server.holds = lambda body: True
    arguments = ["score", numbered, *options, *server.options]
    ran = terminal(*arguments, out=False, err=False, when=("", interrupt))
    assert (ran.status, ran.out) == (130, "")
    assert ran.error.startswith("interrupted: 0 ")


def test_what_was_scored_before_ctrl_c_is_kept(server, cli, terminal, interrupt, numbered):
    server.holds = lambda body: 102 not in body["prompt"][: body["score_ranges"][0][0]]
    arguments = ["score", numbered, *server.options, "--set", "server.concurrency=1"]
    ran = terminal(*arguments, out=False, err=False, when=("", interrupt))
    assert ran.status == 130
    assert ran.error == "interrupted: 1 of 2 memories were scored; that is kept"
    kept = cli("store", "list", "--json").document
    assert [(it["key"], it["score"]) for it in kept] == [("a", 2.0)]


def test_the_version_is_printed_and_is_that_of_the_distribution(cli):
    version = importlib.metadata.version("mindscore")
    ran = cli("--version")
    assert (ran.status, ran.out, ran.err) == (0, f"mindscore {version}\n", "")
    assert mindscore.__version__ == version


@pytest.mark.parametrize("command", [[], ["score"], ["store", "forget"]], ids=" ".join)
def test_the_short_option_of_help_is_as_good_as_the_long(command, cli):
    assert cli(*command, "-h").out == cli(*command, "--help").out


def test_the_command_alone_prints_its_help(cli):
    assert cli() == cli("--help")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_output_that_cannot_be_written_is_one_line():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "mindscore", "config", "show"]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "No space left" in ran.stderr


def test_a_byte_order_mark_before_the_configuration_is_no_error(cli, tmp_path):
    file = tmp_path / "bom.toml"
    file.write_bytes(b"\xef\xbb\xbf[memory]\ninterval_s = 7\n")
    assert "interval_s = 7" in cli("config", "show", "--config", file).out


def test_the_package_can_be_run():
    command = [sys.executable, "-m", "mindscore"]
    ran = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, f"mindscore {mindscore.__version__}\n")
    wrong = subprocess.run([*command, "scroe"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_a_demo_without_its_model_says_so_once(cli, monkeypatch):
    monkeypatch.setattr(weights, "_PACKAGE", "no_such_package")
    ran = cli("demo")
    assert ran.status == 1
    assert ran.error.startswith("the weights of model 'smollm2' are not installed")
    assert "1. memory-scoring" not in ran.out
