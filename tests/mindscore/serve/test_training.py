"""``/v1/train`` and what follows, on a tiny model, over a real socket."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from mindscore.errors import TrainError, UsageError
from mindscore.lora.job import Recipe
from mindscore.scorers.local import LocalScorer
from mindscore.serve import trainer as trainer_module
from mindscore.serve.trainer import Trainer

from ..tiny_model import CONTEXT_LENGTH, VOCABULARY, write_tiny_model
from ..training_processes import trainers

PATIENCE_S = 60
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
    async def training(recipe=ENDLESS, **options):
        scorer = LocalScorer({"model": tiny_model})
        # As the command does: a model that cannot be loaded is known at the start.
        await scorer.tokenize("")
        async with served(scorer, trainer=Trainer(scorer, folder, recipe), **options) as client:
            yield client
        await scorer.aclose()

    return training


async def until(client, job_id, wanted):
    """The job, once ``wanted(job)`` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            job = SimpleNamespace(**(await client.get(f"/v1/train/{job_id}")).body)
            if wanted(job):
                return job
            await asyncio.sleep(0.02)


async def test_what_is_learnt_is_in_the_model_when_asked_for_and_not_before(training, folder):
    async with training(SHORT) as client:

        async def total():
            return (await client.post("/v1/score", SCORED)).body["scores"][0]["total_logprob"]

        before = await total()
        answer = await client.post("/v1/train", asked())
        job_id = answer.body["job_id"]
        assert (answer.status, answer.body.keys()) == (200, {"job_id"})
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
    monkeypatch.setattr(trainer_module, "MOST_QUEUED", 1)
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
        await until(client, first, lambda it: it.epoch > 0)
    assert trainers(folder) == []
    async with training() as client:
        jobs = (await client.get("/v1/train")).body["jobs"]
        assert [it["job_id"] for it in jobs] == [first, second]
        assert (jobs[0]["status"], jobs[0]["error"]) == ("failed", "the server ended")
        again = await client.post("/v1/train", asked(), headers=headers)
        assert again.body == {"job_id": first}
        other = asked({**SAMPLE, "context_ids": [9]})
        refused = await client.post("/v1/train", other, headers=headers)
        assert (refused.status, first in refused.error["message"]) == (422, True)
        await until(client, second, lambda it: it.epoch > 0)


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


async def test_a_state_that_is_torn_is_an_error_that_names_it(training, folder):
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "state.json").write_text('{"job_id": "a"')
    with pytest.raises(TrainError, match=r"a/state\.json cannot be read"):
        async with training():
            pass


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
    (asked({**SAMPLE, "context_ids": [-1]}), "training_data.samples[0].context_ids"),
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
