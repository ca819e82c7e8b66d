"""The real command on a pseudo-terminal of 80 columns: progress, colours, and what is kept out."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata

import pytest

from .conftest import COMMAND, PATIENCE_S, inherited

TOY = ["--set", "server.scorer=toy"]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "k\x1b[35;5m\x1b]0;owned\x07\u202e\u2066\x9b2J\rz"
SHOWN = r"k\x1b[35;5m\x1b]0;owned\x07\u202e\u2066\x9b2J\rz"


def plain(text):
    """A terminal's text without colours, its line ends as they were written."""
    return COLOUR.sub("", text).replace("\r\n", "\n")


def is_safe(text):
    """Whether nothing but new lines is left that a terminal would not show as itself."""
    hidden = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return not [c for c in plain(text) if c != "\n" and unicodedata.category(c) in hidden]


@pytest.fixture
def hostile(write):
    said = f"Green {HOSTILE} tea."
    return write(
        {"role": "memory", "key": HOSTILE, "content": "The user drinks green tea."},
        {"role": "user", "content": said},
        {"role": "assistant", "content": said},
        {"role": "user", "content": said},
        {"role": "assistant", "content": said},
    )


@pytest.fixture
def held(server, terminal):
    """Runs ``score`` against a server that answers once ``text`` stands on standard error.

    Where standard error is no terminal there is nothing to wait for.
    """

    def run(*arguments, text="", **streams):
        server.holds = lambda body: True
        when = (text, lambda process: server.release())
        return terminal("score", *arguments, *server.options, when=when, **streams)

    return run


# -- progress -------------------------------------------------------------------------------------

LINES = {
    "score": ([], "scoring: 1/2 a"),
    "the baseline": (["--full"], "scoring: baseline"),
    "candidates": (["--finetune"], "finetune: scoring 1 responses..."),
}
lines = pytest.mark.parametrize(("options", "line"), LINES.values(), ids=LINES)


def test_a_line_says_that_the_model_is_loaded_until_the_first_one_of_a_flow(held, numbered):
    ran = held(numbered, text="loading the model")
    assert ran.status == 0
    frames = plain(ran.err)
    assert frames.index("loading the model …") < frames.index("scoring:")
    assert "loading the model" not in frames[frames.index("scoring:") :]
    assert "loading the model" not in plain(ran.out)


@lines
def test_progress_is_shown_on_standard_error(options, line, held, numbered):
    ran = held(numbered, *options, text=line)
    assert ran.status == 0
    assert line in plain(ran.err)
    assert line not in plain(ran.out)


@lines
def test_progress_is_shown_beside_a_document(options, line, held, numbered):
    ran = held(numbered, "--json", *options, text=line, out=False)
    assert ran.status == 0
    assert line in plain(ran.err)
    assert ran.document["stats"]["error"] is None


@lines
def test_there_is_no_progress_where_standard_error_is_no_terminal(options, line, held, numbered):
    ran = held(numbered, *options, err=False)
    assert (ran.status, ran.err) == (0, "")
    assert "scoring" not in plain(ran.out)


def test_colours_that_are_forced_force_no_progress(held, numbered):
    ran = held(numbered, out=False, err=False, FORCE_COLOR="1")
    assert ran.status == 0
    assert "scoring" not in ran.err
    assert "\x1b[?25l" not in ran.err


def test_progress_is_gone_at_the_end(held, numbered):
    ran = held(numbered, text="scoring: 1/2 a")
    assert ran.err.count("\x1b[?25l") == ran.err.count("\x1b[?25h") > 0
    last = re.split(r"\x1b\[2K|\r", plain(ran.err))[-1]
    assert last.replace("\x1b[?25h", "").strip() == ""


