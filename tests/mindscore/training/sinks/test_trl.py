"""Exported files, as the libraries load them that they are for: datasets, and TRL's trainers."""

import asyncio
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mindhooks import ResponseDivergence, Role
from mindscore.conversation.native import read_transcript
from mindscore.flows.finetune import make_candidate
from mindscore.scorers.tokenizer import FileTokenizer
from mindscore.store import Reviewed
from mindscore.training.outbox import sample_of
from mindscore.training.sinks.formats import FORMATS
from mindscore.training.sinks.jsonl import write_samples
from mindscore.training.texts import Texts

DEMO = Path(__file__).parents[4] / "plugin" / "mindscore" / "demo" / "conversation.jsonl"
TRAINERS = Path(__file__).with_name("trainers.py")
RESPONSES = slice(1, 4)

# A minute, most of it to import what it checks, whose versions are pinned.
pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture(scope="module")
def model():
    """The folder of SmolLM2's weights and tokenizer."""
    from mindscore.scorers.local.weights import locate

    return Path(locate("smollm2"))


@pytest.fixture(scope="module")
def samples(model):
    """Some responses of the bundled conversation, each with another answer."""

    async def make():
        file = model / "tokenizer.json"
        tokenizer = FileTokenizer(file)
        context = await read_transcript(DEMO).context(tokenizer.tokenize)
        other = tuple(await tokenizer.tokenize("I do not know.<|im_end|>"))
        said = [
            await make_candidate(context, ResponseDivergence(index, node.id, 1.0, 1.0), 2)
            for index, node in enumerate(context.conversation)
            if node.role == Role.ASSISTANT
        ][RESPONSES]
        found = [replace(it, alternate_ids=other) for it in said]
        made = [sample_of(Reviewed(it, "smollm2", 0.0, None, ()), "bare", "n") for it in found]
        texts = Texts({"server": {"tokenizer": str(file)}})
        return await texts.added(made)

    return asyncio.run(make())


@pytest.fixture(scope="module")
def trained(model, samples, tmp_path_factory):
    """What the libraries made of a file of each format."""
    folder = tmp_path_factory.mktemp("exported")
    for name in FORMATS:
        write_samples(folder / f"{name}.jsonl", samples, name)
    done = subprocess.run(
        [sys.executable, str(TRAINERS), str(folder), str(model)],
        env={**os.environ, "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "seen.json").read_text())


def ids(sample):
    return [*sample.context_ids, *sample.continuation_ids]


def labels(sample):
    return [-100] * len(sample.context_ids) + list(sample.continuation_ids)


def rows(seen, column):
    """One row per sample, whatever the order they were shuffled to."""
    return sorted(row for batch in seen["batches"] for row in batch[column])


@pytest.mark.parametrize("name", FORMATS)
def test_every_line_is_a_row_of_the_columns_that_trainers_know(trained, samples, name):
    assert trained[name]["rows"] == len(samples)
    assert set(trained[name]["columns"]) == set(FORMATS[name].line(samples[0]))


@pytest.mark.parametrize("name", FORMATS)
def test_a_step_of_training_works(trained, name):
    assert math.isfinite(trained[name]["loss"])
    assert trained[name]["loss"] > 0
    assert trained[name]["changed"]


def test_the_ids_and_labels_that_train_are_those_that_were_exported(trained, samples):
    seen = trained["input_ids"]
    assert rows(seen, "input_ids") == sorted(map(ids, samples))
    assert rows(seen, "labels") == sorted(map(labels, samples))


def test_the_texts_train_the_very_same_ids_and_the_completion_alone(trained, samples):
    seen = trained["prompt_completion"]
    assert rows(seen, "input_ids") == sorted(map(ids, samples))
    assert rows(seen, "labels") == sorted(map(labels, samples))


def test_messages_train_every_message_and_end_as_the_answer_does(trained, samples):
    """TRL learns the whole conversation of such a file, unless it is told otherwise."""
    seen = trained["messages"]
    assert rows(seen, "labels") == rows(seen, "input_ids")
    answers = [list(sample.continuation_ids) for sample in samples]
    for row in rows(seen, "input_ids"):
        # The template ends every message with a line break, the last one too.
        assert any(row[-len(it) - 1 : -1] == it for it in answers)


def test_a_preference_trains_the_chosen_answer_against_the_other(trained, samples):
    seen = trained["preference"]
    pairs = [
        (
            [token for token, on in zip(row, mask, strict=True) if on]
            for row, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
        )
        for batch in seen["batches"]
    ]
    expected = [(list(it.continuation_ids), list(it.rejected_ids)) for it in samples]
    assert sorted(map(tuple, pairs)) == sorted(expected)
