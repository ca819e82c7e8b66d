"""Responses that do not see some tokens: as by a mask over the whole prompt, from few rows."""

import random
from contextlib import aclosing

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mindhooks import WirePrompt
from mindscore.scorers.local.scorer import LocalScorer

SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS = {
    "LlamaForCausalLM": {"num_key_value_heads": 4},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {"num_key_value_heads": 1, "head_dim": 16},
    "GemmaForCausalLM": {"head_dim": 16},
    "GPT2LMHeadModel": {},
}


@pytest.fixture
def written(tmp_path, tokenizer_file):
    """Return a function that writes a random model, and returns its folder."""

    def write(name, **more):
        config = getattr(transformers, name).config_class(**(SMALL | more))
        with torch.random.fork_rng():
            torch.manual_seed(6)
            getattr(transformers, name)(config).save_pretrained(tmp_path)
        PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)).save_pretrained(tmp_path)
        return str(tmp_path)

    return write


def reference(model, prompt, spans):
    """The totals by a pass of the whole prompt for each response, with an explicit mask.

    The rows of the response stand once more behind the prompt: those see no hidden token, and in
    the place of the response's own tokens each other.
    """
    totals = []
    for start, end in prompt.ranges:
        rows = torch.arange(start - 1, end - 1)
        length = len(prompt.tokens)
        sees = torch.ones(length + len(rows), length + len(rows), dtype=torch.bool).tril()
        sees[length:, start - 1 : length] = False
        for first, last in spans:
            sees[length:, first : min(last, start - 1)] = False
            own = [
                length + it - (start - 1) for it in range(first, last) if start - 1 <= it < end - 1
            ]
            sees[length:, own] = False
        sees.fill_diagonal_(True)
        ids = torch.tensor(prompt.tokens)
        positions = torch.cat([torch.arange(length), rows])
        logits = model(
            input_ids=ids[positions][None],
            position_ids=positions[None],
            attention_mask=sees[None, None],
            use_cache=False,
        ).logits[0, length:]
        values = logits.double().log_softmax(1).gather(1, ids[rows + 1, None])
        totals.append(values.sum().item())
    return totals


def asked(length=150, *ranges, seed=1):
    tokens = random.Random(seed).choices(range(3, 400), k=length)
    return WirePrompt(tuple(tokens), (), ranges, tuple(map(str, range(len(ranges)))))


async def check(folder, prompt, hidden, **table):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    async with aclosing(LocalScorer({"model": folder, "device": "cpu", **table})) as scorer:
        result = await scorer.knock_out(prompt, hidden)
    with torch.inference_mode():
        for spans, found in zip(hidden, result.ranges, strict=True):
            expected = reference(model, prompt, spans)
            assert [it.total for it in found] == pytest.approx(expected, abs=1e-3)
    return result.computed_tokens


@pytest.mark.parametrize("name", MODELS)
async def test_values_are_those_of_a_mask_over_the_whole_prompt(name, written):
    prompt = asked(150, (40, 52), (90, 91), (120, 150))
    hidden = [[(10, 20)], [(10, 20), (60, 70)], [(60, 75)], [(0, 30)], [(145, 150)], []]
    await check(written(name, **MODELS[name]), prompt, hidden)
