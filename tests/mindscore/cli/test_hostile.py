"""Hostile keys, ids and texts, and odd conversations, through the whole command line."""

import json
import tomllib
import unicodedata

import pytest
import tomli_w
from tests.cases import mostly_slow

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
FLOWS = {"score": [], "full": ["--full"], "hold": ["--full", "--hold"], "finetune": ["--finetune"]}
MARKS = {
    "ansi": "k\x1b[2J\x1b[31;5m",
    "osc": "k\x1b]0;owned\x07\x1b]8;;http://x\x1b\\",
    "c1": "k\x9b2J\x9d0;x\x9c\x85",
    "bidi": "\u202ek\u2066\u200f\u2069",
    "nul": "k\x00z",
    "lines": "k\r\n\x0b\x0c\u2028\u2029z",
    "tags": "k\U000e0041\U000f0000\ue000",
    "markup": "[bold red]k[/] [link=http://x]:smile:[/link]",
    "path": "../../x",
    "absolute": "/etc/passwd",
    "formula": "=cmd()|' /C calc'!A0",
    "option": "--full",
    "short option": "-rf",
    "help": "--help",
    "spaces": "   ",
    "nothing to see": "\u200b\u2060\ufeff",
    "shell": "$(touch x); `touch x` & | > x",
    "printf": "%s%n{0}{key!r}",
    "astral": "👩\u200d🚀",
}
LONG = 2**20


def is_harmless(text):
    return not [c for c in text if c != "\n" and unicodedata.category(c) in HIDDEN]


def files(folder):
    return {str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file()}


@pytest.fixture
def talk_about(write):
    """A conversation in which everything that may be named is named ``text``."""

    def write_it(text):
        return write(
            {"role": "system", "content": [{"text": f"green {text}", "key": f"{text}1"}]},
            {"role": "memory", "key": text, "content": f"The user drinks green tea. {text}"},
            {"role": "user", "content": f"What do I drink? {text}", "id": f"{text}u"},
            {"role": "assistant", "content": f"You drink green tea. {text}", "id": text},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": f"Green tea. {text}", "id": f"{text}2"},
        )  # fmt: skip

    return write_it


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("text", mostly_slow(MARKS, "ansi", "bidi", "markup", "path", "help"))
def test_whatever_a_thing_is_called_it_is_shown_escaped_and_is_no_path(
    text, talk_about, score, cli, here, tmp_path
):
    talk, exported = talk_about(text), tmp_path / "exported.json"
    named = ["--set", f"store.namespace={json.dumps(text, ensure_ascii=False)}", "--all"]
    if text.isprintable():
        named += ["--set", f"server.model={json.dumps(text)}"]
    before = files(tmp_path)
    for options in FLOWS.values():
        for wanted in ([], ["--json"]):
            ran = score(talk, *options, *wanted, *named[: 3 if "--finetune" in options else None])
            assert (ran.status, ran.err) == (0, "")
            assert is_harmless(ran.out)
        said = json.dumps(ran.document, ensure_ascii=False)
        assert json.dumps(text, ensure_ascii=False)[1:-1] in said
    store = [*named[:2], "--set", "server.scorer=toy"]
    listed = cli("store", "list", "--json", *store)
    assert {it["key"] for it in listed.document} == {text, f"{text}1"}
    assert is_harmless(listed.out)
    assert is_harmless(cli("store", "list", *store).out)
    assert cli("store", "export", exported, *store).status == 0
    assert is_harmless(exported.read_text(encoding="utf-8"))
    assert set(json.loads(exported.read_bytes())) == {text, f"{text}1"}
    assert cli("store", "import", exported, *store).status == 0
    for options in ([], ["--json"]):
        planned = cli("plan", talk, *options, *store)
        assert planned.status == 0
        assert is_harmless(planned.out)
    assert cli("store", "forget", *store, "--", text).status == 0
    assert files(here) == set()
    made = {name for name in files(tmp_path) - before if not name.startswith("data/mindscore/")}
    assert made == {"exported.json"}
    kept = {it.name.split("-")[0] for it in (tmp_path / "data" / "mindscore").iterdir()}
    assert kept == {"store.sqlite3"}


@pytest.mark.parametrize("text", MARKS.values(), ids=MARKS)
def test_a_memory_is_chosen_by_its_name(text, talk_about, score):
    ran = score(talk_about(text), f"--memory={text}", "--json", "--all")
    assert (ran.status, ran.err) == (0, "")
    assert [it["key"] for it in ran.document["scores"]] == [text]


