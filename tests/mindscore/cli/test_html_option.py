"""``mindscore score … --html FILE``."""

import json
import os
import shutil
import stat
import subprocess
import sys
from functools import partial

import pytest

from ..imitations import OpenAIImitation, SGLangImitation, VLLMImitation

MODES = {"score": [], "full": ["--full", "--hold"], "finetune": ["--finetune"]}


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "report.html"


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_report_is_written_for_its_owner_alone(score, talk, file, mode):
    done = score(talk, *mode, "--html", file)
    assert (done.status, done.err) == (0, "")
    assert "</html>" in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_what_is_printed_is_what_is_printed_without(score, talk, file, mode):
    def told(*options):
        document = score(talk, *mode, "--all", "--json", *options).document
        del document["stats"]["seconds"]
        return document

    assert told("--html", file) == told()


def test_a_report_that_was_there_is_replaced(score, talk, file):
    file.write_text("an older one")
    assert score(talk, "--html", file).status == 0
    assert "an older one" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "where", ["missing/report.html", "folder", "/proc/report.html", "talk.jsonl"]
)
def test_one_that_cannot_be_written_is_told_before_anything_is_scored(
    cli, numbered, server, tmp_path, where
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "talk.jsonl").write_bytes(numbered.read_bytes())
    file = tmp_path / where
    done = cli("score", tmp_path / "talk.jsonl", "--html", file, *server.options)
    assert done.status == 2
    assert done.error.startswith(f"--html {file}: ")
    assert done.out == ""
    assert server.asked == []
    assert (tmp_path / "talk.jsonl").read_bytes() == numbered.read_bytes()


def test_one_that_cannot_be_written_in_the_end_costs_no_result(cli, numbered, server, file):
    honest = server.answer

    def meanwhile(body):
        if file.parent.is_dir():
            shutil.rmtree(file.parent)
            file.parent.write_text("a file in the folder's place")
        return honest(body)

    server.answer = meanwhile
    done = cli("score", numbered, "--full", "--html", file, "--json", *server.options)
    assert done.status == 2
    assert done.error.startswith(f"--html {file}: cannot be written: ")
    assert done.document["matrix"] == [[2.0, 0.0], [0.0, 2.0]]


def test_what_a_failed_run_has_found_is_in_a_report_that_says_so(cli, numbered, server, file):
    honest = server.answer
    server.answer = lambda body: honest(body) if body["prompt"][0] == 101 else None
    done = cli("score", numbered, "--full", "--html", file, *server.options)
    assert done.status == 1
    page = file.read_text(encoding="utf-8")
    assert "This report is not complete." in page
    assert "1 of 2 memories failed" in page


def data_of(file):
    page = file.read_text(encoding="utf-8")
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_a_server_of_totals_alone_has_no_words_marked(cli, numbered, server, file):
    assert cli("score", numbered, "--full", "--html", file, *server.options).status == 0
    data = data_of(file)
    assert data["tokens"] is None
    assert {it["told"] for it in data["memories"]} == {False}


SERVERS = {
    "vllm": VLLMImitation,
    "sglang": SGLangImitation,
    "auto": VLLMImitation,
    "openai": partial(OpenAIImitation, tokenizes=True),
}


@pytest.mark.parametrize("scorer", SERVERS)
def test_servers_that_give_values_of_tokens_have_words_marked(cli, talk, file, monkeypatch, scorer):
    monkeypatch.setenv("MINDSCORE_API_KEY", "s3cret-key")
    with SERVERS[scorer]() as server:
        settings = {"scorer": scorer, "base_url": server.url, "model": "toy"}
        options = [
            it for key, value in settings.items() for it in ("--set", f"server.{key}={value}")
        ]
        done = cli("score", talk, "--full", "--html", file, "--no-self-test", *options)
    assert (done.status, done.err) == (0, "")
    data = data_of(file)
    assert [it["cuts"] for it in data["responses"]] != [None, None]
    assert any(data["tokens"]["cells"])
    assert {it["told"] for it in data["memories"]} == {True}
    assert "s3cret" not in file.read_text(encoding="utf-8")


def test_responses_whose_words_are_not_known_are_shown_as_they_are(score, numbered, file):
    assert score(numbered, "--full", "--html", file).status == 0
    data = data_of(file)
    assert [it["cuts"] for it in data["responses"]] == [None, None]
    assert [it["text"] for it in data["responses"]] == ["One.", "Two."]
    assert {it["told"] for it in data["memories"]} == {True}


def test_a_file_name_that_is_no_utf_8_is_shown_as_well_as_can_be(score, talk, file):
    odd = talk.rename(talk.with_name(os.fsdecode(b"odd\xff.jsonl")))
    assert score(odd, "--html", file).status == 0
    assert "odd?.jsonl" in file.read_text(encoding="utf-8")


def test_without_jinja_it_is_told_before_anything_is_scored(talk, file, tmp_path):
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from mindscore.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    options = ["--html", str(file), "--set", "server.scorer=toy"]
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(talk), *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'mindscore[report]'" in done.stderr
    assert done.stdout == ""
    assert not file.exists()
