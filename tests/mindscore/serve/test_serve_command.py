"""``mindscore serve`` as a process: ready, asked, ended."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from mindscore.cli import main

COMMAND = Path(sys.executable).with_name("mindscore")
TOY = ["--set", "server.scorer=toy", "--port", "0"]
KEY = "sk-very-secret"
PATIENCE_S = 30


class Serving:
    """A server process that is ready; ``url`` is what it printed."""

    def __init__(self, process):
        self.process = process
        self.line = process.stdout.readline()
        found = re.fullmatch(r'serving \w+: server\.base_url = "(http://[^"]+/v1)"\n', self.line)
        assert found, self.line + process.stderr.read()
        self.url = found[1]

    def wait_until_busy(self):
        health, began = self.url.removesuffix("/v1") + "/health", time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            with urllib.request.urlopen(health, timeout=PATIENCE_S) as answer:
                if json.load(answer)["busy"]:
                    return
        raise AssertionError("it never computed anything")

    def ask(self, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def end(self, number):
        """Send a signal; the exit status, and what else was printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def serving():
    """``with serving("--port", "0", NAME="of the environment") as it``."""

    @contextmanager
    def serving(*arguments, **environment):
        # A test runner that was started in the background ignores SIGINT, as would its children.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [COMMAND, "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                env={**os.environ, **environment},
            )
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            try:
                yield Serving(process)
            finally:
                process.kill()

    return serving


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGTERM, (0, "", "")), (signal.SIGINT, (130, "", "mindscore: interrupted\n"))],
)
def test_it_serves_where_it_says_until_it_is_told_to_end(number, expected, serving):
    with serving(*TOY) as it:
        assert it.url.startswith("http://127.0.0.1:")
        assert it.ask("/models")["data"][0]["id"] == "toy"
        scores = it.ask("/score", {"prompt": [1, 2], "score_ranges": [[1, 2]]})["scores"]
        assert scores[0]["total_logprob"] < 0
        assert it.end(number) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_a_client_connected(number, serving):
    with serving(*TOY) as it:
        host, port = it.url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n")
            status, _, _ = it.end(number)
    assert status == (0 if number == signal.SIGTERM else 130)


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGTERM, (0, "", "")), (signal.SIGINT, (130, "", "mindscore: interrupted\n"))],
)
def test_a_model_that_is_computing_does_not_keep_it(number, expected, serving):
    body = json.dumps({"prompt": [5] * 8000, "score_ranges": [[6000, 8000]]}).encode()
    head = (
        "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with serving("--port", "0") as it:
        host, port = it.url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode() + body)
            it.wait_until_busy()
            began = time.monotonic()
            assert it.end(number) == expected
    assert time.monotonic() - began < 20


def test_the_key_of_the_environment_is_asked_for_and_lets_other_hosts_be_served(serving):
    with serving(*TOY, "--host", "0.0.0.0", MINDSCORE_API_KEY=KEY) as it:
        it.url = it.url.replace("0.0.0.0", "127.0.0.1")
        assert it.ask("/models", Authorization=f"Bearer {KEY}")["data"]
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            it.ask("/models")
        caught.value.close()
        status, out, err = it.end(signal.SIGTERM)
    assert status == 0
    assert KEY not in it.line + out + err


def test_an_ipv6_address_is_written_in_brackets(serving):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with serving(*TOY, "--host", "::1") as it:
        assert it.url.startswith("http://[::1]:")
        assert it.ask("/models")["data"]


def test_a_name_is_served_at_an_address_that_is_its_own(serving):
    with serving(*TOY, "--host", "localhost") as it:
        assert it.ask("/models")["data"]


def test_what_one_serves_another_scores_with(serving, tmp_path, tokenizer_file):
    talk = tmp_path / "talk.jsonl"
    lines = [
        {"role": "memory", "key": "tea", "content": "Green tea."},
        {"role": "user", "content": "What do I drink?"},
        {"role": "assistant", "content": "Green tea."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "Enjoy."},
    ]
    talk.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(*TOY) as it:
        settings = {
            "scorer": "score",
            "base_url": it.url,
            "model": "toy",
            "tokenizer": str(tokenizer_file),
        }
        options = [f"--set=server.{key}={value}" for key, value in settings.items()]
        done = subprocess.run(
            [COMMAND, "score", talk, "--full", "--json", *options],
            capture_output=True,
            encoding="utf-8",
            timeout=2 * PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["signed"][0][0] > 0


# What is refused, in this process.


@pytest.fixture
def refused(capsys):
    """Runs ``mindscore serve``, which is to refuse; the one line of its error."""

    def run(*arguments, status=2):
        assert main(["serve", *arguments]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mindscore: ")
        assert len(err.splitlines()) == 1
        return err

    return run


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_a_host_that_others_reach_needs_a_key(host, refused):
    said = refused(*TOY, "--host", host)
    assert "MINDSCORE_API_KEY" in said
    assert "server.api_key_file" in said


@pytest.mark.parametrize("name", ["score", "vllm", "openai", "acme"])
def test_a_scorer_that_is_elsewhere_is_not_served(name, refused):
    said = refused("--set", f"server.scorer={name}")
    assert name in said
    assert "'local' or 'toy'" in said


def test_a_port_that_is_taken_is_an_error_that_names_it(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refused("--set", "server.scorer=toy", "--port", port)
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "no..name", "name.invalid"])
def test_a_host_that_is_none_of_this_machines_is_an_error_that_names_it(host, refused, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", KEY)
    said = refused("--set", "server.scorer=toy", "--host", host)
    assert f"{host}:8017" in said
    assert KEY not in said


@pytest.mark.parametrize(
    "arguments", [["--port", "65536"], ["--port", "-1"], ["--queue", "0"], ["--port", "http"]]
)
def test_numbers_out_of_range_are_refused(arguments, refused):
    assert arguments[0] in refused(*arguments)


def test_a_model_that_cannot_be_loaded_is_known_at_the_start(refused, tmp_path):
    said = refused("--set", f"server.model={tmp_path / 'nowhere'}", "--port", "0", status=1)
    assert "nowhere" in said


def test_a_wrong_key_file_is_an_error_that_names_it(refused):
    assert "server.api_key_file" in refused(*TOY, "--set", "server.api_key_file=/no/such/file")


def test_help_can_be_asked_for(capsys):
    assert main(["serve", "--help"]) == 0
    assert "--port" in capsys.readouterr().out


def test_the_command_line_does_without_aiohttp_until_it_serves():
    code = "import sys, mindscore.cli.app; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
