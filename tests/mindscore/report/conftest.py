"""Results that reports are made of."""

import json
import random
from pathlib import Path

import pytest

from mindhooks import (
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    Outcome,
    ResponseDivergence,
)
from mindscore.cli import main
from mindscore.conversation.native import read_transcript
from mindscore.report.page import HtmlReport
from mindscore.session.result import Result
from mindscore.session.words import Word

DEMO = Path(__file__).parents[3] / "plugin" / "mindscore" / "demo" / "conversation.jsonl"


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """The demo's conversation by the toy, as the command writes it: a file for each command."""
    folder = tmp_path_factory.mktemp("reports")

    def write(name, *options):
        file = folder / f"{name}.html"
        store = f"store.url=sqlite:///{folder}/{name}.sqlite3"
        settings = ["--set", "server.scorer=toy", "--set", store]
        assert main(["score", str(DEMO), *options, *settings, "--html", str(file)]) == 0
        return file

    alternates = ["--set", "finetune.generate_alternates=true"]
    noisy = ["--set", "memory.noise_repeats=1"]
    return {
        "score": write("score"),
        "full": write("full", "--full", "--hold", *noisy),
        "finetune": write("finetune", "--finetune", "--set", "finetune.threshold=0.1", *alternates),
    }


@pytest.fixture(scope="session")
def write_report(tmp_path_factory):
    """Writes a result's page: ``write_report(result)`` is its file."""

    def write(result, **tables):
        file = tmp_path_factory.mktemp("page") / "report.html"
        HtmlReport(file, tables).write(result)
        return file

    return write


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    """A result of any size, or with any texts: ``made_up(memories=2, responses=3, text="<b>")``."""

    def make(command="score-full", memories=3, responses=2, text="green tea", **fields):
        lines = [
            {"role": "memory", "key": f"{text} k{it}", "content": f"{text} memory {it}"}
            for it in range(memories - 1)
        ]
        parts = [{"text": f"{text} part", "key": f"{text} printed"}, {"text": f" {text}"}]
        lines.append({"role": "system", "content": parts})
        for it in range(responses):
            lines.append({"role": "user", "content": f"{text} question {it}"})
            said = {"role": "assistant", "content": f"{text} answer {it}", "id": f"{text} {it}"}
            lines.append(said)
        file = tmp_path_factory.mktemp("talk") / "talk.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        transcript = read_transcript(file)
        keys = tuple(transcript.keys())
        numbers = random.Random(6)
        words = {
            id_: tuple(Word(it, 1) for it in (text, " answer", f" {at}"))
            for at, (_, id_) in enumerate(transcript.responses())
        }

        def cell(index, id_):
            tokens = tuple(numbers.gauss(0, 1.5) for _ in words[id_])
            return ResponseDivergence(index, id_, max(0.0, sum(tokens)), sum(tokens), 0.1, tokens)

        scores = {}
        for key in keys:
            row = tuple(cell(*it) for it in transcript.responses())
            scores[key] = MemoryScore(key, max(it.divergence for it in row), "full", row, row)
        candidates = [
            FinetuneCandidate(
                index, id_, 2.0, f"{text} said", f"user: {text} before", (1,), (1,), (1,),
                f"{text} otherwise", (1,), at, 0.1,
            )
            for at, (index, id_) in enumerate(transcript.responses())
        ]  # fmt: skip
        is_finetune = command == "score-finetune"
        outcomes = {key: Outcome("scored") for key in keys}
        given = {
            "command": command,
            "model": "a model",
            "transcript": transcript,
            "keys": keys,
            "scores": {} if is_finetune else scores,
            "candidates": tuple(candidates) if is_finetune else (),
            "stats": FinetuneStats(2, 2, 1.0, 2.0, 2, 99, 50, 1.5)
            if is_finetune
            else MemoryStats(outcomes, 4, 99, None, 1.5),
            "error": None,
            "words": words,
        }
        return Result(**{**given, **fields})

    return make
