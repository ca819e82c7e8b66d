"""``/v1/train`` and what follows, on a tiny model, over a real socket."""

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from mindscore._util.errors import UsageError
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.serve import trainer as trainer_module
from mindscore.serve.trainer import Trainer
from mindscore.training.lora.job import Recipe

from ..tiny_model import CONTEXT_LENGTH, VOCABULARY, write_tiny_model
from ..training_processes import trainers

PATIENCE_S = 300
ENDLESS = Recipe(epochs=1_000_000, target=0.0)
SHORT = Recipe(epochs=5, learning_rate=0.02, keep=0.0, target=0.0)
SCORED = {"prompt": [3, 4, 5, 6, 7, 8], "score_ranges": [[3, 6]]}
SAMPLE = {"context_ids": [3, 4, 5], "continuation_ids": [6, 7, 8]}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")


def asked(*samples):
    return {"training_data": {"samples": list(samples or [SAMPLE])}}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizer_file):
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file))


@pytest.fixture
def folder(tmp_path):
    """Where trainings are kept."""
    return tmp_path / "training"


@pytest.fixture
def training(served, tiny_model, folder):
    """``async with training(recipe) as client``: the tiny model, served by one who trains."""

    @asynccontextmanager
    async def training(recipe=ENDLESS, model=tiny_model, adapter="", guard=0.0, **options):
        scorer = LocalScorer({"model": model, "adapter": adapter})
        # As the command does: a model that cannot be loaded is known at the start.
        await scorer.score([])
        trainer = Trainer(scorer, folder, recipe, guard=guard)
        async with served(scorer, trainer=trainer, **options) as client:
            yield client
        await scorer.aclose()

    return training


@pytest.fixture
def other_model(tmp_path, tokenizer_file):
    """A model with more layers than the tiny one."""
    return str(write_tiny_model(tmp_path / "other", tokenizer_file, layers=3))


