"""The bundled conversation: what it holds, and what the real model makes of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mindhooks import Role
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.native import read_transcript

DEMO = Path(__file__).parents[2] / "plugin" / "mindscore" / "demo"
MINDSCORE = str(Path(sys.executable).with_name("mindscore"))

# All of it takes a minute.
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    return read_transcript(DEMO / "conversation.jsonl")


@pytest.fixture(scope="module")
def labels() -> dict[str, object]:
    return json.loads((DEMO / "labels.json").read_text())


def test_it_holds_memories_of_every_kind(transcript: Transcript, labels) -> None:
    assert len(transcript.keys()) >= 12
    assert any(message.memory_key for message in transcript.identity)
    assert any(message.memory_key for message in transcript.conversation)
    assert sum(len(message.memory_keys()) for message in transcript.system) == 1
    assert len(labels["unused"]) >= 2
    assert len(labels["redundant"]) == 1
    assert len(labels["wrong"]) == 1


def test_most_of_its_responses_depend_on_one_memory(transcript: Transcript, labels) -> None:
    responses = {id_ for _, id_ in transcript.responses()}
    assert len(responses) >= 16
    assert len(labels["depends_on"]) >= 10
    assert labels["depends_on"].keys() <= responses


def test_its_labels_name_every_memory_once(transcript: Transcript, labels) -> None:
    pairs = [key for pair in labels["redundant"] for key in pair]
    named = [*labels["depends_on"].values(), *pairs, *labels["wrong"], *labels["unused"]]
    assert sorted(named) == sorted(transcript.keys())


def test_its_responses_have_timestamps(transcript: Transcript) -> None:
    said = [message for message in transcript.conversation if message.role == Role.ASSISTANT]
    stamps = [message.timestamp_ns for message in said]
    assert None not in stamps
    assert stamps == sorted(set(stamps))


@pytest.mark.model
@pytest.mark.parametrize(("lines", "known"), [(29, 4), pytest.param(56, 12, marks=SLOW)])
def test_the_memory_a_response_depends_on_has_the_largest_divergence_in_its_column(
    lines: int, known: int, labels, tmp_path: Path
) -> None:
    said = (DEMO / "conversation.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "conversation.jsonl"
    file.write_text("".join(said[:lines]))
    command = [MINDSCORE, "score", str(file), "--full", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    columns = {it["node_id"]: number for number, it in enumerate(found["responses"])}

    def largest(node_id: str) -> str:
        column = [row[columns[node_id]] for row in found["matrix"]]
        return found["memories"][column.index(max(column))]

    depends_on = labels["depends_on"].items()
    hits = [largest(node_id) == key for node_id, key in depends_on if node_id in columns]
    assert len(hits) == known
    assert sum(hits) / len(hits) >= 0.7


@pytest.mark.slow
@pytest.mark.model
def test_the_demo_prints_what_the_three_flows_found() -> None:
    done = subprocess.run([MINDSCORE, "demo"], capture_output=True, text=True, check=True)
    out = done.stdout
    steps = [out.index(title) for title in ("1. memory-scoring", "2. The full matrix", "3. fine")]
    assert steps == sorted(steps)
    assert "Memories by score" in out[steps[0] : steps[1]]
    assert "Signed divergence in nats" in out[steps[1] : steps[2]]
    assert "Candidates for training" in out[steps[2] :]
    assert "without" in out[steps[2] :]
    assert done.stderr == ""
