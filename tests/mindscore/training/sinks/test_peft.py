"""The ``peft`` sink: trained once a key, guarded, and loaded by vLLM."""

import json
import os
from contextlib import nullcontext

import pytest

from mindhooks import NotAccepted, ScorerError, load_sink
from mindscore._util.errors import ConfigError, TrainError
from mindscore.training.guard import Losses
from mindscore.training.lora.job import ADAPTER, JOB, Measures, Progress
from mindscore.training.sinks import peft

from ...tiny_model import write_tiny_model

KEYS = [digit * 32 for digit in "abc"]
NAMES = [f"mindscore-{key[:12]}" for key in KEYS]


class FakeTraining:
    """Stands in for the training: keeps the jobs, and adds ``harm`` to the unrelated answers."""

    def __init__(self):
        self.jobs = []
        self.harm = 0.01
        self.error = None

    async def __call__(self, job, folder, hear, measured):
        self.jobs.append(job)
        if self.error:
            raise TrainError(self.error)
        hear(Progress(3, 9, 0.5, 1.0))
        measured(Measures(Losses(4.0, 0.5), Losses(2.0, 2.0 + self.harm), 2.0))
        (folder / ADAPTER).mkdir(parents=True)
        (folder / JOB).write_text("{}")
        return folder / ADAPTER


@pytest.fixture
def trained(monkeypatch):
    fake = FakeTraining()
    monkeypatch.setattr(peft, "train_adapter", fake)
    return fake


@pytest.fixture
def make(tmp_path):
    """Makes a sink: ``await make(url=…, guard=…)``."""

    async def make(model="m", guard=0.05, **options):
        train = {"folder": str(tmp_path / "peft"), "guard": guard, "options": options}
        return await load_sink("peft", train, {"model": model, "max_attempts": 1})

    return make


async def test_each_hand_off_goes_on_from_the_last_adapter_of_its_model(
    make, trained, sample, tmp_path
):
    sink = await make()
    first, second = [await sink.send([sample()], key) for key in KEYS[:2]]
    assert first == str(tmp_path / "peft" / NAMES[0] / "adapter")
    assert (sink.job.job_id, sink.job.start, sink.job.adapter) == (NAMES[1], first, second)
    assert sink.job.guard.passed
    other = await make("another")
    await other.send([sample()], KEYS[2])
    assert [it.start for it in trained.jobs] == ["", first, ""]
    assert [it.model for it in trained.jobs] == ["m", "m", "another"]
    assert trained.jobs[0].samples[0].ids == sample().context_ids + sample().continuation_ids


async def test_a_repeated_hand_off_is_not_trained_again(make, trained, sample):
    first = await (await make()).send([sample()], KEYS[0])
    again = await make()
    assert await again.send([sample()], KEYS[0]) == first
    assert len(trained.jobs) == 1
    assert again.job.job_id == NAMES[0]


async def test_a_repeated_hand_off_is_gone_on_from_if_its_process_was_killed(
    make, trained, sample, tmp_path
):
    sink = await make()
    first, second = [await sink.send([sample()], key) for key in KEYS[:2]]
    # Killed before it could say that the second is the last.
    (tmp_path / "peft" / "last").write_text(NAMES[0])
    assert await sink.send([sample()], KEYS[1]) == second
    # One that others have gone on from is not the last again.
    assert await sink.send([sample()], KEYS[0]) == first
    await sink.send([sample()], KEYS[2])
    assert [it.start for it in trained.jobs] == ["", first, second]


async def test_what_has_not_passed_its_guard_is_not_accepted_and_not_gone_on_from(
    make, trained, sample, tmp_path, score_server
):
    sink = await make(url=score_server.url)
    score_server.always(b"Success")
    first = await sink.send([sample()], KEYS[0])
    trained.harm = 0.5
    with pytest.raises(NotAccepted, match=r"guard.*2\.000 → 2\.500 nats per token \(\+0\.500"):
        await sink.send([sample()], KEYS[1])
    assert (tmp_path / "peft" / NAMES[1] / "adapter").is_dir()
    assert len(score_server.requests) == 1
    trained.harm = 0.0
    await sink.send([sample()], KEYS[2])
    assert trained.jobs[-1].start == first
    await sink.aclose()


async def test_without_a_limit_every_adapter_passes(make, trained, sample):
    trained.harm = 9.0
    assert await (await make(guard=0.0)).send([sample()], KEYS[0])


async def test_a_training_that_fails_accepts_nothing(make, trained, sample):
    trained.error = "no memory"
    with pytest.raises(NotAccepted, match="no memory"):
        await (await make()).send([sample()], KEYS[0])


async def test_vllm_loads_the_adapter_under_the_hand_offs_name(make, trained, sample, score_server):
    score_server.always(b"Success: LoRA adapter added successfully.")
    sink = await make(url=f"{score_server.url}/v1")
    adapter = await sink.send([sample()], KEYS[0])
    [request] = score_server.requests
    assert (request.method, request.path) == ("POST", "/v1/load_lora_adapter")
    assert request.body == {"lora_name": NAMES[0], "lora_path": adapter}
    assert sink.destination.endswith(f", loaded by {score_server.url}")
    await sink.aclose()


