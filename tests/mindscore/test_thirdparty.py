"""A third party's distribution, installed for real, beside the default plugins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .forks import ForkServer

DISTRIBUTION = Path(__file__).parents[1] / "thirdparty"

TRANSCRIPT = [
    {"role": "system", "content": "You help."},
    {"role": "memory", "key": "tea", "content": "The user drinks green tea."},
    {"role": "user", "content": "What do I drink?"},
    {"role": "assistant", "content": "You drink green tea."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "Welcome."},
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the distribution into."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*pip, *options, str(DISTRIBUTION)], check=True)
    return folder


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in TRANSCRIPT))
    return file


@pytest.fixture
def run(installed: Path, monkeypatch: pytest.MonkeyPatch, forked: ForkServer):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return lambda *arguments: forked.run(arguments, os.environ, 120)


def test_its_plugins_are_listed_with_their_distribution_and_version(run) -> None:
    listed = {it["name"]: it for it in json.loads(run("plugins", "--json").stdout)}
    assert listed["acme-journal"]["distribution"] == "acme-mindscore"
    assert listed["acme-journal"]["version"] == "3.2.1"
    assert listed["acme-journal"]["hooks"] == ["on_score"]
    assert listed["memory-scoring"]["distribution"] == "mindscore"
    assert all(it["error"] is None for it in listed.values())


def test_mindscores_own_plugins_load_first(run) -> None:
    names = [it["name"] for it in json.loads(run("plugins", "--json").stdout)]
    assert names == [
        "compare-scoring",
        "finetune-scoring",
        "memory-scoring",
        "score-recorder",
        "write-back",
        "acme-census",
        "acme-finetune",
        "acme-hasty",
        "acme-journal",
    ]


def test_it_swaps_the_finetune_flow(run, transcript: Path) -> None:
    done = run(
        "score", str(transcript), "--finetune", "--json", "--set", "server.scorer=toy",
        "--set", 'plugins.disabled=["finetune-scoring"]',
        "--set", "plugins.settings.acme-finetune.count=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [candidate] = json.loads(done.stdout)["candidates"]
    assert candidate["response_text"] == "Welcome."


def test_both_flows_run_when_the_default_is_not_disabled(run, transcript: Path) -> None:
    done = run(
        "score", str(transcript), "--finetune", "--json", "--set", "server.scorer=toy",
        "--set", "finetune.window_fraction=1.0",
    )  # fmt: skip
    found = [it["divergence"] for it in json.loads(done.stdout)["candidates"]]
    assert 0.0 in found
    assert max(found) > 1


def test_its_scorer_scores_and_gets_its_options(run, transcript: Path) -> None:
    def divergence(scale: str) -> float:
        done = run(
            "score", str(transcript), "--all", "--json", "--set", "server.scorer=acme-length",
            "--set", f"server.options.scale={scale}", "--set", "memory.token_cutoff=1.0",
        )  # fmt: skip
        document = json.loads(done.stdout)
        assert document["model"] == "acme-length"
        assert document["stats"]["computed_tokens"] is None
        return document["scores"][0]["divergences"][0]["signed"]

    assert divergence("1.0") < 0
    assert divergence("3.0") == pytest.approx(3 * divergence("1.0"))


def test_a_scorer_that_cannot_generate_says_so_and_the_candidate_still_goes_out(
    run, transcript: Path
) -> None:
    done = run(
        "score", str(transcript), "--finetune", "--json", "--set", "server.scorer=acme-length",
        "--set", "finetune.generate_alternates=true", "--set", "finetune.threshold=0",
        "--set", 'plugins.disabled=["acme-finetune"]', "--set", "finetune.window_fraction=1.0",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["candidates"]
    assert all(it["alternate_text"] is None for it in document["candidates"])
    assert "the acme-length scorer cannot generate" in document["stats"]["error"]
    assert len(done.stderr.splitlines()) == 1


def test_its_slow_listener_hears_every_score_and_is_closed_at_the_end(
    run, transcript: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    done = run(
        "score", str(transcript), "--json", "--set", "server.scorer=toy",
        "--set", f"plugins.settings.acme-journal.file={journal}",
        "--set", "plugins.settings.acme-journal.pause_s=0.3",
    )  # fmt: skip
    score = json.loads(done.stdout)["scores"][0]["score"]
    assert journal.read_text() == f"tea {score:.6f}\nclosed\n"


def test_its_failing_listener_is_named_in_one_line_and_changes_nothing(
    run, transcript: Path
) -> None:
    done = run(
        "score", str(transcript), "--json", "--set", "server.scorer=toy",
        "--set", "plugins.settings.acme-journal.fail=true",
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["scores"][0]["status"] == "scored"
    assert done.stderr.splitlines() == [
        (
            "mindscore: plugin acme-journal (acme-mindscore 3.2.1): on_score: "
            "RuntimeError: the journal is full"
        )
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_flow_of_its_own_that_fails_fails_the_run_and_what_it_scored_is_shown(
    run, transcript: Path, options: list[str]
) -> None:
    done = run(
        "score", str(transcript), *options, "--set", "server.scorer=toy",
        "--set", 'plugins.disabled=["memory-scoring"]',
        "--set", "plugins.settings.acme-hasty.on=true",
    )  # fmt: skip
    assert done.returncode == 1
    assert "acme-hasty: ValueError: in too much of a hurry" in done.stderr.splitlines()[-1]
    if options:
        document = json.loads(done.stdout)
        assert document["scores"][0]["status"] == "scored"
        assert document["scores"][0]["score"] == 1.5
        assert "in too much of a hurry" in document["stats"]["error"]
    else:
        assert "1.50" in done.stdout


def test_its_own_command_reaches_its_module_plugin(run, transcript: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from mindscore.session.session import Session
from mindscore.conversation.native import read_transcript

async def main():
    talk = Session(read_transcript(Path({str(transcript)!r})))
    async with talk.open({{"server": {{"scorer": "toy"}}}}) as session:
        print(session.registry.dispatch("acme-census"))
        await session.registry.wait_idle()
    from acme_mindscore.census import counted
    print(counted)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["{'acme-census': <Trigger.STARTED: 'started'>}", "[4]"]
