"""The self-test through the real adapters, against stand-ins of the servers, healthy and not."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import platformdirs
import pytest

from mindhooks import ScorerError
from mindscore.config.settings import ServerSettings
from mindscore.scorers.remote.auto import AutoScorer
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer
from mindscore.scorers.selftest import ensure_tested, self_test
from mindscore.scorers.selftest import tester as passed
from mindscore.scorers.toy import ToyScorer

from ...imitations import OpenAIImitation, SGLangImitation, VLLMImitation

TEXT = (
    "<|im_start|>system You look after the boats of a small rowing club. Answer briefly, and ask "
    "when something is not clear. Singles are on the left wall; doubles and fours hang from the "
    "beams. Oars with a red ring belong to the juniors. Nobody rows alone before sunrise, nor when "
    "the river stands above two metres. Damage goes into the blue book at once.<|im_end|> "
    "<|im_start|>user My daughter wants to take out a single tomorrow at seven; which oars may she "
    "use, and what should I check?<|im_end|>"
)
TOKENS = asyncio.run(ToyScorer().tokenize(TEXT))

SERVERS = {
    "vllm": (VLLMScorer, lambda fault: VLLMImitation(fault=fault)),
    "vllm-rows": (VLLMScorer, lambda fault: VLLMImitation(fault=fault, generate="on")),
    "vllm-v1": (VLLMScorer, lambda fault: VLLMImitation(fault=fault, generate="v1-runner")),
    "sglang": (SGLangScorer, lambda fault: SGLangImitation(fault=fault)),
    "auto-vllm": (AutoScorer, lambda fault: VLLMImitation(fault=fault)),
    "auto-sglang": (AutoScorer, lambda fault: SGLangImitation(fault=fault)),
    "auto-openai": (AutoScorer, lambda fault: OpenAIImitation(fault=fault)),
    "openai": (OpenAIScorer, lambda fault: OpenAIImitation(fault=fault)),
    "openai-ids": (OpenAIScorer, lambda fault: OpenAIImitation(fault=fault, token_ids=True)),
}


@pytest.fixture(params=SERVERS)
def tested(request: pytest.FixtureRequest):
    """Runs the self-test on a server with a fault or none; returns what it was asked."""
    adapter, imitation = SERVERS[request.param]
    if request.param == "vllm-rows":
        pytest.importorskip("numpy")

    async def run(fault, tokens=TOKENS):
        with imitation(fault) as server:
            scorer = adapter({"base_url": server.url, "model": "toy", "max_attempts": 1})
            async with aclosing(scorer):
                await self_test(scorer, tokens)
            return server.requests

    return run


@pytest.mark.parametrize("length", [8, 32, 64, 192])
async def test_a_healthy_server_passes(tested, length: int) -> None:
    requests = await tested(None, TOKENS[:length])
    asked = [it for it in requests if it.body]
    if any(it.path == "/v1/completions" for it in asked):
        # What was refused, and asked for again, is not counted.
        asked = [it for it in asked if it.path == "/v1/completions"]
    if any("prompt_logprobs" in it.body.get("sampling_params", ()) for it in asked):
        asked = [it for it in asked if "prompt_logprobs" in it.body["sampling_params"]]
    # Two prompts at once, then two one by one; of next to nothing two.
    reused = 2 if "cache_salt" in asked[0].body else 0
    assert len(asked) == (2 if length == 8 else 4 + reused)


@pytest.mark.parametrize("length", [32, 64, 192])
@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("shift", "alignment: "),
        ("itself", "alignment: "),
        ("constant", "constant: "),
        ("stale", "stale answers: "),
        # These the adapters see by themselves.
        ("omit", "during the self-test: http://"),
        ("nan", "during the self-test: http://"),
        ("clamp", "during the self-test: http://"),
        ("logits", "during the self-test: http://"),
        ("truncate", "during the self-test: http://"),
    ],
)
async def test_a_fault_is_found(tested, fault: str, named: str, length: int) -> None:
    with pytest.raises(ScorerError, match=f"Scorer, model 'toy', .*{named}"):
        await tested(fault, TOKENS[:length])


LONG = range(200, 400)
"""Enough for a prefix of more than 128 tokens."""

WRONG_WHERE_REUSED = {
    "other values": {},
    "no salt": {"salts": False},
    "no salt, and says nothing of it": {"salts": False, "says": lambda hit: min(hit, 128)},
}


@pytest.mark.parametrize("block", [16, 128])
@pytest.mark.parametrize("kind", [VLLMScorer, AutoScorer])
@pytest.mark.parametrize("how", WRONG_WHERE_REUSED)
async def test_where_reuse_gives_other_values_it_ends_and_scoring_goes_on(
    how, kind, block, caplog
) -> None:
    options = {"generate": "v1-runner", "junk": "right", **WRONG_WHERE_REUSED[how]}
    with VLLMImitation(block=block, **options) as server:
        if how == "other values":
            entries = server._entries

            async def spoilt(ids, hit, reads):
                # All that is computed behind a cached prefix is wrong.
                found = await entries(ids, hit, reads)
                for entry in found[hit + 1 :] if hit else ():
                    for it in entry.values():
                        it["logprob"] -= 2.0
                return found

            server._entries = spoilt
        table = {"base_url": server.url, "model": "toy", "max_attempts": 1}
        async with aclosing(kind(table)) as scorer:
            for _ in range(2):
                # It is not remembered as passed.
                await ensure_tested(scorer, ServerSettings(**table), LONG)
            assert scorer.reuses_prefixes is False
            count = len(server.requests)
            await ensure_tested(scorer, ServerSettings(**table), LONG)
            assert len(server.requests) > count
    [record] = [it for it in caplog.records if it.levelname == "WARNING"]
    assert "each prompt is computed in full from here on" in record.getMessage()


@pytest.mark.parametrize("runner", ["on", "v1-runner"])
async def test_where_reuse_is_right_it_goes_on(runner, caplog) -> None:
    with VLLMImitation(generate=runner, block=128) as server:
        table = {"base_url": server.url, "model": "toy", "max_attempts": 1}
        async with aclosing(VLLMScorer(table)) as scorer:
            await ensure_tested(scorer, ServerSettings(**table), LONG)
            assert scorer.reuses_prefixes is True
            read = [it for it in server.requests if it.path.endswith("/generate")][-1]
            assert read.body["sampling_params"]["skip_reading_prefix_cache"] is False
            count = len(server.requests)
            await ensure_tested(scorer, ServerSettings(**table), LONG)
            assert len(server.requests) == count
    assert "WARNING" not in caplog.text


class Mixed(OpenAIImitation):
    """Of two prompts that are asked for at once, each gets the other's answer."""

    def __init__(self):
        super().__init__()
        self._waiting = []
        self._both = asyncio.Event()

    async def completions(self, body):
        if self._both.is_set():
            return await super().completions(body)
        self._waiting.append(body)
        if len(self._waiting) == 2:
            self._both.set()
        await self._both.wait()
        [other] = [it for it in self._waiting if it is not body]
        return await super().completions(other)


async def test_answers_to_prompts_at_once_that_are_mixed_up_are_found() -> None:
    with Mixed() as server:
        table = {"base_url": server.url, "model": "toy"}
        scorer = OpenAIScorer(table)
        async with aclosing(scorer):
            with pytest.raises(ScorerError, match="order of answers: "):
                await ensure_tested(scorer, ServerSettings(**table), TOKENS)


async def test_a_server_that_passed_is_asked_nothing_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / name)
    monkeypatch.setattr(passed, "_passed", {})
    monkeypatch.setattr(SGLangScorer, "self_tested", True, raising=False)
    with SGLangImitation() as server:
        table = {"base_url": server.url, "model": "toy"}
        for _ in range(2):
            scorer = SGLangScorer(table)
            async with aclosing(scorer):
                await ensure_tested(scorer, ServerSettings(**table), TOKENS)
            passed._passed.clear()
        assert len([it for it in server.requests if it.method == "POST"]) == 4