@pytest.mark.parametrize("options", mostly_slow(FLOWS, "full"))
def test_a_key_and_a_text_of_a_megabyte_are_shortened_on_the_terminal(options, write, score):
    key, text = "k\x1b" * (LONG // 2), "green tea " * (LONG // 10)
    talk = write(
        {"role": "memory", "key": key, "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "id": key},
    )
    ran = score(talk, *options)
    assert (ran.status, ran.err) == (0, "")
    assert is_harmless(ran.out)
    assert len(ran.out) < 20_000
    document = score(talk, "--json", "--all", *options).document
    whole = text if options == ["--finetune"] else key
    assert json.dumps(whole)[1:-1] in json.dumps(document)


def test_a_key_of_a_megabyte_is_one_readable_line_in_an_error(write, score):
    first = {"role": "user", "content": "?", "id": "k" * LONG}
    ran = score(write(first, first))
    assert ran.status == 2
    assert len(ran.error) < 500
    assert "is taken by line 1" in ran.error


def test_a_thousand_skipped_memories_are_one_short_line(write, score):
    memories = [{"role": "memory", "key": f"m{i}", "content": "x"} for i in range(1000)]
    ran = score(write(*memories, {"role": "user", "content": "?"}))
    assert ran.status == 0
    said = "1000 too recent to judge (memory.token_cutoff): --full scores them anyway: m0, m1, "
    assert said in " ".join(ran.out.split())
    assert " more" in ran.out
    assert len(ran.out) < 500


# -- odd conversations ----------------------------------------------------------------------------

SAYS = [
    {"role": "user", "content": "What do I drink?"},
    {"role": "assistant", "content": "Green tea.", "id": "r"},
]
TEA = {"role": "memory", "key": "tea", "content": "Green tea."}
ODD = {
    "the whole system prompt, as one node": [{**TEA, "section": "identity"}, *SAYS],
    "the whole system prompt, as one part": [
        {"role": "system", "content": [{"text": "Green tea.", "key": "tea"}]}, *SAYS,
    ],
    "no memories": SAYS,
    "no responses": [TEA, SAYS[0]],
    "one response and nothing else": SAYS[1:],
    "one memory and nothing else": [TEA],
    "a memory at the end": [*SAYS, TEA],
    "a memory of no text": [{**TEA, "content": ""}, *SAYS],
    "a response of no text": [TEA, {**SAYS[1], "content": ""}],
    "a memory twice": [TEA, *SAYS, TEA],
}  # fmt: skip


@pytest.mark.parametrize("wanted", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("options", mostly_slow(FLOWS, "full", "finetune"))
@pytest.mark.parametrize("lines", ODD.values(), ids=ODD)
def test_odd_conversations_are_scored(lines, options, wanted, write, score, cli):
    talk = write(*lines)
    ran = score(talk, *options, *wanted)
    assert ran.status in (0, 1)
    assert ran.err == "" if ran.status == 0 else ran.error
    assert not wanted or ran.document["stats"] is not None
    planned = cli("plan", talk, *options, *wanted, "--set", "server.scorer=toy")
    assert planned.status == ran.status


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        ("1677-09-21T00:12:43Z", "is outside 64-bit nanoseconds"),
        ("2262-04-11T23:47:16.854775808Z", "is outside 64-bit nanoseconds"),
        ("0001-01-01T00:00:00+23:59", "is outside 64-bit nanoseconds"),
        ("9999-12-31T23:59:59-23:59", "is outside 64-bit nanoseconds"),
        ("\x1b[2J", "is not an ISO 8601 timestamp"),
        ("2026-01-01T00:00:00." + "0" * 300_000 + ",", "is not an ISO 8601 timestamp"),
    ],
)
def test_timestamps_out_of_range_name_their_line(stamp, said, write, score):
    ran = score(write(*SAYS[:1], {**SAYS[1], "timestamp": stamp}))
    assert ran.status == 2
    assert "talk.jsonl, line 2: " in ran.error
    assert said in ran.error
    assert len(ran.error) < 500


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", MARKS.values(), ids=MARKS)
def test_config_show_escapes_what_it_prints(text, cli):
    value = tomli_w.dumps({"x": text}).removeprefix("x = ").strip()
    ran = cli(
        "config", "show",
        "--set", f"store.namespace={value}",
        "--set", f"server.options={{{value} = [{value}]}}",
    )  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    assert is_harmless(ran.out)
    shown = tomllib.loads(ran.out)
    assert shown["store"]["namespace"] == text
    assert shown["server"]["options"] == {text: [text]}


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{a=" * 5000,
        b".".join([b"a"] * 5000) + b" = 1",
        b"server.options.x = " + b"9" * 5000,
        b"server.options.x = 0x" + b"f" * 5000,
        b"server.options.x = [[{y = 9223372036854775808}]]",
        b"[server]\n" + b"k" * LONG + b" = 1",
        b"\x00",
        b"\xff",
        b"[server]\nbase_url = '\x1b[2J'",
    ],
)
@pytest.mark.parametrize("command", ["show", "check"])
def test_a_broken_configuration_is_one_line_that_names_the_file(content, command, cli, tmp_path):
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    ran = cli("config", command, "--config", file)
    assert (ran.status, ran.out) == (2, "")
    assert "broken.toml: " in ran.error
    assert is_harmless(ran.error)
    assert len(ran.error) < 500


@pytest.mark.parametrize(
    "assignment",
    [
        ".".join(["server.options"] + ["a"] * 5000) + "=1",
        "server.options=" + "{a=" * 5000,
        "k" * LONG + "=1",
        "store.namespace=\udcff",
        "store.namespace=\x1b\udcff",
    ],
)
def test_a_broken_assignment_is_one_short_line(assignment, cli):
    ran = cli("config", "show", "--set", assignment)
    assert (ran.status, ran.out) == (2, "")
    assert ran.error.startswith("--set ")
    assert is_harmless(ran.error)
    assert len(ran.error) < 500


def test_a_number_too_large_for_toml_is_a_string(cli):
    ran = cli("config", "show", "--set", "store.namespace=0x" + "f" * 5000)
    assert (ran.status, ran.err) == (0, "")
    assert 'namespace = "0xfff' in ran.out


def test_paths_are_printed_escaped(cli, tmp_path):
    file = tmp_path / "a\x1b[2Jb.toml"
    file.write_text("")
    for command in ("path", "check"):
        ran = cli("config", command, "--config", file)
        assert ran.status == 0
        assert is_harmless(ran.out)
        assert r"a\x1b[2Jb.toml" in ran.out