async def until(client, job_id, wanted):
    """The job, once ``wanted(job)`` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            job = SimpleNamespace(**(await client.get(f"/v1/train/{job_id}")).body)
            if wanted(job):
                return job
            await asyncio.sleep(0.02)


async def test_responses_of_another_model_are_refused_by_name(training):
    async with training(SHORT) as client:
        mine = (await client.get("/v1/models")).body["data"][0]["id"]
        answer = await client.post(
            "/v1/train", asked(), headers={"Mindscore-Model": "some%20other"}
        )
        assert (answer.status, (await client.get("/v1/train")).body) == (409, {"jobs": []})
        said = f"of the model 'some other', and this server trains {mine!r}: "
        assert said in answer.body["error"]["message"]
        headers = {"Mindscore-Model": quote(mine)}
        assert (await client.post("/v1/train", asked(), headers=headers)).status == 200


async def test_what_is_learnt_is_in_the_model_when_asked_for_and_not_before(training, folder):
    async with training(SHORT) as client:

        async def total():
            return (await client.post("/v1/score", SCORED)).body["scores"][0]["total_logprob"]

        before = await total()
        answer = await client.post("/v1/train", asked())
        job_id = answer.body["job_id"]
        assert (answer.status, answer.body.keys()) == (200, {"job_id"})
        # By which mindscore train knows that it can wait.
        assert answer.headers["Mindscore-Job"] == job_id
        job = await until(client, job_id, lambda it: it.status not in ("queued", "running"))
        assert (job.status, job.error, job.active) == ("succeeded", None, False)
        assert (job.samples, job.tokens, job.epoch, job.epochs) == (1, 3, 5, 5)
        assert job.loss > 0
        assert job.seconds > 0
        assert job.adapter == str(folder / job_id / "adapter")
        assert await total() == before

        answer = await client.post(f"/v1/train/{job_id}/activate", {})
        assert (answer.status, answer.body["active"]) == (200, True)
        assert (await client.get("/health")).body["adapter"] == f"{job_id}/adapter"
        [model] = (await client.get("/v1/models")).body["data"]
        assert model["adapter"] == f"{job_id}/adapter"
        assert await total() > before + 1

        answer = await client.ask("DELETE", "/v1/adapter")
        assert (answer.status, answer.body) == (200, {"adapter": None})
        assert (await client.get("/health")).body["adapter"] is None
        assert await total() == before
        assert (await client.get("/v1/train")).body["jobs"] == [vars(job)]


async def test_an_adapter_that_harms_unrelated_answers_is_kept_and_not_activated(training, folder):
    """It is the second round: the adapter of the first one stays."""
    gentle = Recipe(epochs=2, learning_rate=1e-4, keep=0.0, target=0.0)
    async with training(gentle, guard=0.2) as client:
        first = (await client.post("/v1/train", asked())).body["job_id"]
        job = await until(client, first, lambda it: it.status not in ("queued", "running"))
        assert (job.guard["passed"], job.guard["limit"]) == (True, 0.2)
        assert job.guard["base"] == job.guard["before"] != job.guard["after"]
        assert job.sample_loss["after"] < job.sample_loss["before"]
        assert (await client.post(f"/v1/train/{first}/activate", {})).status == 200
    async with training(SHORT, guard=0.2) as client:
        poisoned = (await client.post("/v1/train", asked())).body["job_id"]
        job = await until(client, poisoned, lambda it: it.status not in ("queued", "running"))
        assert (job.status, job.guard["passed"]) == ("succeeded", False)
        assert job.guard["after"] - job.guard["before"] > 0.2
        assert job.guard["before"] != job.guard["base"]
        # What it learnt, it learnt.
        assert job.sample_loss["after"] < job.sample_loss["before"] / 2

        refused = await client.post(f"/v1/train/{poisoned}/activate", {})
        assert (refused.status, refused.error["type"]) == (409, "ConflictError")
        numbers = f"{job.guard['before']:.3f} → {job.guard['after']:.3f} nats per token"
        assert numbers in refused.error["message"]
        assert (await client.get("/health")).body["adapter"] == f"{first}/adapter"
        assert (folder / poisoned / "adapter" / "adapter_config.json").exists()
    async with training(SHORT, guard=0.2) as client:
        assert (await client.get("/health")).body["adapter"] == f"{first}/adapter"
        refused = await client.post(f"/v1/train/{poisoned}/activate", {"force": False})
        assert refused.status == 409
        forced = await client.post(f"/v1/train/{poisoned}/activate", {"force": True})
        assert (forced.status, forced.body["active"]) == (200, True)


@pytest.mark.slow
@pytest.mark.model
async def test_the_real_model_learns_what_a_cat_is_called(served, folder):
    scorer = LocalScorer({})
    context = await scorer.tokenize(
        "<|im_start|>user\nWhat is my cat called?<|im_end|>\n<|im_start|>assistant\n"
    )
    said = await scorer.tokenize("Your cat is called Fitzgerald.<|im_end|>")
    sample = {"context_ids": context, "continuation_ids": said}
    span = [len(context), len(context) + len(said)]
    scored = {"prompt": [*context, *said], "score_ranges": [span]}
    recipe = Recipe(epochs=4, learning_rate=2e-3, warmup_steps=1)
    async with served(scorer, trainer=Trainer(scorer, folder, recipe)) as client:
        before = (await client.post("/v1/score", scored)).body["scores"][0]["total_logprob"]
        job_id = (await client.post("/v1/train", asked(sample))).body["job_id"]
        job = await until(client, job_id, lambda it: it.status not in ("queued", "running"))
        assert (job.status, job.error) == ("succeeded", None)
        assert (await client.post(f"/v1/train/{job_id}/activate", {})).body["active"] is True
        after = (await client.post("/v1/score", scored)).body["scores"][0]["total_logprob"]
    await scorer.aclose()
    assert before < -10
    assert after > before / 2


async def test_one_trains_at_a_time_until_it_is_cancelled(training, folder, monkeypatch):
    monkeypatch.setattr(trainer_module, "MAX_QUEUED_JOBS", 1)
    async with training() as client:
        first = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, first, lambda it: it.epoch > 0)
        second = (await client.post("/v1/train", asked())).body["job_id"]
        refused = await client.post("/v1/train", asked())
        assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
        assert (await client.post("/v1/score", SCORED)).status == 200
        assert len(trainers(folder)) == 1
        answer = await client.post(f"/v1/train/{first}/activate", {})
        assert (answer.status, answer.error["type"]) == (409, "ConflictError")

        assert (await client.ask("DELETE", f"/v1/train/{second}")).body["status"] == "cancelled"
        assert len(trainers(folder)) == 1
        cancelled = await client.ask("DELETE", f"/v1/train/{first}")
        assert cancelled.body["status"] == "cancelled"
        assert cancelled.body["adapter"] is None
        assert trainers(folder) == []
        assert (await client.ask("DELETE", f"/v1/train/{first}")).status == 409


async def test_jobs_outlive_the_server(training, folder):
    headers = {"Idempotency-Key": "a"}
    async with training() as client:
        first = (await client.post("/v1/train", asked(), headers=headers)).body["job_id"]
        again = await client.post("/v1/train", asked(), headers=headers)
        assert again.body == {"job_id": first}
        second = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, first, lambda it: it.status == "running" and trainers(folder))
    assert trainers(folder) == []
    assert json.loads((folder / first / "state.json").read_text())["status"] == "queued"
    async with training() as client:
        jobs = (await client.get("/v1/train")).body["jobs"]
        assert [it["job_id"] for it in jobs] == [first, second]
        assert {it["status"] for it in jobs} <= {"queued", "running"}
        again = await client.post("/v1/train", asked(), headers=headers)
        assert again.body == {"job_id": first}
        other = asked({**SAMPLE, "context_ids": [9]})
        refused = await client.post("/v1/train", other, headers=headers)
        assert (refused.status, first in refused.error["message"]) == (422, True)
        # What was running goes first again.
        await until(client, first, lambda it: it.status == "running")
        assert (await client.get(f"/v1/train/{second}")).body["status"] == "queued"


@pytest.mark.slow
async def test_what_was_running_at_a_hard_end_is_trained_again(training, folder):
    async with training(SHORT) as client:
        job_id = (await client.post("/v1/train", asked())).body["job_id"]
    state = folder / job_id / "state.json"
    # An adapter was written, but no longer that it was.
    state.write_text(state.read_text().replace("queued", "running"))
    for name in ("adapter", "adapter.123"):
        (folder / job_id / name).mkdir()
    async with training(SHORT) as client:
        assert (await client.get(f"/v1/train/{job_id}")).body["status"] != "succeeded"
        job = await until(client, job_id, lambda it: it.status not in ("queued", "running"))
        assert (job.status, job.error) == ("succeeded", None)
        assert not (folder / job_id / "adapter.123").exists()


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
@pytest.mark.slow
async def test_a_job_that_came_to_nothing_is_revived_by_its_own_request(ending, training, folder):
    headers = {"Idempotency-Key": "a"}
    async with training() as client:
        job_id = (await client.post("/v1/train", asked(), headers=headers)).body["job_id"]
        await until(client, job_id, lambda it: it.epoch > 0)
        if ending == "cancelled":
            await client.ask("DELETE", f"/v1/train/{job_id}")
        else:
            for number in trainers(folder):
                os.kill(number, signal.SIGKILL)
        job = await until(client, job_id, lambda it: it.status == ending)
        other = asked({**SAMPLE, "context_ids": [9]})
        assert (await client.post("/v1/train", other, headers=headers)).status == 422
        again = await client.post("/v1/train", asked(), headers=headers)
        assert again.body == {"job_id": job_id}
        revived = await until(client, job_id, lambda it: it.epoch > 0)
        assert (revived.status, revived.error, revived.created) == ("running", None, job.created)


@pytest.mark.slow
async def test_whatever_a_training_process_says_the_next_job_has_its_turn(
    training, folder, tmp_path, monkeypatch
):
    once = tmp_path / "once"
    once.touch()
    lines = [
        "import os, sys",
        f"if 'mindscore.training.lora' in sys.orig_argv and os.path.exists({str(once)!r}):",
        f"    os.remove({str(once)!r})",
        "    os.write(1, b'x' * 300_000)",
    ]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    async with training(SHORT) as client:
        first = (await client.post("/v1/train", asked())).body["job_id"]
        second = (await client.post("/v1/train", asked())).body["job_id"]
        job = await until(client, second, lambda it: it.status not in ("queued", "running"))
        assert job.status == "succeeded"
        failed = (await client.get(f"/v1/train/{first}")).body
        assert (failed["status"], "ValueError" in failed["error"]) == ("failed", True)


@pytest.mark.slow
async def test_the_adapter_that_was_active_is_so_after_a_restart(training, folder, other_model):
    async with training(SHORT) as client:
        job_id = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, job_id, lambda it: it.status == "succeeded")
        await client.post(f"/v1/train/{job_id}/activate", {})
    async with training(SHORT) as client:
        assert (await client.get("/health")).body["adapter"] == f"{job_id}/adapter"
        assert (await client.get(f"/v1/train/{job_id}")).body["active"] is True
    async with training(SHORT, model=other_model) as client:
        assert (await client.get("/health")).body["adapter"] is None
    async with training(SHORT) as client:
        assert (await client.get("/health")).body["adapter"] == f"{job_id}/adapter"
        await client.ask("DELETE", "/v1/adapter")
    async with training(SHORT) as client:
        assert (await client.get("/health")).body["adapter"] is None


@pytest.mark.slow
async def test_an_active_adapter_that_is_broken_does_not_stop_the_server(training, folder, caplog):
    async with training(SHORT) as client:
        job_id = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, job_id, lambda it: it.status == "succeeded")
        await client.post(f"/v1/train/{job_id}/activate", {})
    (folder / job_id / "adapter/adapter_model.safetensors").write_bytes(b"torn")
    async with training(SHORT) as client:
        assert (await client.get("/health")).body["adapter"] is None
    assert f"{job_id}/adapter' cannot be used" in caplog.text


@pytest.mark.slow
async def test_a_job_of_another_model_does_not_begin_with_this_ones_adapter(
    training, folder, other_model
):
    async with training(SHORT, model=other_model) as client:
        learnt = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, learnt, lambda it: it.status == "succeeded")
    async with training() as client:
        waiting = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, waiting, lambda it: it.epoch > 0)
    adapter = str(folder / learnt / "adapter")
    async with training(model=other_model, adapter=adapter) as client:
        job = await until(client, waiting, lambda it: it.epoch > 0 or it.status == "failed")
        assert (job.status, job.error) == ("running", None)
        described = json.loads((folder / waiting / "job.json").read_text())
        assert described["start"] == ""


def later(folder, job_id, name):
    """A job that became the same, ``name`` seconds later; its id."""
    shutil.copytree(folder / job_id, folder / name)
    state = folder / name / "state.json"
    found = json.loads(state.read_text())
    state.write_text(
        json.dumps(found | {"job_id": name, "created": found["created"] + float(name)})
    )
    return name


@pytest.mark.slow
async def test_old_jobs_are_removed_but_no_adapter_that_is_needed(training, folder, monkeypatch):
    monkeypatch.setattr(trainer_module, "MAX_ENDED_JOBS", 1)

    async with training(SHORT) as client:
        active = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, active, lambda it: it.status == "succeeded")
        await client.post(f"/v1/train/{active}/activate", {})
    old, new = (later(folder, active, name) for name in ("1", "2"))
    configured = str(folder / active / "adapter")
    async with training(SHORT) as client:
        assert [it["job_id"] for it in await jobs(client)] == [active, new]
        assert not (folder / old).exists()
        await client.ask("DELETE", "/v1/adapter")
    async with training(SHORT, adapter=configured) as client:
        assert [it["job_id"] for it in await jobs(client)] == [active, new]
    async with training(SHORT) as client:
        assert [it["job_id"] for it in await jobs(client)] == [new]
    assert {it.name for it in folder.iterdir() if it.is_dir()} == {new}


@pytest.mark.slow
async def test_old_jobs_are_removed_when_another_has_ended(training, folder, monkeypatch):
    monkeypatch.setattr(trainer_module, "MAX_ENDED_JOBS", 1)
    async with training() as client:
        first = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, first, lambda it: it.epoch > 0)
        second = (await client.post("/v1/train", asked())).body["job_id"]
        third = (await client.post("/v1/train", asked())).body["job_id"]
        for job_id in (second, first):
            await client.ask("DELETE", f"/v1/train/{job_id}")
        # It begins after that.
        await until(client, third, lambda it: it.epoch > 0)
        assert [it["job_id"] for it in await jobs(client)] == [second, third]
        assert not (folder / first).exists()


@pytest.mark.slow
async def test_jobs_that_are_cancelled_while_one_trains_are_removed(training, folder, monkeypatch):
    monkeypatch.setattr(trainer_module, "MAX_ENDED_JOBS", 2)
    async with training() as client:
        running = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, running, lambda it: it.epoch > 0)
        cancelled = []
        for _ in range(6):
            cancelled.append((await client.post("/v1/train", asked())).body["job_id"])
            await client.ask("DELETE", f"/v1/train/{cancelled[-1]}")
        kept = [running, *cancelled[-2:]]
        assert [it["job_id"] for it in await jobs(client)] == kept
        assert {it.name for it in folder.iterdir() if it.is_dir()} == set(kept)


async def jobs(client):
    return (await client.get("/v1/train")).body["jobs"]


async def test_what_the_samples_say_is_their_owners_alone(training, folder):
    async with training() as client:
        job_id = (await client.post("/v1/train", asked())).body["job_id"]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / job_id / "job.json").stat().st_mode & 0o777 == 0o600


async def test_a_training_that_fails_says_why_and_the_server_goes_on(training, folder):
    async with training() as client:
        job_id = (await client.post("/v1/train", asked())).body["job_id"]
        await until(client, job_id, lambda _: trainers(folder))
        for number in trainers(folder):
            os.kill(number, signal.SIGKILL)
        job = await until(client, job_id, lambda it: it.status == "failed")
        assert "memory" in job.error
        assert (await client.post("/v1/score", SCORED)).status == 200


async def test_a_job_that_is_torn_is_named_and_does_not_stop_the_server(training, folder, caplog):
    (folder / "torn").mkdir(parents=True)
    (folder / "torn" / "state.json").write_text('{"job_id": "a"')
    async with training() as client:
        job_id = (await client.post("/v1/train", asked())).body["job_id"]
        assert [it["job_id"] for it in await jobs(client)] == [job_id]
    [line] = caplog.messages
    assert line.startswith(f"{folder / 'torn'} cannot be read")
    assert line.endswith("move it away")
    assert (folder / "torn" / "state.json").exists()


async def test_two_servers_do_not_train_in_one_folder(training):
    async with training():
        with pytest.raises(UsageError, match="another server trains in"):
            async with training():
                pass


WRONG = [
    (asked() | {"training_data": {"samples": []}}, "training_data.samples"),
    (asked({**SAMPLE, "context_ids": []}), "training_data.samples[0].context_ids"),
    (
        asked(SAMPLE, {**SAMPLE, "continuation_ids": []}),
        "training_data.samples[1].continuation_ids",
    ),
    (asked({**SAMPLE, "context_ids": [VOCABULARY]}), "training_data.samples[0].context_ids"),
    (asked({**SAMPLE, "context_ids": [-1]}), "training_data.samples[0].context_ids[0]"),
    (asked({**SAMPLE, "context_ids": [1] * CONTEXT_LENGTH}), "training_data.samples[0]"),
    (asked({**SAMPLE, "context_ids": ["a"]}), "training_data.samples[0].context_ids[0]"),
    ({}, "training_data"),
]


async def test_what_cannot_be_learnt_is_refused_before_there_is_a_job(training):
    async with training() as client:
        for body, param in WRONG:
            answer = await client.post("/v1/train", body)
            assert (answer.status, answer.error["param"]) == (400, param)
        assert (await client.get("/v1/train")).body == {"jobs": []}


async def test_the_message_names_every_sample_that_is_too_long(training):
    long = {**SAMPLE, "context_ids": [1] * CONTEXT_LENGTH}
    async with training() as client:
        answer = await client.post("/v1/train", asked(SAMPLE, long, SAMPLE, long))
        said = answer.error["message"]
        assert f"samples 1 ({CONTEXT_LENGTH + 3} tokens), 3 (" in said
        assert f"the model reads {CONTEXT_LENGTH}" in said
        assert "mindscore review" in said
        assert "train.context" in said
        said = (await client.post("/v1/train", asked(*[long] * 1000))).error["message"]
        assert "and 997 more" in said
        # What a client shows of it.
        assert len(said) < 200
        wrong = asked(SAMPLE, {**SAMPLE, "continuation_ids": [VOCABULARY]})
        said = (await client.post("/v1/train", wrong)).error["message"]
        assert said.startswith("samples[1].continuation_ids: ")


async def test_a_job_that_is_not_there_is_an_error(training):
    async with training() as client:
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/activate")):
            answer = await client.ask(method, f"/v1/train/none{path}", json={})
            assert answer.status == 404
            assert "GET /v1/train" in answer.error["message"]


async def test_a_web_page_cannot_start_or_change_anything(training):
    async with training() as client:
        for path in ("/v1/train", "/v1/train/none/activate"):
            for headers in ({"Content-Type": "text/plain"}, {"Host": "evil.example"}):
                answer = await client.ask("POST", path, data=b"{}", headers=headers)
                assert answer.status in (403, 404, 415)
        answer = await client.ask("DELETE", "/v1/adapter", headers={"Host": "evil.example"})
        assert answer.status == 403


async def test_the_key_is_asked_for(training):
    async with training(key="sk-secret") as client:
        for method, path in (
            ("POST", "/v1/train"),
            ("GET", "/v1/train"),
            ("GET", "/v1/train/none"),
            ("DELETE", "/v1/adapter"),
        ):
            assert (await client.ask(method, path, json={})).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/train"),
        ("GET", "/v1/train/some"),
        ("POST", "/v1/train/some/activate"),
        ("DELETE", "/v1/adapter"),
    ],
)
async def test_a_server_that_does_not_train_says_how_to_have_one(method, path, served):
    async with served() as client:
        answer = await client.ask(method, path, json={})
    assert answer.status == 501
    assert "mindscore serve --train" in answer.error["message"]