async def test_what_vllm_did_not_load_is_loaded_under_the_same_key_without_a_training(
    make, trained, sample, score_server
):
    refusal = {"error": {"message": "LoRA is not enabled", "type": "x"}}
    has_it = {"error": {"message": "The lora adapter 'x' has already been loaded.", "type": "x"}}
    score_server.script(*(score_server.reply(it, 400) for it in (refusal, has_it)))
    sink = await make(url=score_server.url)
    with pytest.raises(TrainError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        await sink.send([sample()], KEYS[0])
    assert await sink.send([sample()], KEYS[0])
    assert (len(trained.jobs), len(score_server.requests)) == (1, 2)
    await sink.aclose()


async def test_a_vllm_that_is_not_there_leaves_the_outcome_unknown(make, trained, sample):
    sink = await make(url="http://127.0.0.1:9")
    with pytest.raises(ScorerError, match="cannot connect"):
        await sink.send([sample()], KEYS[0])
    await sink.aclose()


async def test_two_processes_do_not_train_in_one_folder(make, trained, sample, tmp_path):
    from filelock import FileLock

    (tmp_path / "peft").mkdir()
    with (
        FileLock(tmp_path / "peft" / "lock"),
        pytest.raises(NotAccepted, match="another process trains in"),
    ):
        await (await make()).send([sample()], KEYS[0])


async def test_an_option_that_is_not_there_is_named(make):
    with pytest.raises(ConfigError, match=r"train\.options\.rank: unknown key"):
        await make(rank=3)


# -- what stays -----------------------------------------------------------------------------------


@pytest.fixture
def send(make, trained, sample, tmp_path):
    """Hands over under a number: ``await send(3, harm=9.0)``; returns the numbers that stay."""

    async def hand_over(number, harm=0.0, **options):
        trained.harm = harm
        sink = await make(**options)
        with nullcontext() if harm < 1 else pytest.raises(NotAccepted, match="guard"):
            await sink.send([sample()], f"{number:012x}" + "0" * 20)
        # Within one tick of the clock there would be no order.
        (job,) = (tmp_path / "peft" / name / JOB for name in [f"mindscore-{number:012x}"])
        if job.exists():
            os.utime(job, (number, number))
        found = (tmp_path / "peft").glob(f"*/{ADAPTER}")
        names = {f"mindscore-{it:012x}": it for it in range(1, 9)}
        return sorted(names[it.parent.name] for it in found if it.parent.name in names)

    return hand_over


async def test_the_last_adapter_and_the_one_before_stay_and_the_last_refused_one(send):
    assert await send(1) == [1]
    assert await send(2) == [1, 2]
    assert await send(3, harm=9.0) == [1, 2, 3]
    assert await send(4) == [2, 3, 4]
    assert await send(5, harm=9.0) == [2, 4, 5]
    assert await send(6) == [4, 5, 6]


async def test_each_model_has_its_own(send):
    for number in (1, 2):
        await send(number)
    for number in (3, 4, 5):
        found = await send(number, model="another")
    assert found == [1, 2, 4, 5]


async def test_what_the_sink_has_not_written_stays(send, tmp_path):
    folder = tmp_path / "peft"
    others = [
        folder / "mine" / ADAPTER,
        folder / "mindscore-00000000000g" / ADAPTER,
        # Of that name, but without a description.
        folder / f"mindscore-{0:012x}" / ADAPTER,
    ]
    for it in others:
        it.mkdir(parents=True)
        (it / "weights").write_text("mine")
    (folder / "mine" / JOB).write_text("{}")
    await send(1)
    note = folder / f"mindscore-{1:012x}" / "note"
    note.write_text("mine")
    for number in (2, 3, 4):
        await send(number)
    assert all((it / "weights").exists() for it in others)
    assert note.exists()
    assert not (note.parent / JOB).exists()


@pytest.mark.parametrize("name", ["{folder}/peft", "peft", "./other/../peft", "{folder}/link"])
async def test_the_configured_adapter_stays_however_it_is_named(
    send, sample, tmp_path, trained, monkeypatch, name
):
    await send(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "peft")
    mine = f"{name.format(folder=tmp_path)}/mindscore-{1:012x}/{ADAPTER}"
    train = {"folder": str(tmp_path / "peft")}
    sink = await load_sink("peft", train, {"model": "m", "adapter": mine})
    for number in (2, 3, 4):
        await sink.send([sample()], f"{number:012x}" + "0" * 20)
    assert (tmp_path / "peft" / f"mindscore-{1:012x}" / ADAPTER).is_dir()


async def test_a_hand_off_whose_adapter_was_removed_is_not_trained_again(
    send, make, sample, trained, score_server
):
    """Those that were made since have gone on from it."""
    for number in (1, 2, 3):
        await send(number)
    sink = await make(url=score_server.url)
    adapter = await sink.send([sample()], f"{1:012x}" + "0" * 20)
    assert adapter.endswith(f"mindscore-{3:012x}/{ADAPTER}")
    assert (len(trained.jobs), score_server.requests) == (3, [])
    await sink.aclose()
    # The last one is another model's now.
    await send(4, model="another")
    again = await (await make()).send([sample()], f"{1:012x}" + "0" * 20)
    assert again.endswith(f"mindscore-{1:012x}/{ADAPTER}")
    await send(5)
    # What is not there any more cannot be gone on from.
    assert [it.start for it in trained.jobs[-2:]] == ["", ""]


@pytest.mark.slow
async def test_a_tiny_model_is_trained_for_real(make, sample, tmp_path, tokenizer_file):
    model = str(write_tiny_model(tmp_path / "model", tokenizer_file))
    sink = await make(model, guard=0.0)
    adapter = await sink.send([sample()], KEYS[0])
    learnt = sink.job.sample_loss
    assert learnt.after < learnt.before
    config = json.loads((tmp_path / "peft" / NAMES[0] / "adapter/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 16)
    await sink.send([sample()], KEYS[1])
    assert sink.job.start == adapter
    assert sink.job.sample_loss.before == pytest.approx(learnt.after, rel=1e-3)
