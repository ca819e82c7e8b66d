"""Models that are not plain: the values of one forward of the whole prompt, or an error."""

import math
import random
from contextlib import aclosing
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mindhooks import WirePrompt
from mindscore.scorers.local import model as local_model
from mindscore.scorers.local.chunks import longest_in_chunks
from mindscore.scorers.local.scorer import LocalScorer

from ...tiny_model import SMALL

FORGETTING = {
    "Llama4ForCausalLM": {
        "head_dim": 16,
        "attention_chunk_size": 100,
        "num_local_experts": 2,
        "intermediate_size_mlp": 64,
        "moe_layers": [],
    },
    "PhimoeForCausalLM": {"sliding_window": 100, "num_local_experts": 2},
}
"""Models whose attention is told by its mask alone which tokens it may not look at."""

LONGROPE = {
    "sliding_window": None,
    "original_max_position_embeddings": 100,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 100,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
    },
}
"""A model that turns all its positions otherwise once a prompt has over 100 tokens."""

CONFIGS = {
    "Llama4ForCausalLM": "Llama4TextConfig",
    "PhimoeForCausalLM": "PhimoeConfig",
    "Phi3ForCausalLM": "Phi3Config",
}


@pytest.fixture
def written(tmp_path, tokenizer_file):
    """Return a function that writes a random model, and returns its folder."""

    def write(name, more):
        config = getattr(transformers, CONFIGS[name])(**SMALL | {"hidden_size": 64} | more)
        with torch.random.fork_rng():
            torch.manual_seed(6)
            getattr(transformers, name)(config).save_pretrained(tmp_path)
        PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)).save_pretrained(tmp_path)
        return str(tmp_path)

    return write


def prompt(tokens, start):
    return WirePrompt(tuple(tokens), (), ((start, len(tokens)),), ("r",))


async def check(folder, *prompts):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    async with aclosing(LocalScorer({"model": folder, "device": "cpu"})) as scorer:
        for each in prompts:
            [[found]] = (await scorer.score([each])).ranges
            ids = torch.tensor([each.tokens])
            with torch.inference_mode():
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            values = logits.log_softmax(1).gather(1, ids[0, 1:, None])[:, 0].tolist()
            [(start, _)] = each.ranges
            assert found.values == pytest.approx(values[start - 1 :], abs=1e-4)


WHOLE = random.Random(1).choices(range(3, 400), k=200)
PROMPTS = (
    prompt(WHOLE[:60], 30),
    prompt(WHOLE, 150),
    prompt(WHOLE[:100] + WHOLE[110:], 120),
    prompt(WHOLE, 1),
    prompt(WHOLE[:60], 30),
)


@pytest.mark.parametrize("chunk", [1024, 50])
@pytest.mark.parametrize("name", FORGETTING)
async def test_a_mask_that_hides_more_than_later_tokens_is_kept(name, chunk, written, monkeypatch):
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", chunk)
    await check(written(name, FORGETTING[name]), *PROMPTS)


@pytest.mark.parametrize("chunk", [1024, 50])
async def test_positions_that_depend_on_a_prompts_length_are_those_of_the_whole_prompt(
    chunk, written, monkeypatch
):
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", chunk)
    await check(written("Phi3ForCausalLM", LONGROPE), *PROMPTS)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        # As transformers 4 has it, and for each kind of layers.
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 7}, 7),
        ({"rope_parameters": {"full": {"rope_type": "longrope"}}}, math.inf),
        (
            {
                "rope_parameters": {
                    "full": {"rope_type": "default"},
                    "other": {"rope_type": "longrope", "original_max_position_embeddings": 9},
                }
            },
            9,
        ),
        ({"rope_scaling": {"rope_type": "yarn"}, "original_max_position_embeddings": 7}, math.inf),
        ({"rope_scaling": None}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_longest_prompt_in_chunks_is_told_by_the_models_configuration(config, length):
    assert longest_in_chunks(SimpleNamespace(**config)) == length