def test_progress_names_keys_escaped(held, write):
    talk = write(
        {"role": "memory", "key": HOSTILE, "content": "A", "token_ids": [101]},
        {"role": "user", "content": "?", "token_ids": [5]},
        {"role": "assistant", "content": "A", "token_ids": [6, 101], "body": [1, 2]},
    )
    ran = held(talk, text="scoring: 1/1 k")
    assert ran.status == 0
    assert SHOWN in plain(ran.err)
    for part in ("\x1b[35;5m", "\x1b]0", "\x07", "\u202e", "\u2066", "\x9b"):
        assert part not in ran.err


def test_progress_about_a_long_key_stays_on_one_line(held, write):
    talk = write(
        {"role": "memory", "key": "key " * 100, "content": "A", "token_ids": [101]},
        {"role": "user", "content": "?", "token_ids": [5]},
        {"role": "assistant", "content": "A", "token_ids": [6, 101], "body": [1, 2]},
    )
    ran = held(talk, text="scoring: 1/1 key")
    assert ran.status == 0
    # rich before 14.3 ends the line as it shows the cursor again.
    assert "\n" not in ran.err.replace("\n\x1b[?25h", "")
    for frame in re.split(r"\x1b\[2K|\r", plain(ran.err)):
        assert len(re.sub(r"\x1b\[\?25[lh]", "", frame)) <= 80


def test_complaints_stand_in_lines_of_their_own_above_progress(held, install, numbered):
    environment = install("raise ValueError('too loud')", "loud = acme_loud:Loud")
    ran = held(numbered, text="scoring: 1/2 a", **environment)
    assert ran.status == 0
    line = "mindscore: plugin loud (acme 1.2.3) was skipped: ValueError: too loud"
    assert line in [re.sub(r"^.*\x1b\[2K", "", it) for it in plain(ran.err).splitlines()]


def test_ctrl_c_leaves_the_terminal_as_it_was(server, terminal, interrupt, numbered):
    server.holds = lambda body: True
    ran = terminal("score", numbered, *server.options, when=("scoring:", interrupt))
    assert ran.status == 130
    assert ran.err.count("\x1b[?25l") == ran.err.count("\x1b[?25h") > 0
    assert "mindscore: interrupted" in plain(ran.err).splitlines()[-1]


def test_a_typed_ctrl_c_gives_the_prompt_a_line_of_its_own_and_the_modes_back(server, numbered):
    """As in a shell: input, output and errors are one terminal, which sends the signal itself."""
    server.holds = lambda body: True
    ours, childs = pty.openpty()
    fcntl.ioctl(childs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(childs)
    # In a session of its own, whose terminal this is.
    attach = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    execute = "import signal; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    arguments = [COMMAND, "score", numbered, *server.options]
    process = subprocess.Popen(
        [sys.executable, "-c", attach + execute, *map(str, arguments)],
        stdin=childs,
        stdout=childs,
        stderr=childs,
        start_new_session=True,
        env=inherited({"TERM": "xterm-256color"}),
    )
    shown = b""
    while b"scoring:" not in shown:
        shown += os.read(ours, 65536)
    assert server.held.wait(PATIENCE_S)
    os.write(ours, b"\x03")
    while b"interrupted" not in shown:
        shown += os.read(ours, 65536)
    assert process.wait(PATIENCE_S) == 130
    os.write(childs, b"PROMPT")
    while not shown.endswith(b"PROMPT"):
        shown += os.read(ours, 65536)
    after = termios.tcgetattr(childs)
    os.close(ours)
    os.close(childs)
    text = shown.decode()
    assert after == before
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0
    *_, last, prompt = re.split(r"\r\n", COLOUR.sub("", text))
    assert prompt.replace("\x1b[?25h", "") == "PROMPT"
    last = re.split(r"\x1b\[2K|\r", last)[-1].replace("\x1b[?25h", "")
    assert last.startswith("mindscore: interrupted: 0 of 2 memories")


# -- colours --------------------------------------------------------------------------------------


def colours(text, word):
    """What is switched on right before each ``word``."""
    return [found[1] for found in re.finditer(rf"\x1b\[([0-9;]*)m\s*{re.escape(word)}", text)]


def test_cells_that_helped_and_cells_that_harmed_have_colours_of_their_own(terminal, talk):
    ran = terminal("score", talk, "--full", *TOY)
    assert ran.status == 0
    cells = re.findall(r"(?m)^(?:tea|dog) .*$", plain(ran.out))
    numbers = [number for row in cells for number in row.split()[1:]]
    helped = {
        it for number in numbers if number[0] in "123456789" for it in colours(ran.out, number)
    }
    harmed = {it for number in numbers if number[0] == "-" for it in colours(ran.out, number)}
    assert helped
    assert harmed
    assert not helped & harmed
    [legend] = re.findall(r"(?m)^.*helped.*harmed.*$", ran.out)
    helpful, harmful = (COLOUR.findall(legend.partition(it)[0])[-1] for it in ("helped", "harmed"))
    assert helpful != harmful


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]], ids=" ".join)
def test_there_are_colours_on_a_terminal_and_none_elsewhere(options, terminal, talk):
    shown = terminal("score", talk, "--all", *options, *TOY)
    piped = terminal("score", talk, "--all", *options, *TOY, out=False, err=False)
    assert (shown.status, piped.status) == (0, 0)
    assert COLOUR.search(shown.out)
    assert "\x1b" not in piped.out + piped.err
    without_seconds = [
        re.sub(r"[0-9.]+ s$", "", it.rstrip()) for it in plain(shown.out).splitlines()
    ]
    assert without_seconds == [
        re.sub(r"[0-9.]+ s$", "", it.rstrip()) for it in piped.out.splitlines()
    ]


