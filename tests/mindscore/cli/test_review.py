"""``mindscore review`` as a process: ready, looked at, ended."""

import http.cookiejar
import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from .conftest import COMMAND, PATIENCE_S, inherited

TOY = "--set=server.scorer=toy"
ENDS = [(signal.SIGTERM, (0, "", "")), (signal.SIGINT, (130, "", "mindscore: interrupted\n"))]


def start(*arguments):
    """A process of the command."""
    return subprocess.Popen(
        [COMMAND, "review", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=inherited({}),
    )


class Reviewing:
    """A process that serves the page; ``address`` is what it printed."""

    def __init__(self, process):
        self.process = process
        self.line = process.stdout.readline()
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+)/\?token=[\w-]{43}\n", self.line)
        assert found, self.line + process.stderr.read()
        self.url, self.address = found[1], self.line.removeprefix("open ").rstrip()
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)

    def get(self, url):
        return self._opener.open(url, timeout=PATIENCE_S)

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, body, {"Origin": self.url})
        return self._opener.open(request, timeout=PATIENCE_S)

    def end(self, number):
        """Send a signal; the exit status, and what else was printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def reviewing():
    """``with reviewing("--port", "0") as it``."""

    @contextmanager
    def reviewing(*arguments):
        # A test runner that was started in the background ignores SIGINT, as would its children.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = start(*arguments)
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            try:
                yield Reviewing(process)
            finally:
                process.kill()

    return reviewing


@pytest.mark.parametrize(("number", "expected"), ENDS)
def test_it_serves_where_it_says_until_it_is_told_to_end(number, expected, talk, reviewing):
    with reviewing(talk, TOY) as it:
        with pytest.raises(urllib.error.HTTPError, match="403") as caught:
            it.get(it.url)
        caught.value.close()
        with it.get(it.address) as answer:
            assert answer.url == f"{it.url}/"
            assert "Find candidates" in answer.read().decode()
        with it.get(f"{it.url}/events") as events:
            assert events.readline().startswith(b"retry")
            it.post("/run", b"command=score-full").close()
            while not events.readline().startswith(b"event: ended"):
                pass
            assert json.loads(events.readline().removeprefix(b"data: "))["lines"]
            # It ends with somebody following.
            assert it.end(number) == expected


@pytest.mark.parametrize(("number", "expected"), ENDS)
def test_a_run_under_way_does_not_keep_it(
    number, expected, talk, reviewing, score_server, tokenizer_file
):
    score_server.always(score_server.silent)
    settings = {
        "scorer": "score",
        "base_url": score_server.url,
        "model": "far away",
        "tokenizer": tokenizer_file,
        "self_test": "false",
    }
    options = [f"--set=server.{key}={value}" for key, value in settings.items()]
    with reviewing(talk, *options, "--set=memory.token_cutoff=1.0") as it:
        it.get(it.address).close()
        with it.get(f"{it.url}/events") as events:
            it.post("/run", b"command=score-full").close()
            while b"baseline" not in events.readline():
                pass
            assert it.end(number) == expected


def test_a_server_that_has_gone_is_missed(talk, browser):
    with start(talk, TOY) as process:
        tab = browser.new_page()
        try:
            tab.goto(process.stdout.readline().removeprefix("open "))
            tab.get_by_role("button", name="Score the full matrix").click()
            tab.locator("[data-state=ended]").wait_for()
            process.kill()
            process.wait(PATIENCE_S)
            tab.locator(".notice.bad", has_text="The connection is lost; trying again.").wait_for()
            tab.get_by_role("button", name="Score the full matrix").click()
            said = tab.get_by_role("status").filter(has_text="is mindscore review still running?")
            said.wait_for(state="attached")
        finally:
            tab.close()


def test_a_taken_port_is_an_error_that_names_it(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("review", TOY, "--port", port)
    assert done.status == 2
    assert f"127.0.0.1:{port}" in done.error
    assert "--port" in done.error


@pytest.mark.parametrize("option", ["--select", "--format", "--memories"])
def test_options_of_a_transcript_need_one(option, cli):
    done = cli("review", TOY, option, "native")
    assert done.status == 2
    assert done.error == f"{option} goes with a TRANSCRIPT"


def test_a_wrong_transcript_is_an_error_that_names_it(cli, tmp_path):
    done = cli("review", tmp_path / "gone.jsonl", TOY)
    assert done.status == 2
    assert "gone.jsonl" in done.error


def test_without_jinja_it_says_what_to_install(command, tmp_path):
    (tmp_path / "jinja2.py").write_text("raise ImportError('No module named jinja2')")
    done = command("review", TOY, PYTHONPATH=str(tmp_path))
    assert done.status == 2
    assert "pip install 'mindscore[report]'" in done.error


def test_help_can_be_asked_for(cli):
    done = cli("review", "--help")
    assert done.status == 0
    assert "--port" in done.out