def test_a_document_has_no_colours_on_a_terminal(terminal, talk):
    ran = terminal("score", talk, "--json", "--full", *TOY)
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert ran.document["command"] == "score-full"


def test_no_color_is_heard(terminal, talk):
    ran = terminal("score", talk, "--full", *TOY, NO_COLOR="1")
    codes = {code for it in COLOUR.findall(ran.out) for code in it[2:-1].split(";")}
    assert codes <= {"", "0", "1", "2", "3"}


# -- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]], ids=" ".join)
def test_what_keys_and_texts_hide_is_shown_escaped(options, terminal, hostile):
    loose = ["--set", "finetune.threshold=0"]
    ran = terminal("score", hostile, *options, *loose, *TOY)
    assert ran.status == 0
    assert is_safe(ran.out)
    assert r"k\x1b[35;5m\x1b]0;" in plain(ran.out)


def test_what_kept_keys_hide_is_shown_escaped(terminal, score, hostile):
    score(hostile)
    ran = terminal("store", "list")
    assert ran.status == 0
    assert is_safe(ran.out)
    assert r"k\x1b[35;5m" in plain(ran.out)


def test_no_line_is_wider_than_the_terminal(terminal, write):
    memories = [
        {"role": "memory", "key": f"{number} " + "long-key-" * number, "content": f"word{number}"}
        for number in range(12)
    ]
    turns = [
        line
        for number in range(12)
        for line in (
            {"role": "user", "content": "A question, and a long one. " * 9},
            {"role": "assistant", "content": f"word{number} and more of it. " * 9},
        )
    ]
    talk = write(*memories, *turns)
    for options in ([], ["--full"]):
        ran = terminal("score", talk, *options, *TOY)
        assert ran.status == 0
        assert max(len(line) for line in plain(ran.out).splitlines()) <= 80


def test_that_everything_was_skipped_comes_with_a_hint(terminal, score, talk):
    score(talk)
    ran = terminal("score", talk, *TOY)
    assert ran.status == 0
    assert "2 not due" in plain(ran.out)
    assert "--all" in plain(ran.out)


def test_an_error_is_one_line_without_colours(terminal):
    ran = terminal("score", "nowhere.jsonl")
    assert (ran.status, ran.out) == (2, "")
    assert "\x1b" not in ran.err
    assert "nowhere.jsonl" in ran.error
